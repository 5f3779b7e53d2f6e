"""Unpacking an archive that someone else made: looked through first, unpacked beside its place, renamed when whole.

    check_members    reads all of it and writes nothing
    unpack           TO/.unpacking/ROOT becomes TO/ROOT, with a marker in it, once every file is on the disk

A directory that bears the marker is whole, however its process ended.
"""

import gzip
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from harness.data.byte_progress import ByteProgress, ByteReport, quiet_bytes

MARKER = ".fetched.json"
BLOCK_BYTES = 4096
"""A file takes whole blocks; folders and small files make a full data set some 3 % larger than the sum of its files."""


@dataclass(frozen=True)
class Contents:
    """What an archive holds below its root: files, and the bytes that they take on a disk; and what else is in it."""

    n_files: int
    disk_bytes: int
    n_outside: int


def check_members(path: Path, *, root: str, progress: ByteProgress = quiet_bytes) -> Contents:
    """Read the archive from end to end, and refuse it if any member could touch what is outside its own place.

    Members beside `root` are counted and will not be unpacked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no whole .tgz; a member's path leads out of the folder; one is neither a file nor a folder;
            one is there twice; or no file is below `root`.
    """
    disk_bytes = n_outside = 0
    files = set[PurePosixPath]()
    with _opened(path, progress) as (archive, members):
        for member in members:
            _check_member(member, path)
            if not _is_below(member, root):
                n_outside += not member.isdir()
                continue
            if (name := PurePosixPath(member.name)) in files:
                raise ValueError(f"{path}: member {member.name!r} is in it twice, and which of them counts is not said")
            if member.isfile():
                files.add(name)
            disk_bytes += -(-member.size // BLOCK_BYTES) * BLOCK_BYTES + BLOCK_BYTES * member.isdir()
        _check_end(archive, path)
    if not files:
        raise ValueError(f"{path}: holds no file below {root}/, so it is not an archive of this data set")
    return Contents(len(files), disk_bytes, n_outside)


def unpack(
    path: Path,
    to: Path,
    *,
    root: str,
    marker: dict[str, object],
    scratch: Path,
    progress: ByteProgress = quiet_bytes,
) -> Path:
    """Unpack an archive that `check_members` let pass into `to / root`, by way of the folder `scratch`.

    Whatever `scratch` held is removed, and so is what was unpacked if it does not come to its end.

    Raises:
        OSError: the disk is full, or `to` cannot be written.
        ValueError: as `check_members`.
    """
    shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
    scratch.mkdir(parents=True)
    try:
        with _opened(path, progress) as (archive, members):
            for member in members:
                _check_member(member, path)
                if _is_below(member, root):
                    archive.extract(member, scratch, filter="data")
        (scratch / root / MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
        os.sync()  # what is about to get its name must be there after a power cut as well
        return (scratch / root).rename(to / root)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"{error.filename or scratch}: {reason}; what was unpacked of {path} is removed again") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_marker(folder: Path) -> dict[str, object] | None:
    """Return what `unpack` left in a folder, None if it has not been there."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) else None


def _check_member(member: tarfile.TarInfo, path: Path) -> None:
    """Refuse what tarfile's own filter might let pass: links inside the folder, by which its releases were tricked."""
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(f"{path}: member {member.name!r} leads out of the folder; nothing of it is unpacked")
    if not member.isfile() and not member.isdir():
        kind = f"a link to {member.linkname!r}" if member.issym() or member.islnk() else "a device or the like"
        raise ValueError(f"{path}: member {member.name!r} is {kind}; only files and folders belong in this archive")


def _is_below(member: tarfile.TarInfo, root: str) -> bool:
    return PurePosixPath(member.name).parts[:1] == (root,)


def _check_end(archive: tarfile.TarFile, path: Path) -> None:
    """Check that the list of members came to its end, which tarfile takes damage for, and the checksum of gzip."""
    stream = archive.fileobj
    assert stream is not None
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise ValueError(f"{path}: ends too early or is damaged after {archive.getnames()[-1:]}")
    while stream.read(1 << 20):
        pass


@contextmanager
def _opened(path: Path, progress: ByteProgress) -> Iterator[tuple[tarfile.TarFile, Iterator[tarfile.TarInfo]]]:
    """Give the open archive and its members; what cannot be read of it is a ValueError that names it."""
    try:
        with (
            path.open("rb") as file,
            progress(path.name) as report,
            tarfile.open(fileobj=file, mode="r:gz") as archive,
        ):
            yield archive, _reported(archive, file, report)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: not a whole .tgz file ({error}); fetch it again") from error


def _reported(archive: tarfile.TarFile, file: BinaryIO, report: ByteReport) -> Iterator[tarfile.TarInfo]:
    total = os.fstat(file.fileno()).st_size
    for member in archive:
        yield member
        report(file.tell(), total)
    report(total, total)
