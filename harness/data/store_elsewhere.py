"""Rows that other stores have of the same audio: so a data set that was moved or copied is read, but not heard again.

A store belongs to a directory. What another one has of a clip of the same key, heard in the same way from a file of the
same SHA-256, is what would be computed; its checksum tells that it is whole, whoever may be writing there.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from harness.common.progress import Progress, quiet
from harness.data.extraction import Heard
from harness.data.rows import Rows
from harness.data.store_files import MISSING, READY, is_whole, open_features, read_records
from harness.data.store_index import Index, read_index
from harness.data.wanted import Wanted, audio_digests, some_of


@dataclass(frozen=True, eq=False)
class _Other:
    """A store in which a data set's clips may be; `rows` says in which row, by key."""

    rows: dict[str, int]
    records: np.ndarray
    features: Rows

    def heard(self, key: str, audio: object) -> Heard | None:
        """Return what this store has of a clip, if its file had this SHA-256 and the row is whole."""
        record = self.records[self.rows[key]]
        if record["audio"].tobytes() != audio:
            return None
        with suppress(OSError):
            log_mel = self.features[self.rows[key]] if record["state"] == READY else None
            if is_whole(record, log_mel):
                return Heard(log_mel, record["reason"].decode(errors="replace"), record["audio"].tobytes())
        return None


def heard_elsewhere(
    path: Path, index: Index, wanted: Wanted, missing: Int[np.ndarray, " missing"], progress: Progress
) -> Iterator[tuple[int, Heard]]:
    """Yield, of these positions among what is wanted, those that a store beside this one has, and what it has."""
    left = dict.fromkeys(missing.tolist())
    for other in _others(path, index):
        shared = [position for position in left if wanted.paths[position].stem in other.rows]
        if not any(_found(other, wanted, some_of(shared), quiet)):
            continue  # other audio under the same keys, as a trimmed copy of a data set
        for position, heard in _found(other, wanted, shared, progress):
            del left[position]
            yield position, heard


def _found(other: _Other, wanted: Wanted, positions: Sequence[int], progress: Progress) -> Iterator[tuple[int, Heard]]:
    for position, audio in audio_digests(wanted, np.array(positions, np.int64), progress):
        if (heard := other.heard(wanted.paths[position].stem, audio)) is not None:
            yield position, heard


def _others(path: Path, index: Index) -> Iterator[_Other]:
    """Yield the stores beside this one whose clips were heard in the same way; one that is damaged is passed over."""
    for place in sorted(path.parent.iterdir()):
        if place != path and place.is_dir():
            with suppress(OSError, ValueError):
                theirs = read_index(place)
                if theirs.front_end == index.front_end:
                    yield _open(place, theirs)


def _open(place: Path, index: Index) -> _Other:
    """Open a store.

    Raises:
        OSError: it lacks a file.
        ValueError: it is damaged.
    """
    records, features = read_records(place, index), open_features(place, index)
    known = np.flatnonzero(records["state"] != MISSING)
    return _Other({index.keys[row]: int(row) for row in known}, records, features)
