"""The test clips come through one door, whole, and through no other."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.config.study import DataSpec
from harness.data.openmic import read_vggish
from harness.features import extract as extract_module
from harness.features.inputs import LogMel, Vggish
from harness.features.log_mel import FrontEnd
from harness.study.files import TrialFiles
from harness.study.heldout import open_test_split, read_test_once
from harness.study.sources import open_dataset, open_study_data
from tests.support.layouts import Layout, write_tone

FRONT_END = FrontEnd(n_mels=32, n_frames=32)
INPUTS = pytest.mark.parametrize("inputs", [LogMel(FRONT_END), Vggish()], ids=["log-mel", "vggish"])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Write clips whose test rows do not come last, of which two test clips carry no annotation."""
    root = tmp_path_factory.mktemp("heldout")
    layout = Layout(n_clips=24, n_train=16)
    layout.test, layout.train = layout.keys[0::3], sorted({*layout.keys} - {*layout.keys[0::3]})
    layout.observed[:] = True
    layout.observed[[3, 21]] = False
    layout.write(root / "data")
    for row, key in enumerate(layout.keys):
        write_tone(root / "data/audio" / key[:3] / f"{key}.ogg", hertz=300 + 50 * row)
    return root, layout


@pytest.fixture(autouse=True)
def shared_cache(written, monkeypatch):
    monkeypatch.setenv("REPROGRAMMING_CACHE", str(written[0] / "cache"))


def open_parts(root, inputs, **options):
    spec = DataSpec(source=str(root), validation_fraction=0.4, **options)
    dataset = open_dataset(spec)
    data = open_study_data(spec, dataset, inputs=inputs)
    return dataset, data, open_test_split(spec, dataset, inputs=inputs)


@INPUTS
def test_the_split_holds_exactly_the_annotated_test_clips_with_the_inputs_of_a_study(written, inputs):
    root, layout = written
    dataset, data, test = open_parts(root / "data", inputs)
    assert [dataset.keys[row] for row in test.rows] == [layout.keys[row] for row in (0, 6, 9, 12, 15, 18)]
    assert np.array_equal(test.targets, layout.targets[test.rows].astype(np.float32))
    assert test.observed.all()
    seen = {*data.train.rows, *data.validation.rows}
    assert seen == {*dataset.train}
    assert seen.isdisjoint(dataset.test)
    batch, targets, observed = test.batch(np.arange(len(test)), torch.device("cpu"))
    assert (batch.dtype, targets.dtype, observed.dtype) == (torch.float32, torch.float32, torch.bool)
    assert np.array_equal(test.features[test.rows], data.train.features[test.rows])
    if inputs == Vggish():
        assert np.array_equal(batch.numpy(), read_vggish(dataset)[test.rows])


def test_a_prepared_cache_serves_the_test_clips_too(written, monkeypatch):
    open_parts(written[0] / "data", LogMel(FRONT_END))
    monkeypatch.setattr(extract_module, "_computed", lambda *_: pytest.fail("computed again"))
    assert len(open_parts(written[0] / "data", LogMel(FRONT_END))[2]) == 6


def test_an_unreadable_test_clip_is_left_out_on_demand_and_its_reading_has_other_clips_than_vggish(written, tmp_path):
    root, layout = written
    shutil.copytree(root / "data", tmp_path / "data")
    key = layout.keys[6]
    (tmp_path / "data/audio" / key[:3] / f"{key}.ogg").write_bytes(b"not audio")
    spec = DataSpec(source=str(tmp_path / "data"), validation_fraction=0.4)
    with pytest.raises(ValueError, match=key):
        open_test_split(spec, open_dataset(spec), inputs=LogMel(FRONT_END))
    found = []
    for number, inputs in enumerate((LogMel(FRONT_END), Vggish())):
        files = TrialFiles(str(tmp_path / "study"), number)
        skipping = replace(spec, skips_corrupt=True)
        found.append(read_test_once(files, skipping, inputs=inputs, predict=lambda part: np.zeros(part.targets.shape)))
    assert [result["n_clips"] for result in found] == [5, 6]
    assert found[0]["clips"] != found[1]["clips"]


@INPUTS
def test_a_label_that_no_test_clip_is_annotated_for_is_refused(written, inputs):
    spec = DataSpec(source=str(written[0] / "data"), validation_fraction=0.4)
    dataset = open_dataset(spec)
    observed = dataset.observed.copy()
    observed[dataset.test, 2] = False
    with pytest.raises(ValueError, match="test split of data: no clip is annotated for voice"):
        open_test_split(spec, replace(dataset, observed=observed), inputs=inputs)
