"""What a study may see: training and validation clips, and nothing of the test clips."""

import numpy as np
import pytest
import torch

from harness.data.frontend import FrontEnd
from harness.data.openmic import read_dataset
from harness.data.splits import split_train
from harness.data.store import prepare_features
from harness.data.study_data import study_data
from tests.layouts import Layout, write_tone

FRONT_END = FrontEnd(n_mels=32, n_frames=32)


def make(root, *, test_hertz=440, test_targets=None):
    layout = Layout(n_clips=24, n_train=16)
    if test_targets is not None:
        layout.targets[16:][layout.observed[16:]] = test_targets
    layout.write(root)
    for row, key in enumerate(layout.keys):
        hertz = test_hertz if row >= 16 else 300 + 50 * row
        write_tone(root / "audio" / key[:3] / f"{key}.ogg", hertz=hertz)
    return layout


def open_data(root, cache, **options):
    dataset = read_dataset(root)
    split = split_train(dataset, fraction=0.4, seed=1)
    return (
        dataset,
        split,
        study_data(dataset, prepare_features(dataset, FRONT_END, cache=cache, workers=1, **options), split),
    )


def everything(data):
    parts = [(p.features[p.rows], p.targets, p.observed) for p in (data.train, data.validation)]
    return [array.tobytes() for part in parts for array in part] + [data.mean, data.std]


def test_test_clips_are_in_no_part(tmp_path):
    make(tmp_path / "data")
    dataset, split, data = open_data(tmp_path / "data", tmp_path / "cache")
    seen = set(data.train.rows) | set(data.validation.rows)
    assert not seen & set(dataset.test)
    assert seen <= set(split.train) | set(split.validation)


def test_other_sounds_and_labels_of_the_test_clips_change_nothing(tmp_path):
    make(tmp_path / "one/data")
    make(tmp_path / "two/data", test_hertz=3000, test_targets=1.0)
    one, two = (open_data(tmp_path / name / "data", tmp_path / name / "cache")[2] for name in ("one", "two"))
    assert everything(one) == everything(two)


def test_a_batch_is_what_the_store_holds_for_its_clips(tmp_path):
    make(tmp_path / "data")
    _, _, data = open_data(tmp_path / "data", tmp_path / "cache")
    log_mel, targets, observed = data.train.batch(np.array([2, 0]), torch.device("cpu"))
    assert log_mel.dtype == torch.float32
    assert np.array_equal(log_mel.numpy(), data.train.features[data.train.rows[[2, 0]]].astype(np.float32))
    assert np.array_equal(targets.numpy(), data.train.targets[[2, 0]])
    assert np.array_equal(observed.numpy(), data.train.observed[[2, 0]])


def test_the_statistics_are_those_of_the_training_clips(tmp_path):
    make(tmp_path / "data")
    _, _, data = open_data(tmp_path / "data", tmp_path / "cache")
    values = data.train.features[data.train.rows].astype(np.float64)
    assert data.mean == pytest.approx(values.mean())
    assert data.std == pytest.approx(values.std())


def test_an_unreadable_clip_is_left_out_on_demand(tmp_path):
    layout = make(tmp_path / "data")
    key = layout.keys[0]
    (tmp_path / "data/audio" / key[:3] / f"{key}.ogg").write_bytes(b"not audio")
    with pytest.raises(ValueError, match=key):
        open_data(tmp_path / "data", tmp_path / "cache")
    _, _, data = open_data(tmp_path / "data", tmp_path / "cache", skip_corrupt=True)
    assert 0 not in set(data.train.rows) | set(data.validation.rows)
