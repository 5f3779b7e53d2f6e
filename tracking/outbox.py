"""The outbox: a study writes down what happened, a thread tells MLflow when MLflow listens.

    outbox = Outbox(study_dir, "sqlite:////home/me/mlflow.db", experiment="reprogramming demo ast-nano")
    outbox.add(open_study(outbox.study_key, name="unet-1"))
    …
    print(outbox.close().message)

Adding a record appends a line to a file: that takes well under a millisecond, waits for nobody and raises nothing
that MLflow does. A server that is slow, down or gone costs the study nothing: what it has not got,
`python -m tracking.sync` delivers.
"""

import logging
import shlex
import threading
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tracking.courier import Courier, Outcome
from tracking.destination import Destination
from tracking.recorded import Recorded
from tracking.records import Record, epoch_name, from_line, trial_key
from tracking.spool import Spool
from tracking.store import Address, absolute_uri, prepare_environment

_LOG = logging.getLogger(__name__)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 15.0
_POLL_S = 1.0


@dataclass(frozen=True)
class Closing:
    """What was left when an outbox closed; `command` delivers it."""

    left: int
    rejected: int
    unwritten: int
    command: str

    @property
    def message(self) -> str:
        """Say what is left and what to do about it; empty if there is nothing to say."""
        lines = []
        if self.left:
            lines.append(f"{self.left} records have not reached MLflow yet. Deliver them with: {self.command}")
        if self.rejected:
            lines.append(f"MLflow refused {self.rejected} records; outbox.rejected.jsonl beside the study says why.")
        if self.unwritten:
            lines.append(f"{self.unwritten} records could not be written to the outbox and are lost (see the log).")
        return "\n".join(lines)


class Outbox:
    """Takes a study's records, keeps them in the study's directory, delivers them from a thread of its own.

    `study_key` names the study in MLflow. It is drawn once for a directory: two studies of one name never mix.
    Delivery begins after `head_start_s`: importing MLflow and making a store take a few seconds of Python, which
    would otherwise slow the study's own start.

    Raises:
        ValueError: `tracking_uri` is none that MLflow takes.
    """

    def __init__(
        self,
        study_dir: Path,
        tracking_uri: str,
        *,
        experiment: str,
        artifact_root: Path | None = None,
        head_start_s: float = 5.0,
    ) -> None:
        address = Address(absolute_uri(tracking_uri), experiment, artifact_root)
        self._destination = Destination(address)
        self._spool = Spool(study_dir)
        self._courier = Courier(self._spool, self._destination)
        prepare_environment()
        self._spool.study_dir.mkdir(parents=True, exist_ok=True)
        self._spool.repair()
        self._spool.write_address(address)
        self._recorded = Recorded()
        self.study_key = self._read_back() or uuid.uuid4().hex[:12]
        self._unwritten = 0
        self._adding = threading.RLock()
        self._news, self._is_closing, self._must_stop = (threading.Event() for _ in range(3))
        self._thread = threading.Thread(target=self._carry, args=(head_start_s,), name="mlflow-outbox", daemon=True)
        self._thread.start()

    @property
    def experiment_id(self) -> str | None:
        """The experiment's id, once MLflow has been reached."""
        return self._destination.experiment_id

    def add(self, records: Iterable[Record]) -> None:
        """Write records down, except those that are there already.

        Opening a run that has ended opens it again, and lets it end again.
        """
        with self._adding:
            new = self._recorded.new(records)
            if not new:
                return
            try:
                self._spool.append([record.to_line() for record in new])
            except OSError as error:
                self._unwritten += len(new)
                _LOG.error("%d records are lost: %s", len(new), error)
                return
            for record in new:
                self._recorded.note(record)
        self._news.set()

    def has_epoch(self, number: int, epoch: int) -> bool:
        """Tell whether a trial's epoch is written down, by this process or one before it."""
        return self._recorded.has(trial_key(self.study_key, number), epoch_name(epoch))

    def has_ended(self, number: int) -> bool:
        """Tell whether a trial's end is written down and it was not opened again."""
        return self._recorded.has(trial_key(self.study_key, number), "end")

    def left(self) -> int:
        """Count the records that MLflow has not got yet."""
        return self._courier.left()

    def close(self, *, timeout_s: float = 10.0) -> Closing:
        """Give delivery `timeout_s` more seconds, then say what is left."""
        self._is_closing.set()
        self._news.set()
        self._thread.join(timeout_s)
        self._must_stop.set()
        self._news.set()
        command = shlex.join(["python", "-m", "tracking.sync", str(self._spool.study_dir)])
        rejected = sum(1 for entry in self._spool.rejected() if entry["destination"] == self._destination.name)
        return Closing(self.left(), rejected, self._unwritten, command)

    def _read_back(self) -> str | None:
        """Learn what was written down before this process; return the study's key."""
        study = None
        for line, _ in self._spool.read():
            try:
                record = from_line(line)
            except ValueError:
                continue
            self._recorded.note(record)
            study = study or record.key.partition("/")[0]
        return study

    def _carry(self, head_start_s: float) -> None:
        """Deliver whenever there is news, with growing pauses while MLflow does not answer."""
        self._is_closing.wait(head_start_s)
        wait_s, is_down = _FIRST_WAIT_S, False
        while not self._must_stop.is_set():
            self._news.clear()
            is_last_try = self._is_closing.is_set()
            outcome = self._courier.deliver(must_stop=self._must_stop.is_set)
            if is_last_try and (outcome.is_drained or outcome.error):
                return
            is_down = self._tell(outcome, was_down=is_down)
            if outcome.error:
                self._is_closing.wait(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            else:
                wait_s = _FIRST_WAIT_S
                self._news.wait(_POLL_S)

    def _tell(self, outcome: Outcome, *, was_down: bool) -> bool:
        """Log that MLflow stopped or resumed taking records; return whether it takes none."""
        if outcome.error and not was_down:
            _LOG.warning("MLflow takes no records now; %s keeps them. %s", self._spool.path, outcome.error)
        if outcome.is_drained and was_down:
            _LOG.info("MLflow has everything again")
        return bool(outcome.error) or (was_down and not outcome.is_drained)
