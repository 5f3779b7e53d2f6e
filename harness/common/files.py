"""Where this machine keeps what can be computed again, and files that are written whole or not at all."""

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
    """Make a directory, and those above it, unless they are there.

    Raises:
        NotADirectoryError: a file is in the place of one of them.
        OSError: one cannot be made.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(f"{place}: it, or what is above it, is a file; give a directory") from error


def write_whole(file: Path, text: str) -> None:
    """Write a file so that, whenever this process is killed, it holds the old text or the new one."""
    temporary = unfinished(file)
    temporary.write_text(text)
    temporary.replace(file)


def unfinished(file: Path) -> Path:
    """Return where `write_whole` writes before the file is whole; a process that is killed leaves this behind."""
    return file.with_name(f"{file.name}.part")


def read_with(read: Callable[[str], _T], file: Path) -> _T:
    """Return what `read` makes of the text of a file that this program wrote.

    Raises:
        ValueError: it can make nothing of it: the file was cut short or is of another version.
    """
    try:
        return read(file.read_text())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        wrong = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{file}: was cut short, or another version of this program wrote it ({wrong}); put a whole copy in its "
            f"place, use that version, or move {file.parent} away"
        ) from error
