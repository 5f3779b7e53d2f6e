"""Filling a feature store: what is missing is computed, and so is what was computed from other audio."""

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich import filesize

from harness.common.progress import Progress
from harness.common.text import few
from harness.data.extraction import Extraction, Unopened
from harness.data.left_out import LEFT_OUT, write_left_out
from harness.data.openmic import audio_name
from harness.data.row_writer import RowWriter, filling
from harness.data.store_elsewhere import heard_elsewhere
from harness.data.store_files import READY
from harness.data.store_index import Index
from harness.data.wanted import Wanted, audio_digests
from harness.features.log_mel import FrontEnd

logger = logging.getLogger(__name__)

T = TypeVar("T")
_FAILED_AT_FIRST, _FAILED_IN_A_ROW = 100, 1000
_N_NAMED = 10


def fill(
    path: Path,
    index: Index,
    records: np.ndarray,
    wanted: Wanted,
    *,
    compute: Extraction,
    progress: Progress,
) -> None:
    """Have a store hold the wanted rows as their files are now, and list what it cannot. Its lock is held.

    Raises:
        OSError: files cannot be opened, which is raised once all have been tried, or the store cannot be written.
    """
    unopened: dict[str, str] = {}
    with filling(path, records) as writer:
        if not writer.is_checked:
            logger.warning(
                "%s: checked first, since the last preparation did not come to its end or a row was found damaged", path
            )
            writer.check(progress)
        try:
            _forget_changed(path, writer, wanted, unopened=unopened, progress=progress)
            _take_what_others_have(path, index, writer, wanted, progress)
            _compute_missing(
                writer, wanted, front_end=index.front_end, compute=compute, unopened=unopened, progress=progress
            )
        finally:
            write_left_out(path, index.keys, writer.records, unopened)
    if unopened:
        raise OSError(
            f"{len(unopened)} of {len(wanted.rows)} audio files cannot be opened: {_named(unopened)}; the others' "
            f"features are kept, so mend this and run the same command again; all are listed in {path / LEFT_OUT}"
        )


def _forget_changed(
    path: Path, writer: RowWriter, wanted: Wanted, *, unopened: dict[str, str], progress: Progress
) -> None:
    """Forget the rows whose files hold other bytes by now; of files that were only touched, note the new stamp."""
    stale = np.flatnonzero(wanted.is_stale(writer.records))
    changed = []
    for position, audio in _opened(audio_digests(wanted, stale, progress), wanted, unopened):
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
        _check_room(path, int(is_ready.sum()), writer.row_bytes, why=", copied since some changed,")
        writer.detach(progress)
    writer.forget(changed)


def _take_what_others_have(path: Path, index: Index, writer: RowWriter, wanted: Wanted, progress: Progress) -> None:
    """Copy what is missing, and was heard from the same audio elsewhere, from the stores beside this one."""
    missing = np.flatnonzero(wanted.is_missing(writer.records))
    if not len(missing):
        return
    _check_room(path, len(missing), writer.row_bytes)
    for position, heard in heard_elsewhere(path, index, wanted, missing, progress):
        writer.put(int(wanted.rows[position]), heard, wanted.stamps[position])


def _compute_missing(
    writer: RowWriter,
    wanted: Wanted,
    *,
    front_end: FrontEnd,
    compute: Extraction,
    unopened: dict[str, str],
    progress: Progress,
) -> None:
    missing = np.flatnonzero(wanted.is_missing(writer.records))
    if not len(missing):
        return
    with closing(compute([wanted.paths[position] for position in missing], front_end)) as found:
        reported = progress(found, total=len(missing), label="features")
        placed = ((int(missing[place]), outcome) for place, outcome in reported)
        for position, heard in _opened(placed, wanted, unopened):
            writer.put(int(wanted.rows[position]), heard, wanted.stamps[position])


def _opened(
    found: Iterable[tuple[int, T | Unopened]], wanted: Wanted, unopened: dict[str, str]
) -> Iterator[tuple[int, T]]:
    """Yield what comes of the files that can be opened; note by key why others cannot.

    Raises:
        OSError: none of the first hundred can, or none of a thousand in a row: so the disk is gone, and no file wrong.
    """
    n_in_a_row, most = 0, _FAILED_AT_FIRST
    for position, outcome in found:
        if not isinstance(outcome, Unopened):
            n_in_a_row, most = 0, _FAILED_IN_A_ROW
            yield position, outcome
            continue
        unopened[wanted.paths[position].stem] = outcome.reason
        n_in_a_row += 1
        if n_in_a_row == most:
            raise OSError(
                f"{most} audio files in a row cannot be opened, so the others were not tried: {_named(unopened)}; "
                "what was computed is kept, so mend this and run the same command again"
            )


def _named(unopened: Mapping[str, str]) -> str:
    return few((f"{audio_name(key)}: {reason}" for key, reason in unopened.items()), limit=_N_NAMED)


def _check_room(path: Path, n_rows: int, row_bytes: int, *, why: str = "") -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        OSError: the message says how much is needed and how much is free.
    """
    needed, free = n_rows * row_bytes, shutil.disk_usage(path).free
    if needed > free:
        raise OSError(
            f"{path}: the features of {n_rows} clips{why} need {filesize.decimal(needed)} and "
            f"{filesize.decimal(free)} are free there; make room, or name another place in the environment variable "
            "REPROGRAMMING_CACHE"
        )
