"""Carving validation out of the official train split. The test split plays no part here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from harness.data.npz import read_array
from harness.data.openmic import ClipDataset
from harness.data.tables import few

PUBLIC_SPLIT = Path(__file__).with_name("openmic_train_val.npz")
PUBLIC_N_TRAIN = 14915

Rows = Int[np.ndarray, " row"]


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a `ClipDataset` to learn from and to select by, each sorted, disjoint, without test rows."""

    train: Rows
    validation: Rows


def split_train(
    dataset: ClipDataset, *, kind: str = "random", validation_fraction: float = 0.15, seed: int = 0
) -> Split:
    """Split the official train rows into train and validation.

    `validation_fraction` is the share of the train clips that becomes validation. The public split is fixed: neither it
    nor `seed` changes it.

    Raises:
        ValueError: `kind` is unknown, `validation_fraction` is not between 0 and 1, the data set does not suit it, or
            a side has no observed label for an instrument.
    """
    if kind not in SPLITS:
        raise ValueError(f"split {kind!r} is unknown; it is one of {', '.join(SPLITS)}")
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation-fraction={validation_fraction}: it must lie between 0 and 1")
    validation = np.sort(SPLITS[kind](dataset, validation_fraction, seed))
    split = Split(train=np.setdiff1d(dataset.train, validation), validation=validation)
    drawn = "" if kind == "public" else f" with validation-fraction={validation_fraction}, seed={seed}"
    _check(dataset, split, how=f"split {kind!r}{drawn}")
    return split


def _random(dataset: ClipDataset, fraction: float, seed: int) -> Rows:
    """Draw validation clips at random, as the paper does.

    Source: Chen and Lerch, "Music Instrument Classification Reprogrammed", MMM 2023, section 4.2 (15 %).
    """
    count = round(fraction * len(dataset.train))
    return np.random.default_rng(seed).permutation(dataset.train)[:count]


def _public(dataset: ClipDataset, _fraction: float, _seed: int) -> Rows:
    """Return the one fixed validation split that was published for OpenMIC-2018 (12,678 / 2,237 clips).

    The file's indices count the official train clips in the order of the data set's rows, which is key order, not in
    the order of split01_train.csv. This is inferred from the script beside the original, which builds the train set by
    filtering openmic-2018.npz row by row; no document says it.

    Source: data/train_val.split and data/data_split.py of github.com/SiddGururani/AttentionMIC (Gururani,
        Sharma and Lerch, ISMIR 2019), MIT; its licence is the array `licence` of our file.
    Differs: the indices are sorted and stored as uint16.
    """
    if len(dataset.train) != PUBLIC_N_TRAIN:
        raise ValueError(
            f"split 'public' is made for the {PUBLIC_N_TRAIN} train clips of OpenMIC-2018; "
            f"{dataset.root} has {len(dataset.train)}: choose 'random' or 'artist'"
        )
    rows: Rows = dataset.train[read_array(PUBLIC_SPLIT, "validation")]
    return rows


def _artist(dataset: ClipDataset, fraction: float, seed: int) -> Rows:
    """Draw whole artists at random until they hold `fraction` of the clips: none is on both sides.

    Clips by one artist share players, instruments and recording; a random split rewards knowing them again.
    """
    if dataset.artists is None:
        raise ValueError(f"split 'artist': {dataset.root} has no metadata CSV that names the artists")
    artists = np.array([dataset.artists[row] for row in dataset.train])
    if unnamed := [dataset.keys[row] for row in dataset.train[artists == ""]]:
        raise ValueError(f"split 'artist': the metadata CSV in {dataset.root} names no artist for {few(unnamed)}")
    _, artist, clips = np.unique(artists, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(clips))
    clips_before = np.cumsum(clips[order]) - clips[order]
    drawn = order[clips_before < round(fraction * len(artists))]
    rows: Rows = dataset.train[np.isin(artist, drawn)]
    return rows


def _check(dataset: ClipDataset, split: Split, *, how: str) -> None:
    for name, rows in (("train", split.train), ("validation", split.validation)):
        if len(rows) == 0:
            raise ValueError(f"{how}: no clip is left for {name} out of {len(dataset.train)}")
        unseen = np.flatnonzero(dataset.observed[rows].sum(axis=0) == 0)
        if len(unseen):
            raise ValueError(
                f"{how}: no {name} clip has an observed label for {few(dataset.labels[i] for i in unseen)}; "
                "try another seed, split or validation-fraction"
            )


SPLITS: dict[str, Callable[[ClipDataset, float, int], Rows]] = {
    "random": _random,
    "public": _public,
    "artist": _artist,
}
