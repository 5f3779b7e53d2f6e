"""The test clips come through one door, whole, and through no other."""

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
HEARD = pytest.mark.parametrize("inputs", [LogMel(FRONT_END), Vggish()], ids=["log-mel", "vggish"])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPROGRAMMING_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def layout(tmp_path):
    """Clips whose test rows do not come last, of which two test clips carry no annotation."""
    layout = Layout(n_clips=24, n_train=16)
    layout.test, layout.train = layout.keys[0::3], sorted({*layout.keys} - {*layout.keys[0::3]})
    layout.observed[:] = True
    layout.observed[[3, 21]] = False
    layout.write(tmp_path / "data")
    for row, key in enumerate(layout.keys):
        write_tone(tmp_path / "data/audio" / key[:3] / f"{key}.ogg", hertz=300 + 50 * row)
    return layout


def open_parts(root, inputs, **options):
    spec = DataSpec(source=str(root), validation_fraction=0.4, **options)
    dataset = open_dataset(spec)
    data = open_study_data(spec, dataset, inputs=inputs)
    return dataset, data, open_test_split(spec, dataset, inputs=inputs)


@HEARD
def test_the_part_holds_exactly_the_official_test_clips_that_are_annotated(tmp_path, layout, inputs):
    dataset, _, test = open_parts(tmp_path / "data", inputs)
    assert [dataset.keys[row] for row in test.rows] == [layout.keys[row] for row in (0, 6, 9, 12, 15, 18)]
    assert np.array_equal(test.targets, layout.targets[test.rows].astype(np.float32))
    assert test.observed.all()


@HEARD
def test_no_test_clip_is_among_those_that_a_study_sees(tmp_path, layout, inputs):
    dataset, data, test = open_parts(tmp_path / "data", inputs)
    seen = {*data.train.rows, *data.validation.rows}
    assert seen == {*dataset.train}
    assert seen.isdisjoint(test.rows)
    assert seen.isdisjoint(dataset.test)


@HEARD
def test_a_test_clip_sounds_as_it_would_in_a_study(tmp_path, layout, inputs):
    dataset, data, test = open_parts(tmp_path / "data", inputs)
    batch, targets, observed = test.batch(np.arange(len(test)), torch.device("cpu"))
    assert (batch.dtype, targets.dtype, observed.dtype) == (torch.float32, torch.float32, torch.bool)
    assert np.array_equal(test.features[test.rows], data.train.features[test.rows])
    if inputs == Vggish():
        assert np.array_equal(batch.numpy(), read_vggish(dataset)[test.rows])


def test_a_prepared_store_serves_the_test_clips_too(tmp_path, layout, monkeypatch):
    spec = DataSpec(source=str(tmp_path / "data"), validation_fraction=0.4)
    dataset = open_dataset(spec)
    open_study_data(spec, dataset, inputs=LogMel(FRONT_END))
    monkeypatch.setattr(extract_module, "_computed", lambda *_: pytest.fail("computed again"))
    assert len(open_test_split(spec, dataset, inputs=LogMel(FRONT_END))) == 6


def test_an_unreadable_test_clip_is_left_out_on_demand(tmp_path, layout):
    key = layout.keys[6]
    (tmp_path / "data/audio" / key[:3] / f"{key}.ogg").write_bytes(b"not audio")
    spec = DataSpec(source=str(tmp_path / "data"), validation_fraction=0.4)
    with pytest.raises(ValueError, match=key):
        open_test_split(spec, open_dataset(spec), inputs=LogMel(FRONT_END))
    _, _, test = open_parts(tmp_path / "data", LogMel(FRONT_END), skips_corrupt=True)
    assert test.rows.tolist() == [0, 9, 12, 15, 18]


def test_a_reading_tells_the_clips_of_vggish_from_those_of_log_mel_where_audio_is_unreadable(tmp_path, layout):
    key = layout.keys[6]
    (tmp_path / "data/audio" / key[:3] / f"{key}.ogg").write_bytes(b"not audio")
    found = []
    for number, inputs in enumerate((LogMel(FRONT_END), Vggish())):
        dataset, _, test = open_parts(tmp_path / "data", inputs, skips_corrupt=True)
        found.append(
            read_test_once(
                TrialFiles(str(tmp_path / "study"), number),
                dataset,
                inputs=inputs.name,
                predict=lambda part: np.zeros(part.targets.shape),
                open_split=lambda test=test: test,
            )
        )
    assert [result["n_clips"] for result in found] == [5, 6]
    assert found[0]["clips"] != found[1]["clips"]


@HEARD
def test_a_label_that_no_test_clip_is_annotated_for_is_refused(tmp_path, layout, inputs):
    spec = DataSpec(source=str(tmp_path / "data"), validation_fraction=0.4)
    dataset = open_dataset(spec)
    observed = dataset.observed.copy()
    observed[dataset.test, 2] = False
    with pytest.raises(ValueError, match="test split of data: no clip is annotated for voice"):
        open_test_split(spec, replace(dataset, observed=observed), inputs=inputs)
