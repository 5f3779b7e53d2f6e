"""What a study may see: training and validation clips, and nothing of the test clips."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from harness.data import sources
from harness.data.frontend import FrontEnd
from harness.data.openmic import read_dataset
from harness.data.sources import open_dataset, open_study_data
from harness.data.splits import split_train
from harness.data.store import prepare_features
from harness.data.study_data import study_data
from harness.spec import DataSpec
from tests.layouts import Layout, write_tone

FRONT_END = FrontEnd(n_mels=32, n_frames=32)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPROGRAMMING_CACHE", str(tmp_path / "cache"))


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
        with_store(dataset, split, prepare_features(dataset, FRONT_END, cache=cache, workers=1, **options)),
    )


def with_store(dataset, split, store):
    return study_data(dataset, store, split, sound_digest=store.audio_digest)


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


def test_the_same_data_elsewhere_has_the_same_digest(tmp_path):
    make(tmp_path / "one/data")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (open_data(tmp_path / name / "data", tmp_path / name / "cache")[2] for name in ("one", "two"))
    assert one.digest == two.digest


def test_other_labels_other_sounds_and_another_front_end_each_give_another_digest(tmp_path):
    layout = make(tmp_path / "data")
    for name in ("labels", "sounds"):
        shutil.copytree(tmp_path / "data", tmp_path / name)
    layout.targets[layout.observed] = 1.0
    layout.write_npz(tmp_path / "labels")
    write_tone(tmp_path / "sounds/audio" / layout.keys[-1][:3] / f"{layout.keys[-1]}.ogg", hertz=3000)
    names = ("data", "labels", "sounds")
    digests = {open_data(tmp_path / name, tmp_path / "cache")[2].digest for name in names}
    dataset, split, _ = open_data(tmp_path / "data", tmp_path / "cache")
    other = prepare_features(dataset, replace(FRONT_END, n_frames=33), cache=tmp_path / "cache", workers=1)
    assert len(digests | {with_store(dataset, split, other).digest}) == 4


def test_noise_in_place_of_the_music_gives_another_digest(tmp_path):
    layout = make(tmp_path / "data")
    spec = DataSpec(source=str(tmp_path / "data"), validation_fraction=0.4, split_seed=1)
    digests = []
    for _ in range(2):
        data = open_study_data(spec, open_dataset(spec), front_end=FRONT_END)
        digests.append(data.digest)
        for key in layout.keys:
            noise = np.random.default_rng(0).normal(0, 0.1, 16000)
            soundfile.write(tmp_path / "data/audio" / key[:3] / f"{key}.ogg", noise, 16000, format="OGG")
    assert digests[0] != digests[1]


def test_a_demo_set_that_was_compressed_elsewhere_has_the_same_digest(tmp_path, monkeypatch):
    """Two machines render the same samples, and write other files: here another tone stands for that."""
    spec = DataSpec(source="demo", validation_fraction=0.4, split_seed=1)
    digests = []
    for name, rendered in (("one", "same"), ("two", "same"), ("three", "other")):
        make(tmp_path / name / "data", test_hertz=300 + 10 * len(digests))
        (tmp_path / name / "data/demo.json").write_text(json.dumps({"digest": rendered}))
        monkeypatch.setattr(sources, "ensure_demo", lambda *_, name=name, **__: tmp_path / name / "data")
        digests.append(open_study_data(spec, open_dataset(spec), front_end=FRONT_END).digest)
    assert digests[0] == digests[1] != digests[2]


def test_labels_with_one_answer_among_the_validation_clips_are_listed(tmp_path):
    make(tmp_path / "data")
    _, _, data = open_data(tmp_path / "data", tmp_path / "cache")
    part = data.validation
    part.observed[:2] = True
    part.targets[:2] = [[0, 0, 0.4], [1, 0.5, 0.49]]
    assert "banjo" not in data.one_sided_labels
    assert "cello" not in data.one_sided_labels
    part.targets[:, 1] = 0.5  # which counts as yes
    part.targets[:, 2] = 0.4
    part.targets[~part.observed[:, 2], 2] = 0.9  # which nobody said
    assert data.one_sided_labels == ("cello", "voice")


def test_an_unreadable_clip_is_left_out_on_demand(tmp_path):
    layout = make(tmp_path / "data")
    key = layout.keys[0]
    (tmp_path / "data/audio" / key[:3] / f"{key}.ogg").write_bytes(b"not audio")
    with pytest.raises(ValueError, match=key):
        open_data(tmp_path / "data", tmp_path / "cache")
    whole = make(tmp_path / "whole") and open_data(tmp_path / "whole", tmp_path / "cache")[2]
    _, _, data = open_data(tmp_path / "data", tmp_path / "cache", skip_corrupt=True)
    assert data.digest != whole.digest
    assert 0 not in set(data.train.rows) | set(data.validation.rows)
