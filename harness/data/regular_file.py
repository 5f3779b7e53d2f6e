"""Files that can be read to their end. To open a FIFO is to wait for whoever writes to it; a device may never end."""

import stat
from pathlib import Path


def regular_size(path: Path) -> int:
    """Return the bytes of a regular file.

    Raises:
        OSError: it is something else, or is not there.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path}: not a regular file but {_kind(status.st_mode)}")
    return status.st_size


def why_unopened(path: Path, error: OSError) -> str:
    """Say what kept a file from being opened, without its name."""
    return error.strerror or str(error).removeprefix(f"{path}: ")


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"
