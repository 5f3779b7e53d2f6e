"""Validation comes out of train, and test stays out of both."""

from dataclasses import replace

import numpy as np
import pytest

from harness.config.study import SPLITS
from harness.data.openmic import read_dataset
from harness.data.splits import PUBLIC_SPLIT, split_train
from tests.support.layouts import LABELS, Layout


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return read_dataset(Layout(n_clips=200, n_train=150).write(tmp_path_factory.mktemp("splits") / "d"))


@pytest.fixture(scope="module")
def full_size(dataset):
    """As many train clips as OpenMIC-2018 has, every third of the first ones being test; without files."""
    layout = Layout(n_clips=15_015)
    test = np.arange(0, 300, 3)
    return replace(
        dataset,
        keys=tuple(layout.keys),
        targets=layout.targets,
        observed=layout.observed,
        train=np.setdiff1d(np.arange(15_015), test),
        test=test,
    )


@pytest.mark.parametrize("kind", SPLITS)
def test_a_split_parts_the_train_rows_in_order_and_leaves_test_alone(kind, dataset, full_size):
    data = full_size if kind == "public" else dataset
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


def test_the_public_split_counts_train_rows_in_key_order(full_size):
    split = split_train(full_size, kind="public", validation_fraction=0.9, seed=7)
    assert (len(split.train), len(split.validation)) == (12_678, 2_237)
    with np.load(PUBLIC_SPLIT) as arrays:
        train, validation = arrays["train"], arrays["validation"]
        assert "Siddharth Gururani" in str(arrays["licence"])
    train_keys = sorted(set(full_size.keys) - {full_size.keys[row] for row in full_size.test})
    assert [full_size.keys[row] for row in split.validation] == [train_keys[i] for i in validation]
    assert [full_size.keys[row] for row in split.train] == [train_keys[i] for i in train]


def test_the_public_split_of_another_data_set_is_refused(dataset):
    with pytest.raises(ValueError, match=r"14915 train clips of OpenMIC-2018; .* has 150: choose 'random'"):
        split_train(dataset, kind="public")


def test_an_unknown_split_is_refused_with_the_known_ones(dataset):
    with pytest.raises(ValueError, match="split='rndom': must be one of random, public, artist"):
        split_train(dataset, kind="rndom")


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 15, float("nan")])
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
