"""Writing the rows of a feature store, so that they are true whatever ends the process; see `store_files`."""

import math
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from harness.common.progress import Progress
from harness.data.extraction import Heard, threads
from harness.data.rows import Rows, StoredRows, UnreadableRowsError, layout
from harness.data.store_files import (
    DAMAGED,
    FEATURES,
    FILLING,
    MISSING,
    READY,
    REASON_BYTES,
    RECORD,
    RECORDS,
    UNREADABLE,
    is_doubtful,
    is_whole,
    said_of,
    sync_directory,
)

_COPY = f"{FEATURES}.part"
_CHECKING_THREADS = 4


class RowWriter:
    """Writes the rows of one store; `filling` holds it open. `records` are what it has written and what was there.

    `is_checked`: what was there can be believed, since who wrote it came to an end of its own, or `check` did.
    """

    def __init__(self, path: Path, records: np.ndarray, *, is_checked: bool) -> None:
        shape, dtype, self._start = layout(path / FEATURES)
        self.row_bytes = math.prod(shape[1:]) * dtype.itemsize
        self._path, self.records, self.is_checked = path, records.copy(), is_checked
        self._features = os.open(path / FEATURES, os.O_RDWR | os.O_CLOEXEC)
        self._records = os.open(path / RECORDS, os.O_RDWR | os.O_CLOEXEC)

    def put(self, row: int, heard: Heard, stamp: Int[np.ndarray, "3"]) -> None:
        """Write one row, and then that it is there.

        Raises:
            OSError: it cannot be written, for one because the disk is full.
        """
        record = np.zeros((), RECORD)
        record["audio"], record["stamp"] = np.frombuffer(heard.audio, np.uint8), stamp
        with said_of(self._path):
            if heard.log_mel is not None:
                content: bytes | memoryview = np.ascontiguousarray(heard.log_mel).data.cast("B")
                # not through a memory map: there a full disk is a SIGBUS, here an OSError
                _write(self._features, content, self._start + row * self.row_bytes)
                record["state"] = READY
            else:
                content = _cut(heard.reason)
                record["state"], record["reason"] = UNREADABLE, content
            record["crc"] = zlib.crc32(content)
            self._note(row, record)

    def stamp(self, row: int, stamp: Int[np.ndarray, "3"]) -> None:
        """Write that a row's file, whose bytes are the same, has another stamp."""
        record = self.records[row].copy()
        record["stamp"] = stamp
        with said_of(self._path):
            self._note(row, record)

    def forget(self, rows: Iterable[int]) -> None:
        """Write that rows are missing."""
        with said_of(self._path):
            for row in rows:
                self._note(row, np.zeros((), RECORD))

    def check(self, progress: Progress) -> None:
        """Hold all rows that have a record to it, and forget those that are not true."""
        rows = np.flatnonzero(self.records["state"] != MISSING)
        are_true = hold_to_records(StoredRows(self._path / FEATURES), self.records, rows, progress)
        self.forget(rows[~are_true].tolist())
        self.is_checked = True

    def detach(self, progress: Progress) -> None:
        """Go on in a copy of the features, so that who has the file open goes on reading what is in it.

        The copy has every row that is ready, and takes the file's place once it is on the disk.
        """
        with said_of(self._path):
            copy = os.open(self._path / _COPY, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
            try:
                self._copy_to(copy, progress)
                (self._path / _COPY).rename(self._path / FEATURES)
            except BaseException:
                os.close(copy)
                (self._path / _COPY).unlink(missing_ok=True)
                raise
            os.close(self._features)
            self._features = copy
            sync_directory(self._path)

    def close(self) -> None:
        """Return once all that was written is on the disk."""
        try:
            os.fsync(self._features)
            os.fsync(self._records)
        finally:
            os.close(self._features)
            os.close(self._records)

    def _copy_to(self, copy: int, progress: Progress) -> None:
        os.truncate(copy, os.fstat(self._features).st_size)
        _write(copy, os.pread(self._features, self._start, 0), 0)
        rows = np.flatnonzero(self.records["state"] == READY)
        for row in progress(rows.tolist(), total=len(rows), label="copying features"):
            _write(copy, self._read(row), self._start + row * self.row_bytes)
        os.fsync(copy)

    def _read(self, row: int) -> bytes:
        return os.pread(self._features, self.row_bytes, self._start + row * self.row_bytes)

    def _note(self, row: int, record: np.ndarray) -> None:
        _write(self._records, record.tobytes(), row * RECORD.itemsize)
        self.records[row] = record


@contextmanager
def filling(path: Path, records: np.ndarray) -> Iterator[RowWriter]:
    """Open a store for writing, with a mark on it until all that was written is on the disk. Its lock is held.

    A mark that was there stays until the store has been checked, whatever ends this. One of damage that is made
    meanwhile is for who comes next.
    """
    mark = path / FILLING
    with said_of(path):
        is_in_doubt = is_doubtful(path)
        mark.touch()
        sync_directory(path)
        (path / DAMAGED).unlink(missing_ok=True)
        (path / _COPY).unlink(missing_ok=True)  # of a process that was killed
        writer = RowWriter(path, records, is_checked=not is_in_doubt)
    try:
        yield writer
    finally:
        with said_of(path):
            writer.close()
            if writer.is_checked:
                mark.unlink()
                sync_directory(path)


def hold_to_records(
    features: Rows, records: np.ndarray, rows: Int[np.ndarray, " row"], progress: Progress
) -> Bool[np.ndarray, " row"]:
    """Return which of these rows, all of which have a record, can be read and are what it says."""

    def is_true(row: int) -> bool:
        record = records[row]
        try:
            return is_whole(record, None if record["state"] == UNREADABLE else features[row])
        except UnreadableRowsError:
            return False

    with threads(_CHECKING_THREADS) as pool:
        truth = pool.map(is_true, rows.tolist())
        return np.array(list(progress(truth, total=len(rows), label="checking features")), np.bool_)


def _write(file: int, content: bytes | memoryview, place: int) -> None:
    left = memoryview(content)
    while left:  # on a disk that is nearly full a part is written first, and the next call says why
        written = os.pwrite(file, left, place)
        left, place = left[written:], place + written


def _cut(reason: str) -> bytes:
    """Return as much of a reason as a record holds."""
    return reason.encode()[:REASON_BYTES].decode(errors="ignore").encode()
