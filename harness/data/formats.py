"""The registry of data set formats: a directory is read by the first format that recognises it.

A package adds one by an entry point of the group `reprogramming_harness.data_formats` that names a `Format`. A reader
parses its files and ends with `make_dataset`, which checks the rules for every format; README.md shows one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path

from harness.common.registry import Registry
from harness.data import openmic
from harness.data.dataset import ClipDataset, Problems


@dataclass(frozen=True)
class Format:
    """A layout of a data set on disk.

    `recognised_by` names the files that `recognises` looks for, for messages. `read` reports each broken rule to its
    `Problems` or raises ValueError or OSError.
    """

    recognised_by: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Problems], ClipDataset]


FORMATS: Registry[Format] = Registry(
    "data_formats", {"openmic": Format(openmic.CLASS_MAP, openmic.is_openmic, openmic.read_dataset)}
)


def find_format(root: Path) -> str:
    """Return the name of the first format that recognises a directory.

    Raises:
        FileNotFoundError: there is no such directory, or no format recognises it; the message may name a folder in it.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: " + ("is not a directory" if lexists(root) else "no such directory"))
    if (name := _recognised(root)) is not None:
        return name
    inner = next((folder for folder in sorted(root.iterdir()) if folder.is_dir() and _recognised(folder)), None)
    hint = f"; did you mean {inner}?" if inner else ""
    known = ", ".join(f"{name} (by {format_.recognised_by})" for name, format_ in FORMATS.items())
    raise FileNotFoundError(f"{root}: not a data set in a known format, {known}{hint}")


def read_dataset(root: Path) -> ClipDataset:
    """Read a data set for a study, in the format that recognises its directory.

    Raises:
        OSError: no format recognises it, or a file is missing or cannot be opened.
        ValueError: it breaks a rule of its format or of every format.
    """
    return FORMATS[find_format(root)].read(root.resolve(), Problems(raises=True))


def _recognised(root: Path) -> str | None:
    return next((name for name, format_ in FORMATS.items() if format_.recognises(root)), None)
