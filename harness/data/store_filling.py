"""Filling a feature store: what is missing is computed, and so is what was computed from other audio."""

import hashlib
import logging
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from jaxtyping import Int
from rich import filesize

from harness.data.extraction import Extraction, threads
from harness.data.frontend import FrontEnd
from harness.data.progress import Progress
from harness.data.row_writer import RowWriter, filling
from harness.data.store_files import FILLING, READY
from harness.data.wanted import Wanted

logger = logging.getLogger(__name__)

_READING_THREADS = 4


def fill(
    path: Path,
    records: np.ndarray,
    wanted: Wanted,
    *,
    front_end: FrontEnd,
    compute: Extraction,
    progress: Progress,
) -> None:
    """Have a store hold the wanted rows as their files are now. Its lock is held.

    Raises:
        OSError: a file cannot be read, or the store cannot be written.
    """
    is_left_behind = (path / FILLING).exists()
    with filling(path, records) as writer:
        if is_left_behind:
            logger.warning("%s: the last preparation did not come to its end; what it wrote is checked first", path)
            writer.check(progress)
        _forget_changed(path, writer, wanted, progress)
        _compute_missing(path, writer, wanted, front_end=front_end, compute=compute, progress=progress)


def _forget_changed(path: Path, writer: RowWriter, wanted: Wanted, progress: Progress) -> None:
    """Forget the rows whose files hold other bytes by now; of files that were only touched, note the new stamp."""
    stale = np.flatnonzero(wanted.is_stale(writer.records))
    changed = []
    for position, audio in _audio_digests(wanted, stale, progress):
        row = int(wanted.rows[position])
        if audio == writer.records["audio"][row].tobytes():
            writer.stamp(row, wanted.stamps[position])
        else:
            changed.append(row)
    if not changed:
        return
    logger.warning("%s: the audio of %d clips is not what it was; they are heard again", path, len(changed))
    is_ready = writer.records["state"] == READY
    if is_ready[changed].any():  # someone may be reading them
        _check_room(path, int(is_ready.sum()), writer.row_bytes)
        writer.detach(progress)
    writer.forget(changed)


def _audio_digests(
    wanted: Wanted, positions: Int[np.ndarray, " stale"], progress: Progress
) -> Iterator[tuple[int, bytes]]:
    """Yield the SHA-256 of the audio files at these positions."""
    if len(positions):
        with threads(_READING_THREADS) as pool:
            digests = pool.map(_audio_digest, [wanted.paths[position] for position in positions])
            yield from zip(
                positions.tolist(), progress(digests, total=len(positions), label="checking audio"), strict=True
            )


def _audio_digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _compute_missing(
    path: Path, writer: RowWriter, wanted: Wanted, *, front_end: FrontEnd, compute: Extraction, progress: Progress
) -> None:
    missing = np.flatnonzero(wanted.is_missing(writer.records))
    if not len(missing):
        return
    _check_room(path, len(missing), writer.row_bytes)
    paths = [wanted.paths[position] for position in missing]
    with closing(compute(paths, front_end)) as found:
        for place, heard in progress(found, total=len(paths), label="features"):
            position = missing[place]
            writer.put(int(wanted.rows[position]), heard, wanted.stamps[position])


def _check_room(path: Path, n_rows: int, row_bytes: int) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        OSError: the message says how much is needed and how much is free.
    """
    needed, free = n_rows * row_bytes, shutil.disk_usage(path).free
    if needed > free:
        raise OSError(
            f"{path}: the features of {n_rows} clips need {filesize.decimal(needed)} and {filesize.decimal(free)} are "
            "free there; make room, or name another place in the environment variable REPROGRAMMING_CACHE"
        )
