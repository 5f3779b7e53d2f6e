"""Rows of a large .npy file, read a few at a time and never all held."""

import io
import math
import os
import weakref
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from harness.common.text import first_line

_HEADER_BYTES = 1 << 16
"""More than NumPy takes for a header."""


class UnreadableRowsError(OSError):
    """Rows that were there cannot be read, or are not what was written; it may help to open them again."""


class Rows(Protocol):
    """What features are to those who read them: an array in memory, or the rows of a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the number of rows, and a row's shape."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of an element."""
        ...

    def __getitem__(self, rows: Any, /) -> Any:
        """Return one row for an integer, and an array of rows for several."""
        ...


class StoredRows:
    """The rows of an .npy file, copied out of it as they are asked for: `rows[3]`, `rows[[3, 1]]`, `rows[2:4]`.

    Read by `preadv` and not through a memory map, after telling the system of all rows that are wanted. Measured with
    batches of 8 rows of 256 KB in random order on 2 cores: 25,000 to 50,000 rows/s from the page cache, and from disk
    2,400 to 2,900 (1,400 to 2,100 without telling). A map from which what was read is dropped by `madvise` gave 46,000
    and 2,900 to 3,900. Without that it is up to twice as fast from the page cache, but what is read through a map
    counts as this process's memory, in the end all 5.2 GB of a large store; and where the file was cut short a map
    ends the process by SIGBUS, while this raises an error.

    Any number of threads may read. Pickled by its path: who unpickles it opens the file there.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an .npy file of numbers in rows, or shorter than its header says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shape, self.dtype, self._offset = layout(path)
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        self._check_length()

    def __reduce__(self) -> tuple[type["StoredRows"], tuple[Path]]:
        return type(self), (self.path,)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        """Return copies of the rows that an index of an array's first axis selects.

        Raises:
            IndexError: there is no such row.
            UnreadableRowsError: the file cannot be read, or has become shorter.
        """
        chosen = np.arange(len(self))[rows]
        copies = np.empty((*chosen.shape, *self.shape[1:]), self.dtype)
        starts = [self._offset + int(row) * self._row_bytes for row in chosen.flat]
        for start in starts:
            os.posix_fadvise(self._file, start, self._row_bytes, os.POSIX_FADV_WILLNEED)
        flat = copies.reshape(-1).view(np.uint8).data
        for place, start in enumerate(starts):
            self._fill(flat[place * self._row_bytes : (place + 1) * self._row_bytes], start)
        return copies

    def _fill(self, target: memoryview, start: int) -> None:
        done = 0
        while done < len(target):
            try:
                count = os.preadv(self._file, [target[done:]], start + done)
            except OSError as error:
                raise UnreadableRowsError(f"{self.path}: cannot be read ({error.strerror})") from error
            if count == 0:
                raise UnreadableRowsError(
                    f"{self.path}: ends before byte {start + len(target)}; it was cut while it was in use"
                )
            done += count

    def _check_length(self) -> None:
        expected, found = self._offset + self.shape[0] * self._row_bytes, os.fstat(self._file).st_size
        if found < expected:
            raise ValueError(f"{self.path}: {found} bytes long; its header says {self.shape}, which takes {expected}")


def layout(path: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return the shape and the type that the header of an .npy file gives, and where the rows begin.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an .npy file of numbers in rows.
    """
    with path.open("rb") as file:
        head = io.BytesIO(file.read(_HEADER_BYTES))  # a damaged header may say that it is gigabytes long
    try:
        version = np.lib.format.read_magic(head)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(head)
    except Exception as error:  # NumPy reads it as Python: of what is damaged, a MemoryError or a SyntaxError may come
        raise ValueError(f"{path}: not an .npy file ({first_line(error)})") from error
    if not shape or min(shape) < 0 or is_fortran or dtype.kind not in "biufc":
        raise ValueError(f"{path}: {dtype} {shape}; must hold numbers in rows, the last axis lying closest")
    return shape, dtype, head.tell()
