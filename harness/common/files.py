"""The cache directory, and files that are written atomically."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import platformdirs

_T = TypeVar("_T")


def cache_dir() -> Path:
    """Return the absolute cache root: $REPROGRAMMING_CACHE, else the user's cache directory."""
    override = os.environ.get("REPROGRAMMING_CACHE")
    return Path(override).absolute() if override else platformdirs.user_cache_path("reprogramming-harness")


def make_directory(place: Path) -> None:
    """Make a directory and its parents.

    Raises:
        NotADirectoryError: one of them is a file.
        OSError: one cannot be made.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(f"{place}: it or one of its parents is a file; give a directory") from error


def write_whole(file: Path, text: str) -> None:
    """Write a file atomically: after a kill at any moment it holds the old text or the new one."""
    temporary = unfinished(file)
    temporary.write_text(text)
    temporary.replace(file)


def unfinished(file: Path) -> Path:
    """Return the temporary file of `write_whole`, which a killed process leaves behind."""
    return file.with_name(f"{file.name}.part")


def read_with(read: Callable[[str], _T], file: Path) -> _T:
    """Parse the text of a file that this program wrote.

    Raises:
        ValueError: `read` cannot parse it: the file was cut short or belongs to another version.
    """
    try:
        return read(file.read_text())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        wrong = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{file}: cut short, or written by another version of this program ({wrong}); restore a whole copy, use "
            f"that version, or move {file.parent} away"
        ) from error
