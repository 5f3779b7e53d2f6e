"""The clips that someone asks a feature store for, and whether it has them as they are now."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int

from harness.common.progress import Progress
from harness.data.dataset import ClipDataset
from harness.data.extraction import Unopened, audio_digest, threads
from harness.data.store_files import MISSING

_UNKNOWN = (-1, -1, -1)
_READING_THREADS = 4
_N_SAMPLES = 16

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Wanted:
    """Some rows, with the audio file of each and its stamp: size in bytes, and in ns when it was modified and changed.

    The system sets the last of these (ctime) whenever the file's content, mode, names or times change, and nobody can
    set it back. A stamp is older than what is read of the file then, so that a change in between is seen the next time.
    """

    rows: Int[np.ndarray, " row"]
    paths: list[Path]
    stamps: Int[np.ndarray, "row 3"]

    def is_missing(self, records: np.ndarray) -> Bool[np.ndarray, " row"]:
        """Return which of the rows have no record."""
        missing: np.ndarray = np.equal(records["state"][self.rows], MISSING)
        return missing

    def is_stale(self, records: np.ndarray) -> Bool[np.ndarray, " row"]:
        """Return which of the rows have a record of a file with another stamp, or whose file cannot be looked at.

        Changed before what the record says is no other stamp: so machines that share a store and each have a copy of
        the audio, which came there at another time, do not take turns in holding their files to the record.
        """
        known = records["stamp"][self.rows]
        is_other: np.ndarray = np.not_equal(known[:, :2], self.stamps[:, :2]).any(axis=1)
        is_other |= self.stamps[:, 2] > known[:, 2]
        stale: np.ndarray = (is_other | (self.stamps[:, 0] < 0)) & ~self.is_missing(records)
        return stale

    def are_there(self, records: np.ndarray) -> bool:
        """Return whether all of the rows have a record, and each of the file as it is."""
        return not bool((self.is_missing(records) | self.is_stale(records)).any())


def audio_digests(
    wanted: Wanted, positions: Int[np.ndarray, " some"], progress: Progress
) -> Iterator[tuple[int, bytes | Unopened]]:
    """Yield the SHA-256 of the audio files at these positions."""
    if len(positions):
        with threads(_READING_THREADS) as pool:
            digests = pool.map(audio_digest, [wanted.paths[position] for position in positions])
            reported = progress(digests, total=len(positions), label="checking audio")
            yield from zip(positions.tolist(), reported, strict=True)


def some_of(clips: Sequence[T]) -> Sequence[T]:
    """Return a few of the clips, spread over all: enough to tell whether two places have the same audio."""
    return clips[:: max(1, len(clips) // _N_SAMPLES)]


def look_at(dataset: ClipDataset, rows: Int[np.ndarray, " row"] | None) -> Wanted:
    """Return these rows of a data set (None: all), with their files as they are now."""
    chosen = np.arange(len(dataset.keys)) if rows is None else np.unique(rows)
    paths = [dataset.paths[row] for row in chosen]
    return Wanted(chosen, paths, np.array([_stamp(path) for path in paths], np.int64).reshape(-1, 3))


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError:  # whoever reads the file will say why
        return _UNKNOWN
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
