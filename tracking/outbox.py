"""The outbox: a study appends its records to a file, and a thread delivers them to MLflow whenever MLflow answers.

    outbox = Outbox(study_dir, "sqlite:////home/me/mlflow.db", experiment="reprogramming demo ast-nano")
    outbox.add(open_study(outbox.study_key, name="unet-1"))
    …
    print(outbox.close())

Adding a record takes well under a millisecond and never waits for MLflow: a slow, dead or missing server costs the
study nothing. `python -m tracking.sync` delivers the rest later.

Files in the study's directory, each of which survives `kill -9` at any point:

    outbox.jsonl    one record a line, append only; nothing is ever removed
    outbox.json     the store and the experiment, and how many bytes are delivered
    outbox.lock     held by the one process that delivers at this moment
"""

import errno
import json
import logging
import os
import shlex
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from tracking.mlflow_store import Address, Store, is_refusal, prepare_environment
from tracking.records import Record, epoch_name, trial_key
from tracking.uris import checked_uri, relative_uri, resolved_uri

_LOG = logging.getLogger(__name__)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 15.0
_POLL_S = 1.0
_MAX_TRIES = 5
_ENDING = ("end", "final", "artifact ")


class Spool:
    """The files of one outbox. A reader sees complete lines only; offsets are bytes."""

    def __init__(self, study_dir: Path) -> None:
        self.study_dir = study_dir.absolute()
        self.path = self.study_dir / "outbox.jsonl"
        self.lock = FileLock(self.study_dir / "outbox.lock", timeout=0)
        self._state_path = self.study_dir / "outbox.json"

    def repair(self) -> None:
        """Cut off a last line that a killed writer left incomplete."""
        if self.path.exists():
            os.truncate(self.path, self.path.read_bytes().rfind(b"\n") + 1)

    def append(self, records: Iterable[Record]) -> None:
        """Append records in one write, all of them or none; a full disk is an `OSError`."""
        content = "".join(_moved(record, self._stored).to_line() for record in records).encode()
        with self.path.open("ab", buffering=0) as file:
            before = os.fstat(file.fileno()).st_size
            if file.write(content) != len(content):
                os.ftruncate(file.fileno(), before)
                raise OSError(errno.ENOSPC, "No space left on device", str(self.path))

    def read(self, offset: int = 0) -> Iterator[tuple[Record | None, int]]:
        """Yield the records from `offset` on, each with the offset after it; None stands for a damaged line."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                try:
                    yield _moved(Record.of_line(line.decode()), self.study_dir.joinpath), offset
                except ValueError:
                    yield None, offset

    def _stored(self, path: str) -> Path:
        """Return a path inside the study's directory as a relative one, since both move together."""
        inside = Path(path).is_relative_to(self.study_dir)
        return Path(path).relative_to(self.study_dir) if inside else Path(path)

    def read_state(self) -> tuple[Address, int]:
        """Return the address of the records, and the offset of the first undelivered one.

        Raises:
            ValueError: the directory has no outbox.
        """
        if not self._state_path.exists():
            raise ValueError(f"{self.study_dir}: no outbox here ({self._state_path.name} is missing)")
        state = json.loads(self._state_path.read_text())
        address = Address(resolved_uri(state["tracking_uri"], self.study_dir), state["experiment"])
        size = self.path.stat().st_size if self.path.exists() else 0
        delivered = int(state["delivered"])
        return address, delivered if delivered <= size else 0

    def write_state(self, address: Address, delivered: int) -> None:
        """Replace the state in one step."""
        state = {
            "tracking_uri": relative_uri(address.uri, self.study_dir),
            "experiment": address.experiment,
            "delivered": delivered,
        }
        scratch = self._state_path.with_suffix(".tmp")
        scratch.write_text(json.dumps(state, indent=1))
        scratch.replace(self._state_path)


class Courier:
    """Delivers records in order, while it holds the lock: to `address`, or to the one in the outbox's state.

    Delivery to another `address` starts from the first record and leaves the state alone. Repeated delivery is
    harmless: a run is found by its key, and a repeated value changes nothing.
    """

    def __init__(self, spool: Spool, address: Address | None = None) -> None:
        self.spool, self.store = spool, Store(address or spool.read_state()[0])
        self.refused = 0
        self._delivered = 0
        self._is_known = False
        self._tries_at: tuple[int, int] = (-1, 0)

    def left(self) -> int:
        """Count the undelivered records."""
        return sum(1 for _ in self.spool.read(self._offset()))

    def deliver(self, *, must_stop: Callable[[], bool] = lambda: False) -> str | None:
        """Deliver until nothing is left, an error occurs, or `must_stop`; return the error.

        Return at once if another process is delivering.
        """
        try:
            with self.spool.lock:
                while not must_stop():
                    self._check_store()
                    if (record := next(self.spool.read(self._offset()), None)) is None:
                        break
                    self._deliver_one(*record)
        except Timeout:
            return None
        except Exception as error:
            _LOG.debug("delivery to %s", self.store.address, exc_info=True)
            self._reconnect()
            return one_line(error)
        return None

    def _offset(self) -> int:
        address, delivered = self.spool.read_state()
        return delivered if address == self.store.address else self._delivered

    def _set_offset(self, offset: int) -> None:
        self._delivered = offset
        if self.spool.read_state()[0] == self.store.address:
            self.spool.write_state(self.store.address, offset)

    def _deliver_one(self, record: Record | None, end: int) -> None:
        """Deliver a record, or skip it with a warning.

        A record is skipped if the store refuses it over two connections, or if another error occurs `_MAX_TRIES` times
        while the store is up.
        """
        tries = self._tries_at[1] + 1 if self._tries_at[0] == end else 1
        self._tries_at = (end, tries)
        try:
            if record is None:
                raise ValueError("a damaged line")
            self.store.apply(record)
        except Exception as error:
            if is_refusal(error) and tries == 1:
                self._reconnect()
                return
            if not is_refusal(error) and not (tries >= _MAX_TRIES and self.store.is_up()):
                raise
            self.refused += 1
            name = f"{record.key} {record.name}" if record else f"the line that ends at byte {end}"
            _LOG.warning("MLflow refused a record (%s in %s): %s", name, self.spool.path, one_line(error))
        self._set_offset(end)

    def _check_store(self) -> None:
        """Connect, unless there is no record; start from the first one if the store has lost its run."""
        if self._is_known:
            return
        first = next(((record, end) for record, end in self.spool.read() if record), None)
        if first is None:
            return
        self.store.connect()
        if first[1] <= self._offset() and not self.store.has_run(first[0].key):
            _LOG.warning("%s no longer has this study: all of it is delivered again", self.store.address)
            self._set_offset(0)
        self._is_known = True

    def _reconnect(self) -> None:
        self.store.forget()
        self._is_known = False


class Outbox:
    """Takes a study's records, keeps them in the study's directory, and delivers them from a thread.

    `study_key` identifies the study in MLflow. It is drawn once for a directory: two studies of one name never mix.
    Delivery begins after `head_start_s`, since importing MLflow and making a store slow the study's own start.

    Raises:
        ValueError: MLflow does not take `tracking_uri`, or it holds a password.
    """

    def __init__(self, study_dir: Path, tracking_uri: str, *, experiment: str, head_start_s: float = 5.0) -> None:
        address = Address(checked_uri(tracking_uri), experiment)
        prepare_environment()
        self._spool = Spool(study_dir)
        self._spool.study_dir.mkdir(parents=True, exist_ok=True)
        self._spool.repair()
        try:
            recorded, delivered = self._spool.read_state()
        except ValueError:
            recorded, delivered = address, 0
        self._spool.write_state(address, delivered if recorded == address else 0)
        self._courier = Courier(self._spool)
        self._names, first = _names_in(self._spool)
        self.study_key = first.partition("/")[0] if first else uuid.uuid4().hex[:12]
        self._unwritten = 0
        self._adding = threading.RLock()
        self._news, self._is_closing, self._must_stop = (threading.Event() for _ in range(3))
        self._thread = threading.Thread(target=self._run, args=(head_start_s,), name="mlflow-outbox", daemon=True)
        self._thread.start()

    @property
    def experiment_id(self) -> str | None:
        """The experiment's id, once MLflow has been reached."""
        return self._courier.store.experiment_id

    def add(self, records: Iterable[Record]) -> None:
        """Append the records that the outbox lacks.

        A record that opens a run again lets the run end again, with new final figures and artifacts.
        """
        with self._adding:
            new = [record for record in records if _note(self._names, record)]
            try:
                if new:
                    self._spool.append(new)
            except OSError as error:
                self._unwritten += len(new)
                self._names, _ = _names_in(self._spool)
                _LOG.error("%d records are lost: %s", len(new), error)
        self._news.set()

    def has_epoch(self, number: int, epoch: int) -> bool:
        """Return whether a trial's epoch is recorded, by this process or an earlier one."""
        return epoch_name(epoch) in self._names.get(trial_key(self.study_key, number), ())

    def has_ended(self, number: int) -> bool:
        """Return whether a trial's end is recorded and no later record opens it again."""
        return "end" in self._names.get(trial_key(self.study_key, number), ())

    def left(self) -> int:
        """Count the records that MLflow lacks."""
        return self._courier.left()

    def close(self, *, timeout_s: float = 10.0) -> str:
        """Give delivery `timeout_s` more seconds; return a line for each kind of record that MLflow lacks."""
        self._is_closing.set()
        self._news.set()
        self._thread.join(timeout_s)
        self._must_stop.set()
        self._news.set()
        create = ["--create"] if self._courier.store.address.is_missing else []
        command = shlex.join(["python", "-m", "tracking.sync", str(self._spool.study_dir), *create])
        lacking = {
            f"have not reached MLflow yet. Deliver them with: {command}": self.left(),
            "were refused by MLflow; the warnings above give the reason.": self._courier.refused,
            "could not be written to the outbox and are lost; the errors above give the reason.": self._unwritten,
        }
        return "\n".join(f"{count} records {fate}" for fate, count in lacking.items() if count)

    def _run(self, head_start_s: float) -> None:
        """Deliver whenever there are new records, with growing pauses while MLflow does not answer."""
        self._is_closing.wait(head_start_s)
        wait_s, is_down = _FIRST_WAIT_S, False
        while not self._must_stop.is_set():
            self._news.clear()
            is_last_try = self._is_closing.is_set()
            error = self._courier.deliver(must_stop=self._must_stop.is_set)
            is_drained = not self._courier.left()
            if is_last_try and (is_drained or error):
                return
            if error and not is_down:
                _LOG.warning("MLflow takes no records now; %s keeps them. %s", self._spool.path, error)
            if is_drained and is_down:
                _LOG.info("MLflow has everything again")
            is_down = bool(error) or (is_down and not is_drained)
            if error:
                self._is_closing.wait(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            else:
                wait_s = _FIRST_WAIT_S
                self._news.wait(_POLL_S)


def one_line(error: Exception) -> str:
    """Return an error's type and message as one short line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def _note(names: dict[str, set[str]], record: Record) -> bool:
    """Add a record to the names of its run; return whether it was missing.

    Opening a run again allows its end, final figures and artifacts once more, but not its parameters and epochs.
    """
    known = names.setdefault(record.key, set())
    if record.name in known:
        return False
    if record.op == "run":
        known -= {name for name in known if name.startswith(_ENDING)}
    if record.op == "end":
        known.discard("run")
    known.add(record.name)
    return True


def _names_in(spool: Spool) -> tuple[dict[str, set[str]], str | None]:
    """Return the names of all written records by run, and the key of the first record."""
    names: dict[str, set[str]] = {}
    for record, _ in spool.read():
        if record:
            _note(names, record)
    return names, next(iter(names), None)


def _moved(record: Record, place: Callable[[str], Path]) -> Record:
    """Return the record with the path of its artifact replaced."""
    if record.op != "artifact":
        return record
    return replace(record, body={**record.body, "path": str(place(record.body["path"]))})
