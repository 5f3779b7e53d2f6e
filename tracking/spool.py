"""The files behind an outbox, in the study's directory; everything here survives `kill -9` at any point.

    outbox.jsonl            one record a line, only ever appended to
    outbox.address.json     the store and experiment it is meant for
    outbox.delivered.json   how many bytes of it each destination has
    outbox.rejected.jsonl   what a destination refused for good, with the reason
    outbox.lock             held (flock) by the one process that delivers at this moment

The lock wants a POSIX system: on Windows this module does not import.
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tracking.store import Address, absolute_uri, without_password


class Spool:
    """One study's outbox files. Only complete lines exist to a reader; offsets are bytes."""

    def __init__(self, study_dir: Path) -> None:
        self.study_dir = study_dir.absolute()
        self.path = self.study_dir / "outbox.jsonl"
        self.rejected_path = self.study_dir / "outbox.rejected.jsonl"
        self._address_path = self.study_dir / "outbox.address.json"
        self._delivered_path = self.study_dir / "outbox.delivered.json"
        self._lock_path = self.study_dir / "outbox.lock"

    def repair(self) -> None:
        """Cut off a last line that a killed writer left without its end."""
        _cut_torn_line(self.path)

    def append(self, lines: Sequence[str]) -> None:
        """Append lines in one write, all of them or none.

        Raises:
            OSError: the disk is full, or the like.
        """
        _append(self.path, "".join(lines))

    def read(self, offset: int = 0) -> Iterator[tuple[str, int]]:
        """Yield the complete lines from `offset` on, each with the offset after it."""
        return _read_lines(self.path, offset)

    def left(self, destination: str) -> int:
        """Count the records that `destination` has not got."""
        return sum(1 for _ in self.read(self.delivered(destination)))

    def to_disk(self) -> None:
        """Put the outbox on disk for good, so that no delivered record can be lost from it."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())

    def delivered(self, destination: str) -> int:
        """Return the offset up to which `destination` has everything; 0 if it has nothing."""
        offset = int(self._all_delivered().get(destination, 0))
        size = self.path.stat().st_size if self.path.exists() else 0
        return min(offset, size)

    def set_delivered(self, destination: str, offset: int) -> None:
        """Remember the offset up to which `destination` has everything. Call it with the lock held."""
        everything = {**self._all_delivered(), destination: offset}
        _write_json(self._delivered_path, everything)

    def write_address(self, address: Address) -> None:
        """Remember where the records go, without the password that the URI may hold."""
        root = address.artifact_root
        fields = {
            "tracking_uri": without_password(address.uri),
            "experiment": address.experiment,
            "artifact_root": str(root.absolute()) if root else None,
        }
        _write_json(self._address_path, fields)

    def read_address(self, *, tracking_uri: str | None = None) -> Address:
        """Return where the records go, or the same experiment at `tracking_uri`.

        Raises:
            ValueError: the directory holds no outbox.
        """
        if not self._address_path.exists():
            raise ValueError(f"{self.study_dir}: holds no outbox ({self._address_path.name} is missing)")
        fields = json.loads(self._address_path.read_text())
        if tracking_uri is not None:
            return Address(absolute_uri(tracking_uri), fields["experiment"])
        root = fields["artifact_root"]
        return Address(fields["tracking_uri"], fields["experiment"], Path(root) if root else None)

    def reject(self, line: str, *, destination: str, reason: str) -> None:
        """Set a line aside, with the reason. Call it with the lock held."""
        entry = {"reason": reason, "destination": destination, "line": line.rstrip("\n")}
        _cut_torn_line(self.rejected_path)
        _append(self.rejected_path, json.dumps(entry) + "\n")

    def rejected(self) -> list[dict[str, str]]:
        """Return what was set aside."""
        return [json.loads(line) for line, _ in _read_lines(self.rejected_path, 0)]

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Try to become the one process that delivers, without waiting; yield whether it worked."""
        with self._lock_path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True  # closing the file releases the lock, and so does dying

    def _all_delivered(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._delivered_path.read_text()))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}  # everything is delivered again, which leaves no trace


def _append(path: Path, text: str) -> None:
    content = text.encode()
    with path.open("ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        if file.write(content) != len(content):
            os.ftruncate(file.fileno(), before)
            raise OSError(errno.ENOSPC, "No space left on device", str(path))


def _read_lines(path: Path, offset: int) -> Iterator[tuple[str, int]]:
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield line.decode(errors="replace"), offset


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


def _write_json(path: Path, value: Any) -> None:
    """Write a file such that a reader finds the old one or the new one, whole."""
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(value, indent=1))
    scratch.replace(path)
