"""A feature store that nobody here can write, as on a disk that is mounted to be read alone: used if it is true."""

import logging
from pathlib import Path

import numpy as np

from harness.common.progress import Progress
from harness.data import store_files
from harness.data.extraction import Unopened
from harness.data.openmic import audio_name
from harness.data.row_writer import hold_to_records
from harness.data.rows import Rows
from harness.data.wanted import Wanted, audio_digests

logger = logging.getLogger(__name__)


def is_true(path: Path, features: Rows, records: np.ndarray, wanted: Wanted, progress: Progress) -> bool:
    """Return whether a store has all of these rows as their files are now.

    What who fills it would do once is done each time, since there is nowhere to note it: files that were touched are
    read, and rows are held to their checksums if a process that wrote them was killed, or one was found damaged.
    """
    if wanted.is_missing(records).any() or not _is_same_audio(path, records, wanted, progress):
        return False
    if store_files.is_doubtful(path):
        return bool(hold_to_records(features, records, wanted.rows, progress).all())
    return True


def _is_same_audio(path: Path, records: np.ndarray, wanted: Wanted, progress: Progress) -> bool:
    stale = np.flatnonzero(wanted.is_stale(records))
    for position, audio in audio_digests(wanted, stale, progress):
        if isinstance(audio, Unopened):
            wrong = f": {audio.reason}"
        elif audio != records["audio"][wanted.rows[position]].tobytes():
            wrong = " is not what it was"
        else:
            continue
        name = audio_name(wanted.paths[position].stem)
        logger.warning("%s: cannot be used as it is, and nobody here can write it: %s%s", path, name, wrong)
        return False
    return True
