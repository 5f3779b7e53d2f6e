"""What every clip of a data set sounds like, in one array: log-mel from the store, or the data set's own VGGish."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from harness.data.checked_rows import CheckedRows
from harness.data.frontend import FrontEnd
from harness.data.openmic import ClipDataset, read_vggish
from harness.data.rows import Rows
from harness.data.store import FeatureStore


@dataclass(frozen=True, eq=False)
class Features:
    """One row of `values` for each key of the data set; it means nothing where `available` is False.

    `digest` stands for labels, partition and sound, on whichever machine, and not for the front end, which is None for
    VGGish.
    """

    values: Rows
    available: Bool[np.ndarray, " clip"]
    front_end: FrontEnd | None
    digest: str


def log_mel_features(
    dataset: ClipDataset,
    store: FeatureStore,
    *,
    rows: Int[np.ndarray, " row"] | None = None,
    sound_digest: str | None = None,
) -> Features:
    """Return the log-mel of some rows of a store (None: all); clips that it could not read are not available.

    `sound_digest` stands for what all the clips sound like, if the data set knows better than its audio files do.
    """
    available = store.available
    content = ["log_mel", dataset.digest, sound_digest or store.audio_digest(rows), sorted(store.unreadable(rows))]
    if rows is not None:
        # what else may be in the store is none of this study's
        available = available & np.isin(np.arange(len(available)), rows)
    digest = _sha256([*content, *_some_keys(dataset, rows)])
    return Features(CheckedRows(store), available, store.front_end, digest)


def vggish_features(
    dataset: ClipDataset, *, rows: Int[np.ndarray, " row"] | None = None, sound_digest: str | None = None
) -> Features:
    """Return the data set's VGGish features. All are available: a clip whose audio is damaged has them nevertheless.

    `rows` are those in use (None: all), which the digest tells; `sound_digest` stands for what all the clips sound
    like, if the data set knows better than the array does.

    Raises:
        ValueError: the data set has none, or they do not fit its keys.
    """
    values = read_vggish(dataset)
    values.setflags(write=False)
    heard = sound_digest or hashlib.sha256(values.astype("<f4", copy=False).tobytes()).hexdigest()
    digest = _sha256(["vggish", dataset.digest, heard, *_some_keys(dataset, rows)])
    return Features(values, np.ones(len(values), np.bool_), front_end=None, digest=digest)


def _some_keys(dataset: ClipDataset, rows: Int[np.ndarray, " row"] | None) -> list[list[str]]:
    """Return the keys of some rows as the only item, or nothing if these are all rows."""
    chosen = np.arange(len(dataset.keys)) if rows is None else np.unique(rows)
    return [[dataset.keys[row] for row in chosen]] if len(chosen) < len(dataset.keys) else []


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
