"""Validation comes out of train, and test stays out of both; a fraction of the clips is smaller and otherwise alike."""

import time
from dataclasses import replace

import numpy as np
import pytest

from harness.config.literature import LABEL_COUNTS
from harness.config.study import SPLITS, DataSpec
from harness.data.dataset import POSITIVE
from harness.data.openmic import read_dataset
from harness.data.splits import PUBLIC_SPLIT, split_train, stratified, study_split
from harness.features.inputs import LogMel, Vggish
from harness.features.log_mel import FrontEnd
from harness.study.sources import open_dataset, open_study_data
from tests.support.layouts import LABELS, Layout, write_tone

N_TRAIN, N_TEST = 14_915, 5_085
FRACTIONS = (0.001, 0.01, 0.1, 0.5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return read_dataset(Layout(n_clips=200, n_train=150).write(tmp_path_factory.mktemp("splits") / "d"))


@pytest.mark.parametrize("kind", SPLITS)
def test_a_split_parts_the_train_rows_in_order_and_leaves_test_alone(kind, dataset, official):
    data = official if kind == "public" else dataset
    split = split_train(data, kind=kind)
    np.testing.assert_array_equal(np.union1d(split.train, split.validation), data.train)
    assert len(split.train) + len(split.validation) == len(data.train)
    for rows in (split.train, split.validation):
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()


@pytest.mark.parametrize("kind", ["random", "artist"])
def test_the_seed_decides_the_split(kind, dataset):
    first, again, other = (split_train(dataset, kind=kind, seed=seed).validation for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("kind", ["random", "artist"])
@pytest.mark.parametrize("fraction", [0.15, 0.4])
def test_validation_holds_the_fraction_asked_for(kind, fraction, dataset):
    split = split_train(dataset, kind=kind, validation_fraction=fraction)
    assert abs(len(split.validation) - fraction * 150) <= 1  # an artist has two clips


def test_no_artist_is_on_both_sides(dataset):
    split = split_train(dataset, kind="artist")
    train, validation = ({dataset.artists[row] for row in rows} for rows in (split.train, split.validation))
    assert not train & validation
    assert len(train) + len(validation) == 75


def test_the_public_split_counts_train_rows_in_key_order(official):
    split = split_train(official, kind="public", validation_fraction=0.9, seed=7)
    assert (len(split.train), len(split.validation)) == (12_678, 2_237)
    with np.load(PUBLIC_SPLIT) as arrays:
        train, validation = arrays["train"], arrays["validation"]
        assert "Siddharth Gururani" in str(arrays["licence"])
    train_keys = sorted(set(official.keys) - {official.keys[row] for row in official.test})
    assert [official.keys[row] for row in split.validation] == [train_keys[i] for i in validation]
    assert [official.keys[row] for row in split.train] == [train_keys[i] for i in train]


def test_the_public_split_of_another_data_set_is_refused(dataset):
    with pytest.raises(ValueError, match=r"14915 train clips of OpenMIC-2018; .* has 150: choose 'random'"):
        split_train(dataset, kind="public")


def test_an_unknown_split_is_refused_with_the_known_ones(dataset):
    with pytest.raises(ValueError, match="split='rndom': must be one of random, public, artist"):
        split_train(dataset, kind="rndom")


@pytest.mark.parametrize("fraction", [0, 1, float("nan")])
def test_a_fraction_out_of_range_is_refused(dataset, fraction):
    with pytest.raises(ValueError, match=f"validation-fraction={fraction}: must lie between 0 and 1"):
        split_train(dataset, validation_fraction=fraction)


def test_a_fraction_that_leaves_no_validation_is_refused(dataset):
    with pytest.raises(ValueError, match="no clip is left for validation out of 150"):
        split_train(dataset, validation_fraction=0.001)


@pytest.mark.parametrize(("side", "fraction"), [("validation", 0.02), ("train", 0.98)])
def test_a_side_without_any_label_of_an_instrument_is_refused(tmp_path, side, fraction):
    layout = Layout(n_clips=60, n_train=50)
    layout.observed[:] = True
    layout.observed[2:50, 1] = False  # two clips alone are annotated for the cello
    dataset = read_dataset(layout.write(tmp_path / "d"))
    assert LABELS[1] == "cello"
    how = rf"split 'random' with validation-fraction={fraction}, seed=0: no {side} clip"
    with pytest.raises(ValueError, match=f"{how} has an observed label for cello; try another seed, split or validati"):
        split_train(dataset, validation_fraction=fraction)


def test_an_artist_split_asks_for_artists(tmp_path):
    layout = Layout()
    layout.artists[layout.keys[2]] = " "
    root = layout.write(tmp_path / "d")
    with pytest.raises(ValueError, match="names no artist for 000002_11520"):
        split_train(read_dataset(root), kind="artist")
    (root / "openmic-2018-metadata.csv").unlink()
    with pytest.raises(ValueError, match="has no metadata CSV that names the artists"):
        split_train(read_dataset(root), kind="artist")


# A fraction


def answers(counts, *, n_clips, seed):
    """Return observed and positive labels: as many answers as in `counts`, at least one for each clip."""
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


@pytest.mark.parametrize("kind", SPLITS)
def test_all_of_the_clips_are_the_very_split(kind, official):
    whole = split_train(official, kind=kind, seed=3)
    train, validation = sides(official, 1.0, split=kind, split_seed=3)
    for rows, expected in ((train, whole.train), (validation, whole.validation)):
        assert (rows.dtype, rows.tobytes()) == (expected.dtype, expected.tobytes())


@pytest.mark.parametrize("kind", SPLITS)
def test_a_smaller_fraction_lies_within_a_larger_one_and_no_clip_changes_sides(kind, official):
    larger = sides(official, 1.0, split=kind)
    for fraction in (0.25, 0.05, 0.001):
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
    rows, whole = sides(official, fraction, split_seed=1)[0], sides(official, 1.0, split_seed=1)[0]
    expected = strata_of(official, whole) * len(rows) / len(whole)
    assert np.abs(strata_of(official, rows) - expected).max() < 2
    # clips with one label keep their share, too
    n_labels, n_all = (official.observed[part].sum(axis=1) for part in (rows, whole))
    if fraction >= 0.01:
        assert abs((n_labels == 1).mean() - (n_all == 1).mean()) < 0.04


def test_a_thousandth_keeps_a_clip_of_each_answer_to_each_label_and_few_more(official):
    for rows in sides(official, 0.001):
        assert (strata_of(official, rows) > 0).all()
        assert len(rows) <= 30


def test_a_rare_answer_is_kept_and_clips_without_annotations_are_not():
    observed, positive = np.ones((200, 2), dtype=np.bool_), np.zeros((200, 2), dtype=np.bool_)
    positive[::2, 0] = positive[77, 1] = True  # one clip alone has the second label
    observed[100:] = False
    rows = stratified(np.arange(200), 0.1, observed=observed, positive=positive, seed=0)
    assert 77 in rows
    assert (len(rows), rows.max() < 100) == (10, True)


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


def test_half_of_openmic_2018_is_drawn_in_less_than_three_seconds(official):
    rows, positive = official.train, official.targets >= POSITIVE
    started = time.process_time()
    stratified(rows, 0.5, observed=official.observed, positive=positive, seed=0)
    assert time.process_time() - started < 3
