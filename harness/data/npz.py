"""Read arrays from .npz files of unknown origin, without running code that a pickle may hold.

OpenMIC-2018 stores its sample keys as an object array, which NumPy reads only by unpickling. This module unpickles
such a member with inert substitutes for NumPy's constructors: it imports and calls nothing that the file names, and
returns only strings.
"""

import pickle
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

_DAMAGED = (ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError, pickle.UnpicklingError)
"""The errors for a damaged zip file or array; RuntimeError is for a member flagged as encrypted."""


def member_names(path: Path) -> set[str]:
    """Return the names of the arrays in an .npz file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a zip archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: not an .npz file ({error})") from error


def read_array(path: Path, name: str) -> np.ndarray:
    """Return one array of numbers, booleans or fixed-width strings from an .npz file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not an .npz file, no such array in it, a damaged one, or an array of Python objects.
    """
    _check_member(path, name)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            array: np.ndarray = arrays[name]
    except _DAMAGED as error:
        raise ValueError(f"{path}: array {name!r} is not readable ({error})") from error
    return array


def read_strings(path: Path, name: str) -> tuple[str, ...]:
    """Return an array of strings from an .npz file, whether it is of fixed width or pickled objects.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not an .npz file, no such array in it, a damaged one, or one with anything but strings.
    """
    _check_member(path, name)
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
            is_pickled = _skip_header(stream).hasobject
            values = _unpickle_strings(stream) if is_pickled else read_array(path, name).tolist()
    except _DAMAGED as error:
        raise ValueError(f"{path}: array {name!r} is not readable ({error})") from error
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{path}: array {name!r} must be a row of strings and holds something else")
    return tuple(values)


def _check_member(path: Path, name: str) -> None:
    names = member_names(path)
    if name not in names:
        raise ValueError(f"{path}: no array {name!r} in it; it has {', '.join(sorted(names)) or 'none'}")


def _skip_header(stream: IO[bytes]) -> np.dtype[Any]:
    """Read an array's header and return its type."""
    is_first_version = np.lib.format.read_magic(stream) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if is_first_version else np.lib.format.read_array_header_2_0
    return read(stream)[2]


class _Dtype:
    """Stands in for `numpy.dtype` and remembers its code, such as 'O8' or 'U11'."""

    def __init__(self, code: object = "", *_flags: object) -> None:
        self.code = str(code)
        self.byte_order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = str(state[1])


class _Array:
    """Stands in for `numpy.ndarray` and remembers the list of its elements."""

    elements: object = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.elements = state[-1]


def _reconstruct(*_arguments: object) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, raw: bytes) -> str:
    if not dtype.code.startswith("U"):
        raise pickle.UnpicklingError(f"it holds a NumPy scalar of type {dtype.code!r}, not a string")
    return raw.decode("utf-32-be" if dtype.byte_order == ">" else "utf-32-le").rstrip("\0")


def _encode(text: str, encoding: str) -> bytes:
    """Stand in for `_codecs.encode`, which pickles of protocol 2 call to write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], object] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _encode,
}


class _StringUnpickler(pickle.Unpickler):
    """Unpickles object arrays of strings, and refuses to import any name outside `_ALLOWED`."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"its pickle calls for {module_name}.{global_name}, which is not part of an array of strings"
            ) from None


def _unpickle_strings(stream: IO[bytes]) -> object:
    try:
        array = _StringUnpickler(stream).load()
    except (AttributeError, IndexError, KeyError, TypeError, OverflowError) as error:  # a malformed pickle
        raise pickle.UnpicklingError(f"malformed pickle: {error}") from error
    return array.elements if isinstance(array, _Array) else None
