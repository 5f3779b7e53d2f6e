"""The files of a feature store, and how they stay true whatever ends the process that fills them.

    features.npy   float16, (clip, frame, mel): one row per key, at its full size from the start, holes where nothing is
    rows.bin       one record per row: missing, ready or unreadable, and why; checksum; what is known of the audio file
    index.json     what the store is of, see `harness/data/store_index.py`
    left_out.csv   the clips that cannot be read, and why; there is none if all can, see `harness/data/left_out.py`
    filling        there while a process fills the store, and left behind if it was killed
    damaged        there once who read the store has met a row that is not what its record says, or cannot be read

A row's record is written after the row, so a process that is killed leaves no record without its row. A machine that
loses its power may write them in any other order. So `filling` is taken away once all is on the disk, and where it is
still found, or `damaged` is, each row is held to its checksum before it is believed.

A row that is ready is never written over in the file that it is in, since a study may be reading it: first a copy takes
the file's place.
"""

import fcntl
import logging
import os
import platform
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import numpy as np

from harness.data.rows import Rows, StoredRows
from harness.data.store_index import Index, write_index

logger = logging.getLogger(__name__)

FEATURES, RECORDS, FILLING, DAMAGED = "features.npy", "rows.bin", "filling", "damaged"
MISSING, READY, UNREADABLE = 0, 1, 2
_LOOK_SECONDS = 0.002
"""More than it takes to look whether a store is locked."""
REASON_BYTES = 192
RECORD = np.dtype(
    {
        "names": ["state", "crc", "audio", "stamp", "reason"],
        "formats": ["u1", "<u4", ("u1", 32), ("<i8", 3), f"S{REASON_BYTES}"],
        "offsets": [0, 4, 8, 40, 64],
        "itemsize": 256,  # a divisor of a disk's sector and of a page: a record is written as a whole
    }
)
"""`crc` is the CRC-32 of the row's bytes, or of the reason's if the clip cannot be read. Of the audio file, `audio` is
the SHA-256, and `stamp` what it was known by when it was last read, see `harness/data/wanted.py`."""


def read_records(path: Path, index: Index) -> np.ndarray:
    """Return every row's record; one that says nothing possible is damaged, and the row missing.

    Raises:
        FileNotFoundError: there are none.
        ValueError: there are too few or too many.
    """
    records = np.fromfile(path / RECORDS, dtype=RECORD)
    expected = len(index.keys) * RECORD.itemsize
    if (found := (path / RECORDS).stat().st_size) != expected:
        raise ValueError(f"{path / RECORDS}: damaged ({found} bytes instead of {expected})")
    records[~np.isin(records["state"], [MISSING, READY, UNREADABLE])] = np.zeros((), RECORD)
    return records


def open_features(path: Path, index: Index) -> Rows:
    """Return the features of every row.

    Raises:
        FileNotFoundError: there are none.
        ValueError: they are damaged, or of another shape or type than the index says.
    """
    features = StoredRows(path / FEATURES)
    if features.dtype != np.float16 or features.shape != index.shape:
        raise ValueError(
            f"{path / FEATURES}: holds {features.dtype} {features.shape}; its index says float16 {index.shape}"
        )
    return features


def is_doubtful(path: Path) -> bool:
    """Return whether no row of a store is to be believed before it has been held to its checksum."""
    return (path / FILLING).exists() or (path / DAMAGED).exists()


def is_whole(record: np.ndarray, log_mel: np.ndarray | None) -> bool:
    """Return whether a row is what its record was made of: its log-mel, or None if the clip could not be read."""
    content = bytes(record["reason"]) if log_mel is None else log_mel.tobytes()
    return bool(zlib.crc32(content) == record["crc"])


def create(path: Path, index: Index) -> None:
    """Make a store without a row in place of whatever bears its name; its lock is held.

    It is built under another name, so what bears the name is never half a store.
    """
    with said_of(path):
        _create(path, index)


def _create(path: Path, index: Index) -> None:
    host = platform.node()  # some shared file systems keep no locks between hosts
    for leftover in [path, *path.parent.glob(f"{path.name}.{host}.*.partial")]:
        shutil.rmtree(leftover, ignore_errors=True)  # damaged, or of a process that was killed
    partial = path.with_name(f"{path.name}.{host}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        _write_files(partial, index)
        try:
            partial.rename(path)
        except OSError:
            if not path.is_dir():  # else another host was first, and its store is as good
                raise
        sync_directory(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_files(path: Path, index: Index) -> None:
    np.lib.format.open_memmap(path / FEATURES, mode="w+", dtype=np.float16, shape=index.shape)
    with (path / RECORDS).open("wb") as file:
        file.write(bytes(RECORD.itemsize * len(index.keys)))  # no hole, so that a full disk refuses no record
        os.fsync(file.fileno())
    write_index(path, index)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a store's lock among processes; the system releases it when its holder dies."""
    with said_of(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _lock_of(path).open("w+")  # over NFS, a shared lock is for who may read
    with file:
        while not _is_granted(file, fcntl.LOCK_EX):
            if _is_granted(file, fcntl.LOCK_SH):  # none fills the store, some look whether one does: see `is_locked`
                fcntl.flock(file, fcntl.LOCK_UN)
                time.sleep(_LOOK_SECONDS)
                continue
            logger.warning("%s: another process prepares these features; waiting for it", path)
            fcntl.flock(file, fcntl.LOCK_EX)
            break
        yield


def is_locked(path: Path) -> bool:
    """Return whether a process holds a store's lock, as far as can be told."""
    try:
        with _lock_of(path).open() as file:
            return not _is_granted(file, fcntl.LOCK_SH)
    except OSError:  # for one because there is none yet
        return False


def _is_granted(file: TextIO, kind: int) -> bool:
    """Return whether a lock of this kind is had at once."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_read_only(path: Path) -> bool:
    """Return whether there is a store that this process may not write."""
    return path.is_dir() and not os.access(path / RECORDS, os.W_OK)


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


@contextmanager
def said_of(path: Path) -> Iterator[None]:
    """Say of an error that it befell the cache, and what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path}: features cannot be written there ({error.strerror or error}); make room or allow it, or name "
            "another place in the environment variable REPROGRAMMING_CACHE"
        ) from error


def sync_directory(path: Path) -> None:
    """Return once what a directory holds is on the disk, by name."""
    with suppress(OSError):  # some file systems cannot
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
