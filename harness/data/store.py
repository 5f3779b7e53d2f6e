"""The feature store: every clip's log-mel, computed once and read by all trials of a machine.

    CACHE/features/DIGEST/    one store; `harness/data/store_files.py` says what is in it

The digest in the name covers the format, the front end, the data set's directory and its keys. A store is filled in
place, row by row: a preparation that was killed goes on where it was, and a quick study fills only the rows that it
needs. A row knows the audio file that it was computed from, by size, times and SHA-256: where the SHA-256 is another by
now, that row is computed again and no other.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from harness.common.progress import Progress, quiet
from harness.common.text import few
from harness.data import store_files, store_read_only
from harness.data.dataset import ClipDataset
from harness.data.extraction import Extraction, in_threads
from harness.data.left_out import LEFT_OUT, is_known_to_be_corrupted
from harness.data.old_stores import warn_of_old_stores
from harness.data.openmic import audio_name
from harness.data.row_writer import hold_to_records
from harness.data.rows import Rows
from harness.data.store_files import MISSING, READY, UNREADABLE
from harness.data.store_filling import fill
from harness.data.store_index import Index, read_index
from harness.data.wanted import Wanted, look_at
from harness.features.log_mel import FrontEnd

logger = logging.getLogger(__name__)

_N_NAMED = 10


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """Log-mel of a data set's clips, not normalised, as it was when the store was opened; row i is of `keys[i]`.

    `records` says of each row whether it is there, missing, or of a clip that cannot be read, and why. `audio_digest`
    is equal wherever the same files lie. Pickled by its path: who unpickles it opens the store there.
    """

    path: Path
    index: Index
    features: Rows
    records: np.ndarray

    def __reduce__(self) -> tuple[Callable[[Path], "FeatureStore"], tuple[Path]]:
        return open_store, (self.path,)

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the key of each row."""
        return self.index.keys

    @property
    def front_end(self) -> FrontEnd:
        """Return how the clips were heard."""
        return self.index.front_end

    @property
    def available(self) -> Bool[np.ndarray, " clip"]:
        """Return which rows hold the log-mel of their clip."""
        ready: np.ndarray = np.equal(self.records["state"], READY)
        return ready

    def missing(self, rows: Int[np.ndarray, " row"] | None = None) -> Int[np.ndarray, " row"]:
        """Return which of the rows have not been computed."""
        wanted = self._all(rows)
        missing: np.ndarray = wanted[self.records["state"][wanted] == MISSING]
        return missing

    def unreadable(self, rows: Int[np.ndarray, " row"] | None = None) -> dict[str, str]:
        """Return, by key, why clips of these rows cannot be read."""
        wanted = self._all(rows)
        return {
            self.keys[row]: self.records["reason"][row].decode(errors="replace")
            for row in wanted[self.records["state"][wanted] == UNREADABLE]
        }

    def audio_digest(self, rows: Int[np.ndarray, " row"] | None = None) -> str:
        """Return the SHA-256 over each row's key and file's SHA-256, and the keys that cannot be read, as hex.

        Raises:
            ValueError: a row is missing.
        """
        wanted = self._all(rows)
        if missing := [self.keys[row] for row in self.missing(wanted)]:
            raise ValueError(f"{self.path}: {len(missing)} clips have not been heard: {few(missing)}")
        files = [[self.keys[row], self.records["audio"][row].tobytes().hex()] for row in wanted]
        return hashlib.sha256(json.dumps([files, sorted(self.unreadable(wanted))]).encode()).hexdigest()

    def _all(self, rows: Int[np.ndarray, " row"] | None) -> Int[np.ndarray, " row"]:
        return np.arange(len(self.keys)) if rows is None else np.unique(rows)


def prepare_features(
    dataset: ClipDataset,
    front_end: FrontEnd,
    *,
    cache: Path,
    rows: Int[np.ndarray, " row"] | None = None,
    compute: Extraction | None = None,
    skip_corrupt: bool = False,
    progress: Progress = quiet,
) -> FeatureStore:
    """Return the store of a data set's features, computing first those of the rows (None: all) that are missing.

    `compute` is how, one thread if it is None. Clips that cannot be read are an error, raised once all have been tried;
    with `skip_corrupt`, and if their track is known to be corrupted, they are a warning, and False in `available`.

    Raises:
        OSError: clips' files cannot be opened, raised once all have been tried, or the cache cannot be written, for
            one because the disk is full.
        ValueError: clips cannot be read without `skip_corrupt`, or no clip can be read.
    """
    index = Index(dataset.root.resolve(), front_end, dataset.keys)
    path = cache / "features" / index.name
    wanted = look_at(dataset, rows)
    store = (
        _open_if_complete(path, index, wanted)
        or _open_while_filled(path, index, wanted, progress)
        or _open_read_only(path, index, wanted, progress)
    )
    if store is None:
        with store_files.locked(path):
            # another process may have done the work while this one waited for the lock
            wanted = look_at(dataset, rows)
            store = _open_if_complete(path, index, wanted) or _fill(
                path, index, wanted, compute=compute or in_threads(1), progress=progress
            )
    _report_unreadable(store, rows, skip_corrupt=skip_corrupt)
    return store


def open_store(path: Path) -> FeatureStore:
    """Open a store as `prepare_features` left it; reads its index and its records, not its features.

    Raises:
        FileNotFoundError: there is no store.
        ValueError: its index, its records or its features are damaged, or do not fit each other.
    """
    index = read_index(path)
    records = store_files.read_records(path, index)
    return FeatureStore(path, index, store_files.open_features(path, index), records)


def _open_expected(path: Path, expected: Index) -> FeatureStore:
    store = open_store(path)
    if store.index != expected:
        raise ValueError(f"{path}: its index describes another store")
    return store


def _open_if_complete(path: Path, expected: Index, wanted: Wanted) -> FeatureStore | None:
    """Return the store if it has all of the rows as they are now, and nobody fills it or left it in doubt."""
    with suppress(ValueError, FileNotFoundError):
        if not store_files.is_doubtful(path):
            store = _open_expected(path, expected)
            return store if wanted.are_there(store.records) and not store_files.is_doubtful(path) else None
    return None


def _open_while_filled(path: Path, expected: Index, wanted: Wanted, progress: Progress) -> FeatureStore | None:
    """Return the store if another process fills it and all of the rows are there, each being what its record says."""
    if not store_files.is_locked(path):
        return None  # so that who comes next checks what a killed process left, once for all
    with suppress(ValueError, FileNotFoundError):
        store = _open_expected(path, expected)
        if wanted.are_there(store.records):
            return store if hold_to_records(store.features, store.records, wanted.rows, progress).all() else None
    return None


def _open_read_only(path: Path, expected: Index, wanted: Wanted, progress: Progress) -> FeatureStore | None:
    """Return the store if nobody here can write it and it has all of the rows, each of the file as it is now."""
    if store_files.is_read_only(path):
        with suppress(ValueError, FileNotFoundError):
            store = _open_expected(path, expected)
            return store if store_read_only.is_true(path, store.features, store.records, wanted, progress) else None
    return None


def _fill(path: Path, expected: Index, wanted: Wanted, *, compute: Extraction, progress: Progress) -> FeatureStore:
    """Compute what is missing of the rows, in a new store if there is none or it is damaged. The lock is held."""
    store = _open_or_create(path, expected)
    fill(path, expected, store.records, wanted, compute=compute, progress=progress)
    return open_store(path)


def _open_or_create(path: Path, expected: Index) -> FeatureStore:
    if path.exists():
        try:
            return _open_expected(path, expected)
        except (ValueError, FileNotFoundError) as error:
            logger.warning("the feature store is made anew, since it is not whole: %s", error)
    store_files.create(path, expected)
    warn_of_old_stores(path.parent)
    return _open_expected(path, expected)


def _report_unreadable(store: FeatureStore, rows: Int[np.ndarray, " row"] | None, *, skip_corrupt: bool) -> None:
    reasons = {key: f"{audio_name(key)}: {reason}" for key, reason in store.unreadable(rows).items()}
    if not reasons:
        return
    n_clips = len(store.keys) if rows is None else len(np.unique(rows))
    known = [reason for key, reason in reasons.items() if is_known_to_be_corrupted(key)]
    others = [reason for key, reason in reasons.items() if not is_known_to_be_corrupted(key)]
    message = f"{len(others)} of {n_clips} clips cannot be read: {few(others, limit=_N_NAMED)}"
    if len(reasons) == n_clips:
        raise ValueError(f"none of the {n_clips} clips can be read: {few(reasons.values(), limit=_N_NAMED)}")
    if others and not skip_corrupt:
        raise ValueError(
            f"{message}; repair them, or leave them out on purpose with --skip-corrupt; all are listed in "
            f"{store.path / LEFT_OUT}"
        )
    if known:
        logger.warning("%d clips of tracks that are known to be corrupted are left out: %s", len(known), few(known))
    if others:
        logger.warning("%s; they are left out", message)
