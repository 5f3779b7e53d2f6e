"""A fraction of the clips: smaller, and otherwise the same."""

import time
from dataclasses import replace

import numpy as np
import pytest

from harness.config.literature import LABEL_COUNTS
from harness.config.study import SPLITS, DataSpec
from harness.data.dataset import POSITIVE
from harness.data.openmic import read_dataset
from harness.data.splits import split_train, stratified, study_split
from harness.features.inputs import LogMel, Vggish
from harness.features.log_mel import FrontEnd
from harness.study.sources import open_dataset, open_study_data
from tests.support.layouts import Layout, write_tone

N_TRAIN, N_TEST = 14_915, 5_085
FRACTIONS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.9)


def answers(counts, *, n_clips, seed):
    """Return who was asked what and what plays: as many answers as in `counts`, at least one for each clip."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(counts)), [yes + no for yes, no in counts])
    first = rng.permutation(label)[:n_clips]
    observed, positive = np.zeros((2, n_clips, len(counts)), dtype=np.bool_)
    observed[np.arange(n_clips), first] = True
    for column, (yes, no) in enumerate(counts):
        more = rng.permutation(np.flatnonzero(~observed[:, column]))[: yes + no - observed[:, column].sum()]
        observed[more, column] = True
        positive[rng.permutation(np.flatnonzero(observed[:, column]))[:yes], column] = True
    return observed, positive


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """Return a data set with the official numbers of clips and of answers by label and split, without files."""
    small = read_dataset(Layout().write(tmp_path_factory.mktemp("official") / "d"))
    rng = np.random.default_rng(0)
    rows = rng.permutation(N_TRAIN + N_TEST)
    train, test = np.sort(rows[:N_TRAIN]), np.sort(rows[N_TRAIN:])
    observed, positive = np.zeros((2, len(rows), len(LABEL_COUNTS)), dtype=np.bool_)
    for side, counts in (
        (train, [(c.train_positive, c.train_negative) for c in LABEL_COUNTS.values()]),
        (test, [(c.test_positive, c.test_negative) for c in LABEL_COUNTS.values()]),
    ):
        observed[side], positive[side] = answers(counts, n_clips=len(side), seed=len(side))
    targets = np.where(observed, np.where(positive, 0.9, 0.1), 0.5).astype(np.float32)
    return replace(
        small,
        labels=tuple(LABEL_COUNTS),
        keys=tuple(f"{row:06}_0" for row in range(len(rows))),
        targets=targets,
        observed=observed,
        train=train,
        test=test,
        artists=tuple(f"artist {row // 7}" for row in range(len(rows))),
    )


def sides(dataset, fraction, **more):
    split = study_split(DataSpec(fraction=fraction, **more), dataset)
    return split.train, split.validation


def strata_of(dataset, rows):
    """Return how many of the rows have each answer, by label: first yes, then no."""
    observed, positive = dataset.observed[rows], dataset.targets[rows] >= POSITIVE
    return np.concatenate([(observed & positive).sum(axis=0), (observed & ~positive).sum(axis=0)])


def test_the_made_labels_are_as_sparse_as_the_official_ones(official):
    assert official.observed[official.train].sum() == 30_746
    assert official.observed[official.test].sum() == 10_522
    assert official.observed.any(axis=1).all()


@pytest.mark.parametrize("kind", SPLITS)
def test_all_of_the_clips_are_the_very_split(kind, official):
    whole = split_train(official, kind=kind, seed=3)
    train, validation = sides(official, 1.0, split=kind, split_seed=3)
    for rows, expected in ((train, whole.train), (validation, whole.validation)):
        assert (rows.dtype, rows.tobytes()) == (expected.dtype, expected.tobytes())


@pytest.mark.parametrize("kind", SPLITS)
def test_a_smaller_fraction_lies_within_a_larger_one_and_no_clip_changes_sides(kind, official):
    larger = sides(official, 1.0, split=kind)
    for fraction in reversed(FRACTIONS[::2]):
        smaller = sides(official, fraction, split=kind)
        for rows, around in zip(smaller, larger, strict=True):
            assert np.isin(rows, around).all()
            assert len(rows) < len(around)
            assert (np.diff(rows) > 0).all()
        larger = smaller


@pytest.mark.parametrize("fraction", FRACTIONS[1:])
def test_a_fraction_has_the_size_asked_for(fraction, official):
    for rows, whole in zip(sides(official, fraction), sides(official, 1.0), strict=True):
        assert len(rows) == pytest.approx(fraction * len(whole), abs=0.5) or len(rows) < 25


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_every_labels_answers_keep_their_share_to_two_clips(fraction, official):
    for seed in range(3):
        rows, whole = sides(official, fraction, split_seed=seed)[0], sides(official, 1.0, split_seed=seed)[0]
        expected = strata_of(official, whole) * len(rows) / len(whole)
        assert np.abs(strata_of(official, rows) - expected).max() < 2
        # and clips with one label have it too, as those with many
        n_labels, n_all = (official.observed[part].sum(axis=1) for part in (rows, whole))
        if fraction >= 0.01:
            assert abs((n_labels == 1).mean() - (n_all == 1).mean()) < 0.04


def test_a_thousandth_keeps_a_clip_of_each_answer_to_each_label_and_few_more(official):
    for rows in sides(official, 0.001):
        assert (strata_of(official, rows) > 0).all()
        assert len(rows) <= 30


def test_the_seed_decides_the_clips(official):
    whole = sides(official, 1.0)[0]
    options = {"observed": official.observed, "positive": official.targets >= POSITIVE}
    first, again, other = (stratified(whole, 0.1, seed=seed, **options) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert len(np.intersect1d(first, other)) < 0.3 * len(first)


def test_a_rare_answer_is_kept_and_clips_that_nobody_was_asked_about_are_not():
    observed, positive = np.ones((200, 2), dtype=np.bool_), np.zeros((200, 2), dtype=np.bool_)
    positive[::2, 0] = positive[77, 1] = True  # one clip alone has the second label
    observed[100:] = False
    rows = stratified(np.arange(200), 0.1, observed=observed, positive=positive, seed=0)
    assert 77 in rows
    assert (len(rows), rows.max() < 100) == (10, True)


def test_a_side_without_an_answer_to_some_label_is_no_obstacle():
    observed = np.ones((50, 2), dtype=np.bool_)
    positive = np.stack([np.arange(50) % 2 == 0, np.ones(50, dtype=np.bool_)], axis=1)
    assert len(stratified(np.arange(50), 0.2, observed=observed, positive=positive, seed=0)) == 10


@pytest.mark.parametrize("inputs", [LogMel(FrontEnd(n_mels=32, n_frames=32)), Vggish()], ids=["log-mel", "vggish"])
def test_a_study_of_a_fraction_has_those_clips_alone_and_a_digest_of_its_own(tmp_path, monkeypatch, inputs):
    monkeypatch.setenv("REPROGRAMMING_CACHE", str(tmp_path / "cache"))
    layout = Layout(n_clips=60, n_train=50)
    root = layout.write(tmp_path / "data")
    for key in layout.keys:
        write_tone(root / "audio" / key[:3] / f"{key}.ogg")
    found = {}
    for fraction in (0.4, 1.0, 0.6):
        spec = DataSpec(source=str(root), validation_fraction=0.4, fraction=fraction)
        dataset = open_dataset(spec)
        data, split = open_study_data(spec, dataset, inputs=inputs), study_split(spec, dataset)
        assert np.array_equal(data.train.rows, split.train)
        assert np.array_equal(data.validation.rows, split.validation)
        assert open_study_data(spec, dataset, inputs=inputs).digest == data.digest
        found[data.digest] = len(data.train)
    assert list(found.values()) == [12, 30, 18]


@pytest.mark.parametrize("fraction", [0.1, 0.999])
def test_a_fraction_is_drawn_in_less_than_three_seconds(fraction, official):
    rows, positive = official.train, official.targets >= POSITIVE
    started = time.process_time()
    stratified(rows, fraction, observed=official.observed, positive=positive, seed=0)
    assert time.process_time() - started < 3
