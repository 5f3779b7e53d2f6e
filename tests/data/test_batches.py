"""A study's batches: training and validation clips, nothing of the test clips, read ahead in order."""

import json
import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.config.study import DataSpec
from harness.data.batches import ReadAhead, study_data, to_device
from harness.data.openmic import read_vggish
from harness.data.splits import split_train
from harness.features.cache import CachedRows, FeatureCache, Recipe
from harness.features.inputs import LogMel, Vggish
from harness.features.log_mel import FrontEnd
from harness.study import sources
from harness.study.sources import features_of, open_dataset, open_study_data
from tests.conftest import make_data
from tests.support.layouts import Layout, write_tone

FRONT_END = FrontEnd(n_mels=32, n_frames=32)
BOTH_INPUTS = pytest.mark.parametrize("inputs", [LogMel(FRONT_END), Vggish()], ids=["log-mel", "vggish"])


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


def open_root(root, inputs=None, **options):
    spec = DataSpec(source=str(root), validation_fraction=0.4, split_seed=1, **options)
    dataset = open_dataset(spec)
    return dataset, open_study_data(spec, dataset, inputs=inputs or LogMel(FRONT_END))


def everything(data):
    parts = [(p.features[p.rows], p.targets, p.observed) for p in (data.train, data.validation)]
    return [array.tobytes() for part in parts for array in part] + [data.mean, data.std]


@BOTH_INPUTS
def test_test_clips_are_in_no_part(tmp_path, inputs):
    make(tmp_path / "data")
    dataset, data = open_root(tmp_path / "data", inputs)
    split = split_train(dataset, validation_fraction=0.4, seed=1)
    assert not {*data.train.rows, *data.validation.rows} & set(dataset.test)
    assert np.array_equal(data.train.rows, split.train)
    assert np.array_equal(data.validation.rows, split.validation)


@BOTH_INPUTS
def test_other_sounds_and_labels_of_the_test_clips_change_nothing(tmp_path, inputs):
    make(tmp_path / "one")
    layout = make(tmp_path / "two", test_hertz=3000, test_targets=1.0)
    layout.vggish[16:] = 0
    layout.write_npz(tmp_path / "two")
    one, two = (open_root(tmp_path / name, inputs)[1] for name in ("one", "two"))
    assert everything(one) == everything(two)


def test_vggish_comes_as_the_data_set_has_it(tmp_path):
    layout = make(tmp_path / "data")
    dataset, data = open_root(tmp_path / "data", Vggish())
    assert (data.inputs, data.train.features.dtype, data.train.features.shape) == (Vggish(), np.float32, (24, 10, 128))
    inputs, _, _ = data.validation.batch(np.arange(len(data.validation)), torch.device("cpu"))
    assert np.array_equal(inputs.numpy(), layout.vggish[data.validation.rows])
    assert np.array_equal(data.train.features, read_vggish(dataset))


@BOTH_INPUTS
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


@BOTH_INPUTS
def test_the_statistics_are_those_of_the_training_clips(tmp_path, inputs):
    make(tmp_path / "data")
    _, data = open_root(tmp_path / "data", inputs)
    values = data.train.features[data.train.rows].astype(np.float64)
    assert data.mean == pytest.approx(values.mean())
    assert data.std == pytest.approx(values.std())


@BOTH_INPUTS
def test_the_same_data_elsewhere_has_the_same_digest(tmp_path, inputs):
    make(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (open_root(tmp_path / name, inputs)[1] for name in ("one", "two"))
    assert one.digest == two.digest


@BOTH_INPUTS
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


@BOTH_INPUTS
def test_a_demo_set_that_was_compressed_elsewhere_has_the_same_digest(tmp_path, monkeypatch, inputs):
    """Two machines render the same samples, and write other files; another tone stands in for that."""
    spec = DataSpec(source="demo", validation_fraction=0.4, split_seed=1)
    digests = []
    for name, rendered in (("one", "same"), ("two", "same"), ("three", "other")):
        make(tmp_path / name / "data", test_hertz=300 + 10 * len(digests))
        (tmp_path / name / "data/demo.json").write_text(json.dumps({"digest": rendered}))
        monkeypatch.setattr(sources, "ensure_demo", lambda *_, name=name, **__: tmp_path / name / "data")
        digests.append(open_study_data(spec, open_dataset(spec), inputs=inputs).digest)
    assert digests[0] == digests[1] != digests[2]


def test_an_unreadable_clip_is_left_out_on_demand(tmp_path):
    key = make(tmp_path / "data").keys[0]
    whole = open_root(tmp_path / "data")[1]
    (tmp_path / "data/audio" / key[:3] / f"{key}.ogg").write_bytes(b"not audio")
    with pytest.raises(ValueError, match=key):
        open_root(tmp_path / "data")
    data = open_root(tmp_path / "data", skips_corrupt=True)[1]
    assert data.digest != whole.digest
    assert 0 not in set(data.train.rows) | set(data.validation.rows)


# Reading ahead

SECONDS = 20


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("reading ahead")]


def test_batches_come_in_order_and_as_many_are_read_ahead_as_requested():
    begun = []
    with ReadAhead(lambda x: begun.append(x) or x, range(10), depth=3) as batches:
        for count, batch in enumerate(batches, 1):
            assert batch == count - 1
            deadline = time.monotonic() + SECONDS
            while len(begun) < min(count + 3, 10) and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.01)
            assert begun == list(range(min(count + 3, 10)))


def test_an_error_of_a_read_is_raised_in_its_place():
    def read(x):
        if x == 2:
            raise OSError("row 2 is gone")
        return x

    got = []
    with pytest.raises(OSError, match="row 2 is gone"), ReadAhead(read, range(5)) as batches:
        got.extend(iter(batches))
    assert (got, readers()) == ([0, 1], [])


def test_leaving_in_the_middle_ends_the_thread_and_the_reading():
    begun = []
    with ReadAhead(begun.append, range(1000)) as batches:
        for _ in batches:
            assert len(readers()) == 1
            break
    assert readers() == []
    assert len(begun) < 10


def test_the_time_spent_waiting_for_slow_reads_is_counted():
    with ReadAhead(lambda _: time.sleep(0.02), range(5)) as slow:
        list(slow)
    with ReadAhead(lambda x: x, range(5)) as fast:
        for _ in fast:
            time.sleep(0.02)
    assert slow.seconds_waited > 0.08
    assert fast.seconds_waited < slow.seconds_waited / 2


def stored(place, features):
    """Put rows into a cache, and return them as it gives them."""
    cache = FeatureCache(place, Recipe("noise", 1, {}, features.shape[1:]))
    cache.prepare()
    for row, values in enumerate(features):
        cache.write(str(row), values)
    return CachedRows(cache, [str(row) for row in range(len(features))], restore=None)


@pytest.mark.parametrize("is_stored", [False, True], ids=["in memory", "in a file"])
def test_a_batch_read_ahead_is_the_batch(tmp_path, is_stored):
    part = make_data(seed=0).train
    if is_stored:
        object.__setattr__(part, "features", stored(tmp_path, part.features))
    cpu = torch.device("cpu")
    wanted = [np.array([3, 1, 95]), np.array([0]), np.arange(20, 30)]
    with part.read_ahead(wanted, cpu) as batches:
        found = list(batches)
    assert [batch[0].dtype for batch in found] == [torch.float16] * 3
    for batch, clips in zip(found, wanted, strict=True):
        for one, other in zip(to_device(batch, cpu), part.batch(clips, cpu), strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
