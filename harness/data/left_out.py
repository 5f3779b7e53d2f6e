"""The list of all clips that a feature store has no log-mel of though it was asked for: `left_out.csv` in the store."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from harness.common.files import write_whole
from harness.data.openmic import CORRUPTED_TRACKS, audio_name
from harness.data.store_files import UNREADABLE, said_of

LEFT_OUT = "left_out.csv"
_HEADER = ("sample_key", "file", "reason", "is_known_to_be_corrupted")


def is_known_to_be_corrupted(key: str) -> bool:
    """Return whether a clip is of one of the tracks of the Free Music Archive that are known to be damaged."""
    return key[:6] in CORRUPTED_TRACKS


def write_left_out(path: Path, keys: Sequence[str], records: np.ndarray, unopened: Mapping[str, str]) -> None:
    """List the clips that cannot be read, and those by key in `unopened`; without any, there is no list.

    Raises:
        OSError: the store cannot be written.
    """
    reasons = {
        keys[row]: records["reason"][row].decode(errors="replace")
        for row in np.flatnonzero(records["state"] == UNREADABLE).tolist()
    }
    reasons |= {key: f"cannot be opened: {reason}" for key, reason in unopened.items()}
    with said_of(path):
        if not reasons:
            (path / LEFT_OUT).unlink(missing_ok=True)
            return
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            [_HEADER, *(_line(key, reasons[key]) for key in sorted(reasons))]
        )
        write_whole(path / LEFT_OUT, text.getvalue())


def _line(key: str, reason: str) -> tuple[str, str, str, str]:
    return key, audio_name(key), reason, "yes" if is_known_to_be_corrupted(key) else "no"
