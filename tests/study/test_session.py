"""A session: the reports of a trial, its files, and its independence of other trials in the process."""

from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from harness.common.records import from_json, to_json
from harness.config.literature import SYSTEMS
from harness.config.study import DataSpec
from harness.features.inputs import LogMel, Vggish
from harness.models.backbones import backbone_digest
from harness.models.backbones.ast import Ast
from harness.study import heldout
from harness.study import session as session_module
from harness.study.files import BEST, FIGURES, LAST, TrialFiles
from harness.study.records import TrialReport
from harness.study.session import Session, TrialTask
from harness.study.worker import drive
from harness.training.checkpoint import read_header
from harness.training.metrics import METRICS, Metric
from harness.training.trainer import Trainer
from tests.conftest import LABELS, TINY, make_data, make_vggish_data
from tests.support.evaluations import DIGESTS, make_spec
from tests.support.systems import config_of

EPOCHS = 3
with torch.random.fork_rng():
    torch.manual_seed(0)
    PROVENANCE = {**DIGESTS, "backbone_digest": backbone_digest(Ast(TINY)), "vggish_digest": "v" * 64}
PATHS = {"reprogrammer/kind": "cnn", "normalisation/kind": "dataset", "optimiser/lr": 1e-2}


@pytest.fixture
def on_tiny(monkeypatch, tiny_backbone):
    """Let trials run on the tiny backbone and its data, and draw no figures."""
    replace_inputs(monkeypatch, tiny_backbone)
    monkeypatch.setattr(session_module, "_draw_figures", lambda *_, **__: None)


@pytest.fixture
def test_clips(monkeypatch):
    return replace_test_clips(monkeypatch)


def replace_inputs(patch, backbone):
    patch.setattr(session_module, "_backbone", lru_cache(lambda *_: backbone))
    patch.setattr(session_module, "_data", data_of_inputs)


def replace_test_clips(patch):
    """Let the validation clips stand for the test clips; return a list of the inputs they were opened with."""
    opened = []

    def open_test_split(_spec, _dataset, *, inputs, workers):
        opened.append(inputs)
        return data_of_inputs(None, None, inputs).validation

    part = make_data(seed=0).train
    rows = np.arange(len(part))
    dataset = SimpleNamespace(labels=LABELS, targets=part.targets, observed=part.observed, train=rows, test=rows)
    patch.setattr(heldout, "open_dataset", lambda _: dataset)
    patch.setattr(heldout, "open_test_split", open_test_split)
    return opened


def data_of_inputs(_spec, _digest, inputs):
    return make_vggish_data(seed=0) if inputs == Vggish() else make_data(seed=0)


def task(tmp_path, *, number=0, seed=0, **paths):
    return TrialTask(
        number=number,
        paths={**PATHS, **paths},
        study=make_spec("s", epochs=EPOCHS, backbone="tiny", provenance=PROVENANCE),
        seed=seed,
        shared=str(tmp_path),
        threads=1,
    )


def reports(task):
    return iter(Session(task))


def figures(found):
    """Return the reports without their times."""
    return [
        replace(report, seconds=0, last=replace(report.last, seconds=0), best=replace(report.best, seconds=0))
        for report in found
    ]


def test_a_trial_reports_every_epoch_with_all_its_figures(tmp_path, on_tiny):
    found = list(reports(task(tmp_path)))
    assert [report.last.epoch for report in found] == [1, 2, 3]
    assert set(found[-1].last.f1_by_label) == {"accordion", "banjo", "bass", "cello"}
    assert found[-1].parameters == {"normalisation": 0, "reprogrammer": 20, "mapper": 64 + 33 * 4}
    assert found[-1].params == 20 + 64 + 33 * 4
    assert found[-1].best.figures["macro_f1"] == max(report.last.figures["macro_f1"] for report in found)


def test_an_added_metric_stands_in_every_record_of_a_trial(tmp_path, on_tiny, test_clips):
    METRICS.add("observed", Metric("observed share", lambda probabilities, targets, observed: observed.mean()))
    try:
        found = list(reports(replace(task(tmp_path), reads_test=True)))
    finally:
        METRICS.remove("observed")
    expected = make_data(seed=0).validation.observed.mean()
    for record in (found[-1].last, found[-1].best):
        assert record.figures["observed"] == pytest.approx(expected)
        assert record.is_constant is False
    assert found[-1].test["observed"] == pytest.approx(expected)
    assert found[-1].test["is_constant"] is False


def test_a_report_survives_the_way_through_tune_and_the_storage(tmp_path, on_tiny):
    report = next(reports(task(tmp_path)))
    result = report.to_tune()
    assert TrialReport.from_tune(result) == report
    assert (result["epoch"], result["best_macro_f1"]) == (1, report.best.figures["macro_f1"])
    assert from_json(TrialTask, to_json(task(tmp_path))) == task(tmp_path)


def test_a_second_trial_of_a_process_equals_one_of_a_fresh_process(tmp_path, on_tiny):
    alone = figures(reports(task(tmp_path / "alone", number=1, seed=4)))
    list(reports(task(tmp_path / "after", number=0, **{"training/batch_size": 16})))
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    np.random.seed(3)
    assert figures(reports(task(tmp_path / "after", number=1, seed=4))) == alone
    assert torch.get_num_threads() == 1


def test_a_diverged_trial_reports_its_reason_and_raises_nothing(tmp_path, on_tiny):
    found = list(reports(task(tmp_path, **{"optimiser/lr": 1e30})))
    assert found[-1].number == 0
    assert "DivergedError" in found[-1].reason
    assert b"DivergedError" in TrialFiles(str(tmp_path), 0).read("error.txt")


def test_a_configuration_that_does_not_fit_the_backbone_reports_why(tmp_path, on_tiny):
    paths = {"reprogrammer/kind": "unet", "reprogrammer/depth": 9}
    found = list(reports(replace(task(tmp_path), paths=paths)))
    assert len(found) == 1
    assert "reprogrammer/depth=9: each level halves" in found[0].reason


def test_a_trial_that_writes_to_the_backbone_is_found_out(tmp_path, on_tiny, tiny_backbone, monkeypatch):
    step = Trainer._train_epoch

    def vandal(self):
        with torch.no_grad():
            tiny_backbone.norm.bias += 0.0
        return step(self)

    monkeypatch.setattr(Trainer, "_train_epoch", vandal)
    # the first epoch already, since a scheduler's stop keeps what comes after the last from running
    assert "changed the frozen backbone" in next(reports(task(tmp_path))).reason


def test_a_fine_tuning_that_writes_to_the_workers_backbone_is_found_out(tmp_path, on_tiny, tiny_backbone, monkeypatch):
    # as if the copy were none
    monkeypatch.setattr("harness.models.backbones.ast.copy.deepcopy", lambda backbone: backbone)
    monkeypatch.setattr(type(tiny_backbone), "__delattr__", lambda *_: None)
    kept = {key: tensor.clone() for key, tensor in tiny_backbone.state_dict().items()}
    try:
        found = list(reports(system_task(tmp_path, "finetune")))
    finally:
        tiny_backbone.load_state_dict(kept)
        tiny_backbone.freeze()
        for parameter in tiny_backbone.parameters():
            parameter.grad = None
    assert "changed the frozen backbone" in found[0].reason


def test_sessions_in_turns_come_to_the_same_bits_as_each_alone(tmp_path, on_tiny):
    dropout = {"system/kind": "attention", "system/dropout": 0.3}
    tasks = [
        replace(task(tmp_path / "a", number=0, seed=4), paths=dropout),
        replace(task(tmp_path / "b", number=1, seed=9), paths=dropout, study=replace(task(tmp_path).study, epochs=2)),
        replace(task(tmp_path / "c", number=2), paths=config_of("mean_teacher").to_paths()),
    ]
    alone = {each.number: figures(reports(replace(each, shared=f"{each.shared}/alone"))) for each in tasks}
    found = []
    drive([Session(each) for each in tasks], found.append)
    in_turns = [replace(TrialReport.from_tune(result), worker=None) for result in found]
    assert [report.number for report in in_turns] == [0, 1, 2, 0, 1, 2, 0, 2]
    for number, expected in alone.items():
        assert figures(report for report in in_turns if report.number == number) == expected
    for each in tasks[:2]:
        one, other = (TrialFiles(each.shared + place, each.number).load(LAST) for place in ("", "/alone"))
        torch.testing.assert_close(one["trainer"]["model"], other["trainer"]["model"], rtol=0, atol=0)
        assert torch.equal(one["trainer"]["rng"], other["trainer"]["rng"])


def test_an_error_in_the_backbone_fails_the_trial_with_its_reason(tmp_path, on_tiny, tiny_backbone, monkeypatch):
    def refuse(_clips):
        raise ValueError("out of luck")

    monkeypatch.setattr(tiny_backbone, "embed", refuse)
    (found,) = reports(task(tmp_path))
    assert found.reason == "ValueError: out of luck"
    assert "out of luck" in (tmp_path / "trials/000/error.txt").read_text()


def test_a_session_that_fails_leaves_the_others_going(tmp_path, on_tiny):
    found = []
    tasks = [task(tmp_path, number=0, **{"optimiser/lr": 1e30}), task(tmp_path, number=1)]
    drive([Session(each) for each in tasks], found.append)
    assert "DivergedError" in next(result["failed"] for result in found if result["number"] == 0)
    assert [result["epoch"] for result in found if result["number"] == 1] == [1, 2, 3]


def system_task(tmp_path, name, **changes):
    return replace(task(tmp_path), paths=config_of(name).to_paths(), **changes)


@pytest.fixture(scope="module", params=SYSTEMS)
def finished(request, tmp_path_factory, tiny_backbone):
    """Run a system's trial to its reading of the test clips; return name, folder, reports and the clips opened."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        replace_inputs(patch, tiny_backbone)
        opened = replace_test_clips(patch)
        found = list(reports(system_task(folder, request.param, reads_test=True)))
    return request.param, folder, found, opened


def test_every_system_runs_to_its_last_epoch_and_leaves_its_best_weights_and_figures(finished):
    name, folder, found, _ = finished
    assert isinstance(found[-1], TrialReport)
    assert [report.last.epoch for report in found] == ([3] if name == "random_forest" else [1, 2, 3])
    assert (found[-1].params == 0) == (name == "random_forest")
    files = TrialFiles(str(folder), 0)
    there = [figure for figure in FIGURES if (files.read(figure) or b"").startswith(b"\x89PNG")]
    assert there == list(FIGURES if name in ("none", "noise", "cnn", "unet") else FIGURES[:2])
    assert read_header(files.read(BEST)).epoch == found[-1].best.epoch
    assert not list(folder.rglob("*.part"))


def test_every_system_that_was_cut_off_goes_on_from_its_last_epoch(finished, tmp_path, on_tiny):
    name, _, expected, _ = finished
    first = reports(system_task(tmp_path, name))
    head = [next(first) for _ in expected[:2]]
    rest = list(reports(system_task(tmp_path, name)))
    assert figures(rest[:1]) == figures(head[-1:])
    assert figures([*head, *rest[1:]]) == figures(replace(report, test=None) for report in expected)


def test_every_system_reads_the_test_clips_once_with_its_best_weights(finished, on_tiny, test_clips):
    name, folder, found, opened = finished
    assert [report.test is not None for report in found] == [False] * (len(found) - 1) + [True]
    assert len(opened) == 1
    (again,) = reports(system_task(folder, name, reads_test=True))
    assert again.test == found[-1].test
    assert test_clips == []
    assert set(again.test["f1_by_label"]) == set(LABELS)
    # the test clips are the validation clips here, so the best epoch's figures come again
    assert again.test["macro_f1"] == found[-1].best.figures["macro_f1"]


def test_a_trial_without_the_task_never_opens_the_test_clips(tmp_path, on_tiny, test_clips):
    list(reports(task(tmp_path)))
    assert test_clips == []


def test_a_finished_trial_without_its_test_result_does_only_that(tmp_path, on_tiny, test_clips, monkeypatch):
    list(reports(task(tmp_path)))
    monkeypatch.setattr(Trainer, "_train_epoch", None)
    (found,) = reports(replace(task(tmp_path), reads_test=True))
    assert found.test["n_clips"] == 64
    assert found.last.epoch == EPOCHS
    assert len(test_clips) == 1


def test_a_trial_whose_best_weights_are_gone_reads_no_test_clips(tmp_path, on_tiny, test_clips):
    list(reports(task(tmp_path)))
    (tmp_path / "trials/000" / BEST).unlink()
    (found,) = reports(replace(task(tmp_path), reads_test=True))
    assert "best.safetensors: does not exist" in found.reason
    assert test_clips == []


def test_a_system_that_takes_vggish_loads_no_backbone(tmp_path, on_tiny, monkeypatch):
    monkeypatch.setattr(session_module, "_backbone", None)  # calling it would fail the trial
    asked = []
    monkeypatch.setattr(session_module, "_data", lambda *key: (asked.append(key), data_of_inputs(*key))[1])
    found = list(reports(system_task(tmp_path, "random_forest")))
    assert isinstance(found[-1], TrialReport)
    assert [inputs for _, _, inputs in asked] == [Vggish()]


def test_a_trial_takes_the_backbones_front_end_with_its_own_two_values(tmp_path, on_tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(session_module, "_data", lambda *key: (asked.append(key), data_of_inputs(*key))[1])
    list(reports(task(tmp_path, number=0)))
    list(reports(task(tmp_path, number=1, **{"front_end/via_hz": 22050, "front_end/is_peak_normalised": True})))
    plain = TINY.front_end
    assert [key[2] for key in asked] == [LogMel(plain), LogMel(replace(plain, via_hz=22050, is_peak_normalised=True))]


def test_a_process_keeps_the_data_of_several_front_ends(monkeypatch):
    opened = []
    monkeypatch.setattr(session_module, "open_dataset", lambda _: None)
    monkeypatch.setattr(
        session_module,
        "open_study_data",
        lambda _spec, _dataset, *, inputs, workers: (opened.append(inputs), make_data(seed=0))[1],
    )
    ends = [Vggish(), LogMel(TINY.front_end), LogMel(replace(TINY.front_end, via_hz=22050))]
    kept = session_module._data
    kept.cache_clear()
    try:
        for inputs in ends * 3:
            kept(DataSpec(), "", inputs)
        assert opened == ends
        with pytest.raises(ValueError, match="this node has , the study began with 0123"):
            kept(DataSpec(), "0123", Vggish())
    finally:
        kept.cache_clear()
