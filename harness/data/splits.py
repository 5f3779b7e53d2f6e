"""Split the official train clips into train and validation, and take a fraction of each. Test clips play no part."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from harness.common.registry import resolve
from harness.common.text import summarise
from harness.config.study import SPLITS, DataSpec, check_split
from harness.data.dataset import POSITIVE, ClipDataset
from harness.data.npz import read_array

PUBLIC_SPLIT = Path(__file__).with_name("openmic_train_val.npz")
PUBLIC_N_TRAIN = 14915
_N_CANDIDATES = 16
_MANY_LABELS = 4  # clips with as many annotated labels or more are one stratum

Rows = Int[np.ndarray, " row"]


@dataclass(frozen=True, eq=False)
class SplitRows:
    """Rows of a `ClipDataset` to train on and to validate on: sorted, disjoint, without test rows."""

    train: Rows
    validation: Rows


def split_train(
    dataset: ClipDataset,
    *,
    kind: str = DataSpec.split,
    validation_fraction: float = DataSpec.validation_fraction,
    seed: int = 0,
) -> SplitRows:
    """Split the official train rows into train and validation.

    `validation_fraction` is the share of the train clips that becomes validation. Neither it nor `seed` changes the
    public split.

    Raises:
        ValueError: `kind` is unknown, `validation_fraction` is not between 0 and 1, the data set does not suit it, or
            a side has no observed label for an instrument.
    """
    check_split(kind, validation_fraction)
    validation = np.sort(resolve(SPLITS[kind])(dataset, validation_fraction, seed))
    split = SplitRows(train=np.setdiff1d(dataset.train, validation), validation=validation)
    drawn = "" if kind == "public" else f" with validation-fraction={validation_fraction}, seed={seed}"
    _check(dataset, split, how=f"split {kind!r}{drawn}")
    return split


def random_validation(dataset: ClipDataset, fraction: float, seed: int) -> Rows:
    """Draw validation clips at random, as the paper does.

    Source: Chen and Lerch, "Music Instrument Classification Reprogrammed", MMM 2023, section 4.2 (15 %).
    """
    count = round(fraction * len(dataset.train))
    return np.random.default_rng(seed).permutation(dataset.train)[:count]


def public_validation(dataset: ClipDataset, _fraction: float, _seed: int) -> Rows:
    """Return the validation split that was published for OpenMIC-2018 (12,678 / 2,237 clips).

    The file's indices count the official train clips in key order, not in the order of split01_train.csv. No document
    states this; the script beside the original filters openmic-2018.npz row by row.

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


def artist_validation(dataset: ClipDataset, fraction: float, seed: int) -> Rows:
    """Draw whole artists at random until they have `fraction` of the clips, so that no artist is on both sides.

    Clips by one artist share players, instruments and recording; a random split rewards recognising them.
    """
    if dataset.artists is None:
        raise ValueError(f"split 'artist': {dataset.root} has no metadata CSV that names the artists")
    artists = np.array([dataset.artists[row] for row in dataset.train])
    if unnamed := [dataset.keys[row] for row in dataset.train[artists == ""]]:
        raise ValueError(f"split 'artist': the metadata CSV in {dataset.root} names no artist for {summarise(unnamed)}")
    _, artist, clips = np.unique(artists, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(clips))
    clips_before = np.cumsum(clips[order]) - clips[order]
    drawn = order[clips_before < round(fraction * len(artists))]
    rows: Rows = dataset.train[np.isin(artist, drawn)]
    return rows


def _check(dataset: ClipDataset, split: SplitRows, *, how: str) -> None:
    for name, rows in (("train", split.train), ("validation", split.validation)):
        if len(rows) == 0:
            raise ValueError(f"{how}: no clip is left for {name} out of {len(dataset.train)}")
        unseen = np.flatnonzero(dataset.observed[rows].sum(axis=0) == 0)
        if len(unseen):
            raise ValueError(
                f"{how}: no {name} clip has an observed label for {summarise(dataset.labels[i] for i in unseen)}; "
                "try another seed, split or validation-fraction"
            )


def study_split(spec: DataSpec, dataset: ClipDataset) -> SplitRows:
    """Return the rows that a study trains on and validates on.

    All train rows are split first, then the fraction of each side is drawn with the split's seed. So no fraction moves
    a clip to the other side.

    Raises:
        ValueError: the split does not suit the data set.
    """
    split = split_train(dataset, kind=spec.split, validation_fraction=spec.validation_fraction, seed=spec.split_seed)
    positive = dataset.targets >= POSITIVE
    train, validation = (
        stratified(rows, spec.fraction, observed=dataset.observed, positive=positive, seed=spec.split_seed)
        for rows in (split.train, split.validation)
    )
    return SplitRows(train, validation)


def stratified(
    rows: Rows,
    fraction: float,
    *,
    observed: Bool[np.ndarray, "clip label"],
    positive: Bool[np.ndarray, "clip label"],
    seed: int,
) -> Rows:
    """Return a fraction of the rows with an annotation, sorted; all rows if it is 1.

    There are more where that many clips cannot include one of each stratum.
    """
    if fraction == 1:
        return rows
    annotated = rows[observed[rows].any(axis=1)]
    strata = _strata(observed[annotated], positive[annotated])
    order = np.random.default_rng(seed).permutation(len(annotated))
    drawing = _Drawing(strata[order])
    while drawing.n_taken < round(fraction * len(annotated)) or not drawing.has_all_strata:
        drawing.take_next()
    return np.sort(annotated[order[drawing.is_taken]])


def _strata(
    observed: Bool[np.ndarray, "clip label"], positive: Bool[np.ndarray, "clip label"]
) -> Bool[np.ndarray, "clip stratum"]:
    """Return which clip is in which stratum, without empty strata, the rarest first."""
    annotated = np.minimum(observed.sum(axis=1), _MANY_LABELS)
    counts = annotated[:, None] == np.arange(1, _MANY_LABELS + 1)
    strata = np.concatenate([observed & positive, observed & ~positive, counts], axis=1)
    sizes = strata.sum(axis=0)
    by_size = np.argsort(sizes, kind="stable")
    return strata[:, by_size[sizes[by_size] > 0]]


class _Drawing:
    """Clips taken one by one, by position, so that each stratum gets its share."""

    def __init__(self, strata: Bool[np.ndarray, "clip stratum"]) -> None:
        self._strata_of = [np.flatnonzero(of_clip).tolist() for of_clip in strata]
        self._waiting = [deque(np.flatnonzero(clips).tolist()) for clips in strata.T]
        self._sizes = [len(clips) for clips in self._waiting]
        self._shares = [0.0] * len(self._sizes)  # the part of each stratum that has been taken
        self._counts = [0] * len(self._sizes)
        self.is_taken = np.zeros(len(strata), np.bool_)
        self.n_taken = 0

    @property
    def has_all_strata(self) -> bool:
        """Return whether a clip of each stratum has been taken."""
        return all(self._counts)

    def take_next(self) -> None:
        """Take a clip of the stratum that is furthest behind."""
        stratum = min(range(len(self._shares)), key=self._shares.__getitem__)
        clip = max(self._candidates(stratum), key=self._worth)
        self.is_taken[clip] = True
        self.n_taken += 1
        for mine in self._strata_of[clip]:
            self._counts[mine] += 1
            self._shares[mine] = self._counts[mine] / self._sizes[mine]

    def _candidates(self, stratum: int) -> Iterable[int]:
        """Return the stratum's next clips, all of them if none has been taken yet."""
        waiting = self._waiting[stratum]
        while self.is_taken[waiting[0]]:
            waiting.popleft()
        left = (clip for clip in waiting if not self.is_taken[clip])
        return islice(left, _N_CANDIDATES) if self._counts[stratum] else left

    def _worth(self, clip: int) -> tuple[int, float]:
        """Return how many strata would get their first clip, and how much closer all would come to their share.

        The latter sums, over strata, the decrease in squared distance from the share, divided by the size.
        """
        share = (self.n_taken + 1) / len(self.is_taken)
        mine = self._strata_of[clip]
        fresh = sum(self._counts[stratum] == 0 for stratum in mine)
        return fresh, sum(2 * (share - self._shares[stratum]) - 1 / self._sizes[stratum] for stratum in mine)
