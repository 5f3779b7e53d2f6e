"""What a study may see: training and validation clips, and nothing of the test clips."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from harness.config.study import DataSpec
from harness.data.batches import log_mel_features, study_data
from harness.data.openmic import read_dataset, read_vggish
from harness.data.skipped import report_skipped
from harness.data.splits import split_train
from harness.features.extract import extract
from harness.features.inputs import LogMel, Vggish
from harness.features.log_mel import FrontEnd
from harness.study import sources
from harness.study.sources import features_of, open_dataset, open_study_data
from tests.support.layouts import Layout, write_tone

FRONT_END = FrontEnd(n_mels=32, n_frames=32)
HEARD = pytest.mark.parametrize("inputs", [LogMel(FRONT_END), Vggish()], ids=["log-mel", "vggish"])


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


def open_data(root, cache, *, skip_corrupt=False):
    dataset = read_dataset(root)
    split = split_train(dataset, validation_fraction=0.4, seed=1)
    extracted = extract(list(dataset.paths), FRONT_END, cache=cache)
    report_skipped(dataset, extracted, cache=cache, skip_corrupt=skip_corrupt)
    return dataset, split, study_data(dataset, log_mel_features(dataset, extracted, FRONT_END), split)


def open_root(root, inputs=None, **options):
    spec = DataSpec(source=str(root), validation_fraction=0.4, split_seed=1, **options)
    dataset = open_dataset(spec)
    return dataset, open_study_data(spec, dataset, inputs=inputs or LogMel(FRONT_END))


def everything(data):
    parts = [(p.features[p.rows], p.targets, p.observed) for p in (data.train, data.validation)]
    return [array.tobytes() for part in parts for array in part] + [data.mean, data.std]


@HEARD
def test_test_clips_are_in_no_part(tmp_path, inputs):
    make(tmp_path / "data")
    dataset, data = open_root(tmp_path / "data", inputs)
    split = split_train(dataset, validation_fraction=0.4, seed=1)
    assert not {*data.train.rows, *data.validation.rows} & set(dataset.test)
    assert np.array_equal(data.train.rows, split.train)
    assert np.array_equal(data.validation.rows, split.validation)


@HEARD
def test_other_sounds_and_labels_of_the_test_clips_change_nothing(tmp_path, inputs):
    make(tmp_path / "one")
    layout = make(tmp_path / "two", test_hertz=3000, test_targets=1.0)
    layout.vggish[16:] = 0
    layout.write_npz(tmp_path / "two")
    one, two = (open_root(tmp_path / name, inputs)[1] for name in ("one", "two"))
    assert everything(one) == everything(two)


@HEARD
def test_a_batch_is_what_is_stored_for_its_clips(tmp_path, inputs):
    make(tmp_path / "data")
    _, data = open_root(tmp_path / "data", inputs)
    inputs, targets, observed = data.train.batch(np.array([2, 0]), torch.device("cpu"))
    assert inputs.dtype == torch.float32
    assert np.array_equal(inputs.numpy(), data.train.features[data.train.rows[[2, 0]]].astype(np.float32))
    assert np.array_equal(targets.numpy(), data.train.targets[[2, 0]])
    assert np.array_equal(observed.numpy(), data.train.observed[[2, 0]])


def test_vggish_comes_as_the_data_set_has_it(tmp_path):
    layout = make(tmp_path / "data")
    dataset, data = open_root(tmp_path / "data", Vggish())
    assert (data.inputs, data.train.features.dtype, data.train.features.shape) == (Vggish(), np.float32, (24, 10, 128))
    inputs, _, _ = data.validation.batch(np.arange(len(data.validation)), torch.device("cpu"))
    assert np.array_equal(inputs.numpy(), layout.vggish[data.validation.rows])
    assert np.array_equal(data.train.features, read_vggish(dataset))


def test_log_mel_and_vggish_have_the_same_clips_and_labels_in_their_parts(tmp_path):
    layout = Layout(n_clips=24, n_train=16)
    layout.observed[[1, 3]] = False  # nobody was asked about these clips
    layout.observed[:8, 2] = False
    layout.write(tmp_path / "data")
    for key in layout.keys:
        write_tone(tmp_path / "data/audio" / key[:3] / f"{key}.ogg")
    one, other = (open_root(tmp_path / "data", inputs)[1] for inputs in (LogMel(FRONT_END), Vggish()))
    assert not {1, 3} & {*one.train.rows, *one.validation.rows}
    for ours, theirs in ((one.train, other.train), (one.validation, other.validation)):
        assert np.array_equal(ours.rows, theirs.rows)
        assert np.array_equal(ours.targets, theirs.targets)
        assert np.array_equal(ours.observed, theirs.observed)


def test_a_data_set_without_vggish_is_refused_with_what_to_do(tmp_path):
    layout = make(tmp_path / "data")
    (tmp_path / "data/openmic-2018.npz").unlink()
    layout.write_csv(tmp_path / "data")
    assert open_root(tmp_path / "data")
    with pytest.raises(ValueError, match="no array 'X'"):
        open_root(tmp_path / "data", Vggish())


@pytest.mark.parametrize("bad", [-1.0, 255.5, np.nan, np.inf])
def test_vggish_out_of_range_is_refused(tmp_path, bad):
    layout = make(tmp_path / "data")
    layout.vggish = layout.vggish.astype(np.float64)
    layout.vggish[5, 3, 7] = bad
    layout.write_npz(tmp_path / "data")
    with pytest.raises(ValueError, match=r"openmic-2018\.npz: X must hold numbers from 0 to 255"):
        open_root(tmp_path / "data", Vggish())


@HEARD
def test_a_label_that_no_validation_clip_is_annotated_for_is_refused(tmp_path, inputs):
    make(tmp_path / "data")
    spec = DataSpec(source=str(tmp_path / "data"), validation_fraction=0.4, split_seed=1)
    dataset = open_dataset(spec)
    features = features_of(inputs, dataset, spec=spec)
    split = split_train(dataset, validation_fraction=0.4, seed=1)
    bare = dataset.observed.copy()
    bare[split.validation, 1] = False
    with pytest.raises(ValueError, match="validation split of data: no clip is annotated for cello"):
        study_data(replace(dataset, observed=bare), features, split)


@HEARD
def test_the_statistics_are_those_of_the_training_clips(tmp_path, inputs):
    make(tmp_path / "data")
    _, data = open_root(tmp_path / "data", inputs)
    values = data.train.features[data.train.rows].astype(np.float64)
    assert data.mean == pytest.approx(values.mean())
    assert data.std == pytest.approx(values.std())


@HEARD
def test_the_same_data_elsewhere_has_the_same_digest(tmp_path, inputs):
    make(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (open_root(tmp_path / name, inputs)[1] for name in ("one", "two"))
    assert one.digest == two.digest


@HEARD
def test_other_labels_and_other_sounds_each_give_another_digest(tmp_path, inputs):
    layout = make(tmp_path / "data")
    for name in ("labels", "sounds"):
        shutil.copytree(tmp_path / "data", tmp_path / name)
    write_tone(tmp_path / "sounds/audio" / layout.keys[-1][:3] / f"{layout.keys[-1]}.ogg", hertz=3000)
    layout.vggish[-1, 0, 0] ^= 1
    layout.write_npz(tmp_path / "sounds")
    layout.vggish[-1, 0, 0] ^= 1
    layout.targets[layout.observed] = 1.0
    layout.write_npz(tmp_path / "labels")
    assert len({open_root(tmp_path / name, inputs)[1].digest for name in ("data", "labels", "sounds")}) == 3


def test_every_front_end_gives_the_same_digest_and_vggish_another(tmp_path):
    make(tmp_path / "data")
    front_ends = (
        FRONT_END,
        replace(FRONT_END, n_frames=33),
        replace(FRONT_END, via_hz=22050),
        replace(FRONT_END, is_peak_normalised=True),
    )
    ways = [LogMel(front_end) for front_end in front_ends]
    opened = [open_root(tmp_path / "data", way)[1] for way in ways]
    assert [data.inputs for data in opened] == ways
    assert len({data.digest for data in opened}) == 1
    assert len({data.train.features[:].tobytes() for data in opened}) == len(ways)
    assert open_root(tmp_path / "data", Vggish())[1].digest != opened[0].digest


def test_noise_in_place_of_the_music_gives_another_digest(tmp_path):
    layout = make(tmp_path / "data")
    spec = DataSpec(source=str(tmp_path / "data"), validation_fraction=0.4, split_seed=1)
    digests = []
    for _ in range(2):
        data = open_study_data(spec, open_dataset(spec), inputs=LogMel(FRONT_END))
        digests.append(data.digest)
        for key in layout.keys:
            noise = np.random.default_rng(0).normal(0, 0.1, 16000)
            soundfile.write(tmp_path / "data/audio" / key[:3] / f"{key}.ogg", noise, 16000, format="OGG")
    assert digests[0] != digests[1]


@HEARD
def test_a_demo_set_that_was_compressed_elsewhere_has_the_same_digest(tmp_path, monkeypatch, inputs):
    """Two machines render the same samples, and write other files: here another tone stands for that."""
    spec = DataSpec(source="demo", validation_fraction=0.4, split_seed=1)
    digests = []
    for name, rendered in (("one", "same"), ("two", "same"), ("three", "other")):
        make(tmp_path / name / "data", test_hertz=300 + 10 * len(digests))
        (tmp_path / name / "data/demo.json").write_text(json.dumps({"digest": rendered}))
        monkeypatch.setattr(sources, "ensure_demo", lambda *_, name=name, **__: tmp_path / name / "data")
        digests.append(open_study_data(spec, open_dataset(spec), inputs=inputs).digest)
    assert digests[0] == digests[1] != digests[2]


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
