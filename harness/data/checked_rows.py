"""Rows of a feature store that are held to their records, each when this process first reads it.

A disk or a copy may spoil what nobody wrote since. To look at all rows whenever a store is opened would be to read all
of it, 5.2 GB for OpenMIC-2018; what is in the page cache and has just been read takes 0.06 ms a row, once.
"""

from typing import Any

import numpy as np

from harness.data.rows import UnreadableRowsError
from harness.data.store import FeatureStore
from harness.data.store_files import DAMAGED, READY, is_whole


class CheckedRows:
    """The features of a store, read as `StoredRows` are. Any number of threads may read.

    Where a row cannot be read, or is not what its record says, the store is marked, so that who opens it next checks
    all of it and has such rows computed anew.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self.shape, self.dtype = store.features.shape, store.features.dtype
        self._is_trusted = store.records["state"] != READY  # what is not there has no checksum

    def __reduce__(self) -> tuple[type["CheckedRows"], tuple[FeatureStore]]:
        return type(self), (self._store,)

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        """Return copies of the rows that an index of an array's first axis selects.

        Raises:
            IndexError: there is no such row.
            UnreadableRowsError: the file cannot be read, or a row is not what was written.
        """
        try:
            copies: np.ndarray = self._store.features[rows]
        except UnreadableRowsError as error:
            raise UnreadableRowsError(f"{error}; {self._marked()}") from error
        chosen, each = np.arange(self.shape[0])[rows].reshape(-1), copies.reshape(-1, *self.shape[1:])
        for place in np.flatnonzero(~self._is_trusted[chosen]):
            self._check(int(chosen[place]), each[place])
        return copies

    def _check(self, row: int, log_mel: np.ndarray) -> None:
        if not is_whole(self._store.records[row], log_mel):
            raise UnreadableRowsError(
                f"{self._store.path}: the log-mel of {self._store.keys[row]} is not what was written there, by its "
                f"checksum; the disk or a copy has damaged it; {self._marked()}"
            )
        self._is_trusted[row] = True

    def _marked(self) -> str:
        """Mark the store as one of which no row is to be believed before it has been checked; say what comes of it."""
        try:
            (self._store.path / DAMAGED).touch()
        except OSError as error:
            return (
                f"nor can that be noted there ({error.strerror}): have `python -m harness.data prepare` mend it by who "
                "may write there, or name another place in the environment variable REPROGRAMMING_CACHE"
            )
        return "who opens the store next computes anew what is wrong in it"
