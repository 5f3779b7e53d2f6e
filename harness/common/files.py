"""The cache directory, the digest of a file, and files that are written atomically."""

import hashlib
import os
import uuid
from contextlib import suppress
from pathlib import Path

import platformdirs

PART = ".part"
"""The suffix of a file that is being written."""


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


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, as hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_whole(file: Path, text: str) -> None:
    """Write a file atomically: after a kill at any moment it holds the old text or the new one."""
    temporary = unfinished(file)
    temporary.write_text(text)
    temporary.replace(file)


def unfinished(file: Path) -> Path:
    """Return the temporary file of `write_whole`, which a killed process leaves behind."""
    return file.with_name(f"{file.name}{PART}")


def write_atomically(file: Path, *contents: bytes | memoryview) -> None:
    """Write a file whole or not at all, also under kills and when other processes write the same file.

    Raises:
        OSError: it cannot be written.
    """
    part = file.with_name(f"{file.name}.{uuid.uuid4().hex}{PART}")
    try:
        with part.open("xb") as stream:
            for content in contents:
                stream.write(content)
        part.replace(file)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
