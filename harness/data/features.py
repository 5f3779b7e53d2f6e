"""What every clip of a data set sounds like, in one array: log-mel from the store, or the data set's own VGGish."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from harness.data.frontend import FrontEnd
from harness.data.openmic import ClipDataset, read_vggish
from harness.data.store import FeatureStore


@dataclass(frozen=True, eq=False)
class Features:
    """One row of `values` for each key of the data set; it means nothing where `available` is False.

    `digest` stands for labels, partition and sound, on whichever machine, and not for the front end, which is None for
    VGGish.
    """

    values: Float[np.ndarray, "clip time feature"]
    available: Bool[np.ndarray, " clip"]
    front_end: FrontEnd | None
    digest: str


def log_mel_features(dataset: ClipDataset, store: FeatureStore, *, sound_digest: str | None = None) -> Features:
    """Return the log-mel of a store; the clips that it could not read are not available.

    `sound_digest` stands for what all the clips sound like, if the data set knows better than its audio files do.
    """
    digest = _sha256(["log_mel", dataset.digest, sound_digest or store.audio_digest, sorted(store.unreadable)])
    return Features(store.features, store.available, store.front_end, digest)


def vggish_features(dataset: ClipDataset, *, sound_digest: str | None = None) -> Features:
    """Return the data set's VGGish features. All are available: a clip whose audio is damaged has them nevertheless.

    `sound_digest` stands for what all the clips sound like, if the data set knows better than the array does.

    Raises:
        ValueError: the data set has none, or they do not fit its keys.
    """
    values = read_vggish(dataset)
    values.setflags(write=False)
    heard = sound_digest or hashlib.sha256(values.astype("<f4", copy=False).tobytes()).hexdigest()
    digest = _sha256(["vggish", dataset.digest, heard])
    return Features(values, np.ones(len(values), np.bool_), front_end=None, digest=digest)


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
