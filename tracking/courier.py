"""Carries records from an outbox's files to a destination, in order, one carrier at a time."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from tracking.destination import Destination, is_refusal
from tracking.records import from_line
from tracking.spool import Spool

_LOG = logging.getLogger(__name__)
_MAX_TRIES = 5


@dataclass(frozen=True)
class Outcome:
    """How far a delivery came: nothing left, an error, or neither when it was told to stop or not its turn."""

    is_drained: bool
    error: str | None = None


class Courier:
    """Delivers what a destination has not got. Never raises: an error is an outcome."""

    def __init__(self, spool: Spool, destination: Destination) -> None:
        self.spool, self.destination = spool, destination
        self._is_sure = False
        self._tries_at: tuple[int, int] = (-1, 0)

    def deliver(self, *, must_stop: Callable[[], bool] = lambda: False) -> Outcome:
        """Deliver until nothing is left, something fails, or `must_stop` says so between two records."""
        try:
            with self.spool.lock() as is_my_turn:
                while is_my_turn and self.left():
                    try:
                        if not self._deliver_pending(must_stop):
                            return Outcome(is_drained=False)
                    except _AskAgainError:
                        self._doubt()
                return Outcome(is_drained=is_my_turn)
        except Exception as error:
            _LOG.debug("delivery to %s", self.destination.name, exc_info=True)
            self._doubt()
            return Outcome(is_drained=False, error=_one_line(error))

    def left(self) -> int:
        """Count the records that are still to be delivered."""
        return self.spool.left(self.destination.name)

    def _deliver_pending(self, must_stop: Callable[[], bool]) -> bool:
        """Deliver what is there now; return False if told to stop."""
        self._make_sure()
        self.spool.to_disk()
        name = self.destination.name
        for line, end in self.spool.read(self.spool.delivered(name)):
            if must_stop():
                return False
            self._deliver_line(line, end)
            self.spool.set_delivered(name, end)
        return True

    def _make_sure(self) -> None:
        """Reach the store; a store that lacks what it was given is another, and gets everything from the start."""
        self.destination.connect()
        if self._is_sure:
            return
        name, first = self.destination.name, self._first_key()
        if first is not None and self.spool.delivered(name) and not self.destination.has_run(first):
            _LOG.warning("%s no longer has this study: delivering all of it again", name)
            self.spool.set_delivered(name, 0)
        self._is_sure = True

    def _first_key(self) -> str | None:
        for line, _ in self.spool.read():
            try:
                return from_line(line).key
            except ValueError:
                continue
        return None

    def _doubt(self) -> None:
        self.destination.forget()
        self._is_sure = False

    def _deliver_line(self, line: str, end: int) -> None:
        """Deliver one line, or set it aside.

        A refusal counts when a store asked afresh repeats it, any other error when it came back `_MAX_TRIES`
        times while the store took other writes.
        """
        tries = self._tries_at[1] + 1 if self._tries_at[0] == end else 1
        self._tries_at = (end, tries)
        try:
            self.destination.apply(from_line(line))
        except Exception as error:
            if is_refusal(error) and tries == 1:
                raise _AskAgainError from error
            if not (is_refusal(error) or (tries >= _MAX_TRIES and self.destination.is_writable())):
                raise
            _LOG.warning("MLflow refused a record (kept in %s): %s", self.spool.rejected_path, _one_line(error))
            self.spool.reject(line, destination=self.destination.name, reason=_one_line(error))


class _AskAgainError(Exception):
    """A refusal that may come from remembering a store that is no longer there."""


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
