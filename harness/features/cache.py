"""The feature cache: one array for each audio file's content, computed once and read by every trial of a machine.

    CACHE/features/log_mel-0123456789abcdef/    one recipe
        recipe.json    everything besides the audio that shaped the arrays
        SHA256.npy     the array of the audio file with this SHA-256, and a checksum after it
        SHA256.txt     the reason why that file has no array
    SHA256.silent  a mark: nothing is audible in that file's mono mix

Each file is written under a temporary name and then renamed. So any number of processes and machines may fill and read
one cache without a lock, and a killed process leaves nothing but a `.part` file. A changed clip has another SHA-256, so
it alone is computed again, and studies that are reading keep what they opened. Files are not synced: a reader detects
damage of a power cut or a bad disk by the checksum, and computes the array again.

Arrays of 1024 x 128 in float16, read in random batches of 8 by one reader, come at 0.87 to 1.03 of the speed of one
packed file from a cold page cache, and at 0.84 to 0.93 from a warm one. Blobs in SQLite (256 x 128) come at 0.55 and
0.32. `python -m harness.bench --only reading` measures it.
"""

import hashlib
import io
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from harness.common.files import PART, write_atomically
from harness.common.text import summarise

logger = logging.getLogger(__name__)

FORMAT = 6
"""Goes up when the layout of the files changes."""
ARRAY, REASON, SILENT = ".npy", ".txt", ".silent"
_RECIPE = "recipe.json"
_CHECKSUM_BYTES = 4
_AT_ONCE = 16
_STALE_SECONDS = 86_400
_N_WARNINGS = 5


class Rows(Protocol):
    """Rows of features: an array in memory, or arrays in files."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the number of rows, and a row's shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of an element."""

    def __getitem__(self, rows: Any, /) -> Any:
        """Return one row for an integer, and an array of rows for several."""


@dataclass(frozen=True)
class Recipe:
    """Everything besides the audio that shapes an array.

    `kind` names the computation, such as log_mel; `version` goes up when it gives other numbers. `settings` hold values
    for JSON: a front end's fields, or a backbone's digest and layer. `shape` and `dtype` are those of one array.
    """

    kind: str
    version: int
    settings: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: str = "<f2"

    @property
    def name(self) -> str:
        """Return the name of the recipe's folder."""
        content = json.dumps([FORMAT, asdict(self)], sort_keys=True)
        return f"{self.kind}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


class FeatureCache:
    """The arrays of one recipe, by the SHA-256 of the audio, in hex. Any number of threads may use it."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe, self.place = folder, recipe, folder / recipe.name
        self.dtype = np.dtype(recipe.dtype)
        self._header = _npy_header(recipe)
        self.array_bytes = int(np.prod(recipe.shape)) * self.dtype.itemsize
        self.file_bytes = len(self._header) + self.array_bytes + _CHECKSUM_BYTES

    def stored(self, suffix: str = ARRAY) -> set[str]:
        """Return the digests of the audio that has a file with this suffix."""
        return {file.stem for file in self.place.glob(f"*{suffix}")}

    def has(self, digest: str) -> bool:
        """Return whether there is an array, or a reason for having none."""
        return (self.place / f"{digest}{ARRAY}").exists() or bool(self.reason(digest))

    def prepare(self) -> None:
        """Make the folder, and clear what killed processes left there.

        Raises:
            OSError: the folder cannot be written.
        """
        with _explained(self.place):
            if not (self.place / _RECIPE).exists():
                _warn_of_old_caches(self.folder, self.recipe)
                self.place.mkdir(parents=True, exist_ok=True)
                content = json.dumps({"format": FORMAT, **asdict(self.recipe)}, indent=1)
                write_atomically(self.place / _RECIPE, content.encode())
            for part in self.place.glob(f"*{PART}"):
                with suppress(OSError):  # its writer may have just renamed it
                    if time.time() - part.stat().st_mtime > _STALE_SECONDS:
                        part.unlink()

    def write(self, digest: str, array: np.ndarray) -> None:
        """Store the array of the audio with this SHA-256.

        Raises:
            OSError: the folder cannot be written, such as because the disk is full.
        """
        assert array.shape == self.recipe.shape, array.shape
        assert array.dtype == self.dtype, array.dtype
        content = np.ascontiguousarray(array).data.cast("B")
        checksum = self._checksum(digest, content).to_bytes(_CHECKSUM_BYTES, "little")
        with _explained(self.place):
            write_atomically(self.place / f"{digest}{ARRAY}", self._header, content, checksum)

    def note(self, digest: str, suffix: str, text: str = "") -> None:
        """Store a text about the audio with this SHA-256: its REASON for having no array, or that it is SILENT.

        Raises:
            OSError: the folder cannot be written.
        """
        with _explained(self.place):
            write_atomically(self.place / f"{digest}{suffix}", f"{text}\n".encode())

    def reason(self, digest: str) -> str:
        """Return why the audio with this SHA-256 has no array; "" if that is unknown, or its file is not whole."""
        with suppress(OSError):
            text = (self.place / f"{digest}{REASON}").read_text(encoding="utf-8", errors="replace")
            return text[:-1] if text.endswith("\n") else ""
        return ""

    def read_into(self, arrays: np.ndarray, digests: Sequence[str], *, checks: Sequence[bool]) -> list[int]:
        """Fill `arrays[i]` with the array of `digests[i]`, and compare its checksum where `checks[i]` is True.

        All files are opened first, and the system is asked to read them together.

        Returns:
            The positions of arrays that are missing or damaged.
        """
        files: list[int] = []
        try:
            files.extend(map(self._open, digests))
            contents, size = arrays.data.cast("B"), self.array_bytes
            return [
                i
                for i, (file, digest, is_checked) in enumerate(zip(files, digests, checks, strict=True))
                if not self._read(file, contents[i * size : (i + 1) * size], digest, is_checked=is_checked)
            ]
        finally:
            for file in files:
                if file >= 0:
                    os.close(file)

    def _open(self, digest: str) -> int:
        try:
            file = os.open(f"{self.place}/{digest}{ARRAY}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return -1
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
        return file

    def _read(self, file: int, content: memoryview, digest: str, *, is_checked: bool) -> bool:
        """Return whether a file is whole, having read its array into `content`."""
        header, checksum, beyond = bytearray(len(self._header)), bytearray(_CHECKSUM_BYTES), bytearray(1)
        try:
            count = os.preadv(file, [header, content, checksum, beyond], 0)
        except OSError:
            return False
        if count != self.file_bytes or header != self._header:
            return False
        return not is_checked or self._checksum(digest, content) == int.from_bytes(checksum, "little")

    def _checksum(self, digest: str, content: memoryview) -> int:
        """Return the CRC-32 of an array; it covers the file's name, so that a misplaced file is damaged."""
        return zlib.crc32(content, zlib.crc32(f"{self.place.name}/{digest}".encode()))


class CachedRows:
    """Rows of features in a cache: row i is the array of the audio with the SHA-256 `digests[i]`.

    Rows are copied out of their files as they are requested, so memory stays bounded. The first read of a row in this
    process compares its checksum. A row that is missing or damaged is computed again by `restore(i)`.
    """

    def __init__(self, cache: FeatureCache, digests: Sequence[str], restore: Callable[[int], np.ndarray]) -> None:
        self._cache, self._digests, self._restore = cache, digests, restore
        self.shape, self.dtype = (len(digests), *cache.recipe.shape), cache.dtype
        self._is_checked = np.zeros(len(digests), np.bool_)
        self._n_warnings = 0

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        """Return copies of the rows that an index of an array's first axis selects.

        Raises:
            IndexError: there is no such row.
            ValueError: a row has no array, since nobody requested it or its audio cannot be read.
            OSError: a row is missing or damaged, and its audio is not there to compute it again.
        """
        chosen = np.arange(self.shape[0])[rows]
        copies = np.empty((*chosen.shape, *self.shape[1:]), self.dtype)
        flat, wanted = copies.reshape(-1, *self.shape[1:]), chosen.reshape(-1)
        for first in range(0, len(wanted), _AT_ONCE):
            self._read(flat[first : first + _AT_ONCE], wanted[first : first + _AT_ONCE])
        return copies

    def _read(self, copies: np.ndarray, rows: np.ndarray) -> None:
        digests = [self._digests[row] for row in rows]
        if not all(digests):
            raise ValueError(f"row {rows[digests.index('')]}: it has no features in {self._cache.place}")
        failed = self._cache.read_into(copies, digests, checks=(~self._is_checked[rows]).tolist())
        for position in failed:
            row = int(rows[position])
            self._n_warnings += 1
            if self._n_warnings <= _N_WARNINGS:
                file = self._cache.place / f"{digests[position]}{ARRAY}"
                logger.warning("%s: missing or damaged, so these features are computed again", file)
            copies[position] = self._restore(row)
        self._is_checked[np.delete(rows, failed) if failed else rows] = True
        self._is_checked[rows[failed]] = False


def _npy_header(recipe: Recipe) -> bytes:
    stream = io.BytesIO()
    content = {"descr": recipe.dtype, "fortran_order": False, "shape": recipe.shape}
    np.lib.format.write_array_header_1_0(stream, content)
    return stream.getvalue()


@contextmanager
def _explained(place: Path) -> Iterator[None]:
    """Add to an error that the cache cannot be written, and the remedies."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{place}: features cannot be written there ({error.strerror or error}); free some space, allow writing, "
            "or name another folder in the environment variable REPROGRAMMING_CACHE"
        ) from error


def _warn_of_old_caches(folder: Path, recipe: Recipe) -> None:
    """Name the caches in this folder that no version from this one on can use; the program that made one may run."""
    with suppress(OSError):  # someone may be removing one at this moment
        if old := [place.name for place in sorted(folder.iterdir()) if _is_old(place, recipe)]:
            logger.warning(
                "%s: features of an earlier version, which may be removed: %s", folder, summarise(old, limit=3)
            )


def _is_old(place: Path, recipe: Recipe) -> bool:
    try:
        content = json.loads((place / _RECIPE).read_text(encoding="utf-8"))
        is_older = content["kind"] == recipe.kind and content["version"] < recipe.version
        return bool(content["format"] < FORMAT or is_older)
    except (OSError, ValueError, KeyError, TypeError):  # formats 1 to 5 have an index
        return (place / "index.json").exists()
