"""The files of a feature store, and how they stay true whatever ends the process that fills them.

    features.npy   float16, (clip, frame, mel): one row per key, at its full size from the start, holes where nothing is
    rows.bin       one record per row: missing, ready or unreadable; checksum; SHA-256 of the audio file; the reason
    index.json     what shaped the store, and its keys
    filling        there while a process fills the store, and left behind if it was killed

A row's record is written after the row, so a process that is killed leaves no record without its row. A machine that
loses its power may write them in any other order. So `filling` is taken away once all is on the disk, and where it is
still found, each row is held to its checksum before it is believed.
"""

import fcntl
import json
import logging
import os
import platform
import shutil
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.extraction import Heard
from harness.data.frontend import FRONT_END_VERSION, FrontEnd
from harness.data.progress import Progress

logger = logging.getLogger(__name__)

STORE_FORMAT = 3
FEATURES, RECORDS, INDEX, FILLING = "features.npy", "rows.bin", "index.json", "filling"
MISSING, READY, UNREADABLE = 0, 1, 2
_REASON_BYTES = 208
RECORD = np.dtype(
    {
        "names": ["state", "crc", "audio", "reason"],
        "formats": ["u1", "<u4", ("u1", 32), f"S{_REASON_BYTES}"],
        "offsets": [0, 4, 8, 48],
        "itemsize": 256,  # a divisor of a disk's sector and of a page: a record is written as a whole
    }
)
"""`crc` is the CRC-32 of the row's bytes, or of the reason's if the clip cannot be read."""
_CHECKING_THREADS = 4


@dataclass(frozen=True)
class Index:
    """What shaped a store. Row i belongs to `keys[i]`; `inputs_digest` is the store's name."""

    inputs_digest: str
    front_end: FrontEnd
    keys: tuple[str, ...]


def read_index(path: Path) -> Index:
    """Return what the store's index says.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or of another format.
    """
    file = path / INDEX
    try:
        index: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if (stamp := index["format"]) != STORE_FORMAT:
            raise ValueError(f"it has format {stamp!r}, this is format {STORE_FORMAT}")
        return Index(index["inputs_digest"], FrontEnd(**index["front_end"]), tuple(index["keys"]))
    except KeyError as error:
        raise ValueError(f"{file}: damaged (lacks {error})") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: damaged ({error})") from error


def read_records(path: Path, index: Index) -> np.ndarray:
    """Return every row's record.

    Raises:
        FileNotFoundError: there are none.
        ValueError: there are too few or too many.
    """
    records = np.fromfile(path / RECORDS, dtype=RECORD)
    expected = len(index.keys) * RECORD.itemsize
    if (found := (path / RECORDS).stat().st_size) != expected:
        raise ValueError(f"{path / RECORDS}: damaged ({found} bytes instead of {expected})")
    return records


def create(path: Path, index: Index) -> None:
    """Make a store without a row in place of whatever bears its name; its lock is held.

    It is built under another name, so what bears the name is never half a store.
    """
    with _said_of(path):
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
        _sync_directory(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_files(path: Path, index: Index) -> None:
    front_end = index.front_end
    shape = (len(index.keys), front_end.n_frames, front_end.n_mels)
    np.lib.format.open_memmap(path / FEATURES, mode="w+", dtype=np.float16, shape=shape)
    with (path / RECORDS).open("wb") as file:
        file.write(bytes(RECORD.itemsize * len(index.keys)))  # no hole, so that a full disk refuses no record
        os.fsync(file.fileno())
    content = {
        "format": STORE_FORMAT,
        "inputs_digest": index.inputs_digest,
        "front_end_version": FRONT_END_VERSION,
        "front_end": asdict(front_end),
        "keys": index.keys,
    }
    with (path / INDEX).open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


class RowWriter:
    """Writes the rows of one store; `filling` holds it open."""

    def __init__(self, path: Path, features: int, records: int) -> None:
        array = np.load(path / FEATURES, mmap_mode="r")
        self._start, self._row_bytes = array.offset, array[0].nbytes
        self._path, self._features, self._records = path, features, records

    def put(self, row: int, heard: Heard) -> None:
        """Write one row, and then that it is there.

        Raises:
            OSError: it cannot be written, for one because the disk is full.
        """
        with _said_of(self._path):
            self._put(row, heard)

    def _put(self, row: int, heard: Heard) -> None:
        record = np.zeros((), RECORD)
        record["audio"] = np.frombuffer(heard.audio, np.uint8)
        if heard.log_mel is not None:
            content: bytes | memoryview = np.ascontiguousarray(heard.log_mel).data.cast("B")
            # not through a memory map: there a full disk is a SIGBUS, here an OSError
            _write(self._features, content, self._start + row * self._row_bytes)
            record["state"] = READY
        else:
            content = _cut(heard.reason)
            record["state"], record["reason"] = UNREADABLE, content
        record["crc"] = zlib.crc32(content)
        _write(self._records, record.tobytes(), row * RECORD.itemsize)

    def forget(self, row: int) -> None:
        """Write that a row is missing."""
        _write(self._records, bytes(RECORD.itemsize), row * RECORD.itemsize)

    def is_true(self, row: int, record: np.ndarray) -> bool:
        """Return whether a row that has a record is what its record says."""
        if record["state"] == UNREADABLE:
            return zlib.crc32(bytes(record["reason"])) == record["crc"]
        content = os.pread(self._features, self._row_bytes, self._start + row * self._row_bytes)
        return bool(record["state"] == READY and zlib.crc32(content) == record["crc"])

    def sync(self) -> None:
        """Return once all that was written is on the disk."""
        with _said_of(self._path):
            os.fsync(self._features)
            os.fsync(self._records)


@contextmanager
def filling(path: Path) -> Iterator[RowWriter]:
    """Open a store for writing, with a mark on it until all that was written is on the disk. Its lock is held."""
    mark = path / FILLING
    with _said_of(path):
        mark.touch()
        _sync_directory(path)
        features, records = (path / FEATURES).open("r+b"), (path / RECORDS).open("r+b")
    with features, records:
        writer = RowWriter(path, features.fileno(), records.fileno())
        try:
            yield writer
        finally:
            with _said_of(path):
                writer.sync()
                mark.unlink()
                _sync_directory(path)


def check_rows(writer: RowWriter, records: np.ndarray, progress: Progress) -> np.ndarray:
    """Hold all rows that have a record to it; return the records, those that are not true being missing."""
    rows = np.flatnonzero(records["state"] != MISSING)
    with ThreadPoolExecutor(_CHECKING_THREADS) as pool:
        truth = pool.map(writer.is_true, rows.tolist(), records[rows])
        are_true = list(progress(truth, total=len(rows), label="checking features"))
    untrue = rows[~np.array(are_true, np.bool_)]
    for row in untrue:
        writer.forget(int(row))
    records = records.copy()
    records[untrue] = np.zeros((), RECORD)
    return records


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock among processes; the system releases it when its holder dies."""
    with _said_of(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("%s: another process prepares these features; waiting for it", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(file: int, content: bytes | memoryview, place: int) -> None:
    left = memoryview(content)
    while left:  # on a disk that is nearly full a part is written first, and the next call says why
        written = os.pwrite(file, left, place)
        left, place = left[written:], place + written


def _cut(reason: str) -> bytes:
    """Return as much of a reason as a record holds."""
    return reason.encode()[:_REASON_BYTES].decode(errors="ignore").encode()


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    """Say of an error that it befell the cache, and what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path}: features cannot be written there ({error.strerror or error}); make room or allow it, or name "
            "another place in the environment variable REPROGRAMMING_CACHE"
        ) from error


def _sync_directory(path: Path) -> None:
    with suppress(OSError):  # some file systems cannot
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
