"""The test split is read once for a trial, and never without a trace."""

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from harness.config.study import DataSpec
from harness.data.batches import Split
from harness.data.dataset import ClipDataset
from harness.features.inputs import Vggish
from harness.study import heldout
from harness.study.files import TrialFiles
from harness.study.heldout import READS, RESULT, read_test_once, readings_of
from harness.training.metrics import score

LABELS = ("banjo", "cello")


class Reader:
    """A test split and a model of it, which count how often they are asked."""

    def __init__(self):
        rng = np.random.default_rng(0)
        targets = rng.random((12, 2)).astype(np.float32)
        observed = np.ones((12, 2), dtype=bool)
        self.part = Split(np.zeros((12, 4, 3), np.float16), np.arange(12), targets, observed)
        self.scores = rng.random((12, 2))
        self.dataset = ClipDataset(
            name="data",
            root=Path("data"),
            labels=LABELS,
            keys=tuple(f"{row:06}_0" for row in range(17)),
            paths=(),
            targets=np.concatenate([targets, np.zeros((5, 2), np.float32)]),
            observed=np.ones((17, 2), dtype=bool),
            train=np.arange(12, 17),
            test=np.arange(12),
            artists=None,
            vggish=None,
            digest="",
        )
        self.n_opened = 0

    def open(self, *_, **__):
        self.n_opened += 1
        return self.part

    def read(self, files, *, predict=None):
        with patch.multiple(heldout, open_dataset=lambda _: self.dataset, open_test_split=self.open):
            return read_test_once(files, DataSpec(), inputs=Vggish(), predict=predict or (lambda part: self.scores))


@pytest.fixture
def files(tmp_path):
    return TrialFiles(str(tmp_path), 7)


def test_the_figures_are_those_of_the_metrics_and_no_number_is_no_result(files):
    reader = Reader()
    with pytest.raises(ValueError, match="some are not finite"):
        reader.read(files, predict=lambda part: np.full((12, 2), np.nan))
    assert files.read(RESULT) is None
    result = reader.read(files)
    expected = score(reader.scores, reader.part.targets, observed=reader.part.observed, labels=LABELS)
    assert expected.to_record().items() <= result.items()
    assert (result["n_clips"], result["n_left_out"], result["reads"]) == (12, 0, 2)
    assert readings_of(files)[-1] == result["read_at"]


def test_the_floor_is_the_training_clips_more_frequent_answer_on_the_test_clips(files):
    reader = Reader()
    reader.part.targets[:] = np.repeat([[1, 1], [0, 0]], [3, 9], axis=0)
    reader.dataset.targets[12:, 0] = [1, 1, 0, 0, 0]
    reader.dataset.observed[14:16, 0] = False  # of those annotated, two of three are yes
    floor = reader.read(files)["floor"]
    assert floor["f1_by_label"] == pytest.approx({"banjo": 0.4 / 2, "cello": (18 / 21) / 2})
    assert floor["macro_f1"] == pytest.approx((0.2 + 9 / 21) / 2)
    assert floor["positive_f1"] == pytest.approx(0.2)
    assert floor["map"] == pytest.approx(0.25)


def test_annotated_test_clips_that_could_not_be_read_are_counted(files):
    reader = Reader()
    reader.dataset.observed[11] = False  # which no figure would have counted
    rows = np.arange(9)
    reader.part = Split(reader.part.features, rows, reader.part.targets[rows], reader.part.observed[rows])
    reader.scores = reader.scores[rows]
    result = reader.read(files)
    assert (result["n_clips"], result["n_left_out"]) == (9, 2)


def test_labels_with_one_answer_among_the_test_clips_are_stored(files):
    reader = Reader()
    reader.part.targets[:, 0], reader.part.targets[:2, 1] = 0.2, [0, 1]
    assert reader.read(files)["one_sided"] == ["banjo"]


def test_what_was_read_is_known_by_its_clips(tmp_path):
    digests = []
    for number, rows in enumerate((np.arange(12), np.arange(12, dtype=np.int32), np.arange(1, 13))):
        reader = Reader()
        reader.part = replace(reader.part, rows=rows)
        digests.append(reader.read(TrialFiles(str(tmp_path), number))["clips"])
    assert digests[0] == digests[1] != digests[2]


def test_a_second_call_returns_what_is_stored_and_opens_nothing(files):
    reader = Reader()
    first, stored = reader.read(files), files.read(RESULT)
    assert reader.read(files) == first
    assert reader.n_opened == 1
    assert files.read(RESULT) == stored
    assert len(readings_of(files)) == 1


def test_a_kill_between_reading_and_storing_shows_as_a_second_reading(files):
    reader = Reader()

    def killed(part):
        assert len(json.loads(files.read(READS))) == 1
        raise InterruptedError("killed")

    assert readings_of(files) == []
    with pytest.raises(InterruptedError, match="killed"):
        reader.read(files, predict=killed)
    assert files.read(RESULT) is None
    assert reader.read(files)["reads"] == 2
    assert len(readings_of(files)) == 2
