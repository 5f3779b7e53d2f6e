"""A trial on a worker: what it reports, what it keeps, and what it does not carry over to the next."""

import json
from dataclasses import asdict, replace
from functools import lru_cache

import numpy as np
import pytest
import torch

from harness import trial as trial_module
from harness.trial import TrialTask, reports
from harness.trial_files import BEST, LAST, TrialFiles
from tests.conftest import make_data

EPOCHS = 3
PATHS = {"reprogrammer/kind": "cnn", "normalisation/kind": "dataset", "optimiser/lr": 1e-2}


@pytest.fixture
def on_tiny(monkeypatch, tiny_backbone):
    """Let trials run on the tiny backbone and its data; the loading of both is tested elsewhere."""
    monkeypatch.setattr(trial_module, "_backbone", lru_cache(lambda *_: tiny_backbone))
    monkeypatch.setattr(trial_module, "_data", lambda *_: make_data(seed=0))


def task(tmp_path, *, number=0, seed=0, **paths):
    return TrialTask(
        number=number,
        paths={**PATHS, **paths},
        epochs=EPOCHS,
        seed=seed,
        backbone="tiny",
        backbone_digest="",
        data={},
        data_digest="",
        precision="fp32",
        shared=str(tmp_path),
        threads=1,
    )


def figures(found):
    """Return all that a trial reports but the times."""
    plain = []
    for report in found:
        detail = json.loads(report["detail"])
        for part in ("last", "best"):
            del detail[part]["seconds"]
        plain.append({**report, "seconds": 0, "detail": detail})
    return plain


def test_a_trial_reports_every_epoch_with_all_its_figures(tmp_path, on_tiny):
    found = list(reports(task(tmp_path)))
    assert [report["epoch"] for report in found] == [1, 2, 3]
    detail = json.loads(found[-1]["detail"])
    assert set(detail["last"]["f1_by_label"]) == {"accordion", "banjo", "bass", "cello"}
    assert detail["parameters"] == {"normalisation": 0, "reprogrammer": 20, "mapper": 64 + 33 * 4}
    assert found[-1]["params"] == 20 + 64 + 33 * 4
    assert found[-1]["best_macro_f1"] == max(json.loads(r["detail"])["last"]["macro_f1"] for r in found)


def test_a_trial_leaves_its_best_state_and_figures_to_look_at(tmp_path, on_tiny):
    found = list(reports(task(tmp_path)))
    files = TrialFiles(str(tmp_path), 0)
    best = files.load(BEST)
    assert best["epoch"] == json.loads(found[-1]["detail"])["best"]["epoch"]
    assert files.load(LAST)["trainer"]["epoch"] == EPOCHS
    for name in ("f1_by_label.png", "learning_curves.png", "input_change.png"):
        assert files.read(name).startswith(b"\x89PNG")
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_trial_that_was_cut_off_goes_on_from_its_last_epoch(tmp_path, on_tiny, done):
    expected = figures(reports(task(tmp_path / "whole")))
    first = reports(task(tmp_path / "cut"))
    head = [next(first) for _ in range(done)]
    first.close()
    rest = list(reports(task(tmp_path / "cut")))
    assert figures(rest[:1]) == figures(head[-1:])
    assert figures([*head, *rest[1:]]) == expected


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
    assert found[-1]["number"] == 0
    assert "DivergedError" in found[-1]["failed"]
    assert b"DivergedError" in TrialFiles(str(tmp_path), 0).read("error.txt")


def test_a_configuration_that_does_not_fit_the_backbone_reports_why(tmp_path, on_tiny):
    paths = {"reprogrammer/kind": "unet", "reprogrammer/depth": 9}
    found = list(reports(replace(task(tmp_path), paths=paths)))
    assert len(found) == 1
    assert "reprogrammer/depth=9: each level halves" in found[0]["failed"]


def test_a_trial_that_writes_to_the_backbone_is_found_out(tmp_path, on_tiny, tiny_backbone, monkeypatch):
    step = trial_module.Trainer._train_epoch

    def vandal(self):
        with torch.no_grad():
            tiny_backbone.norm.bias += 0.0
        return step(self)

    monkeypatch.setattr(trial_module.Trainer, "_train_epoch", vandal)
    # the first epoch already, since a scheduler's stop keeps what comes after the last from running
    assert "changed the frozen backbone" in next(reports(task(tmp_path)))["failed"]


def test_a_task_survives_the_way_to_the_worker(tmp_path):
    sent = task(tmp_path)
    assert asdict(TrialTask.from_json(sent.to_json())) == asdict(sent)


class TestFiles:
    def test_a_file_that_is_not_there_is_none(self, tmp_path):
        assert TrialFiles(str(tmp_path), 3).load(LAST) is None

    def test_a_half_written_file_is_never_seen(self, tmp_path):
        files = TrialFiles(str(tmp_path), 3)
        files.save(LAST, {"epoch": 1})
        (tmp_path / "trials/003/last.pt.part").write_bytes(b"half")
        assert files.load(LAST) == {"epoch": 1}
        files.save(LAST, {"epoch": 2})
        assert files.load(LAST) == {"epoch": 2}

    def test_a_uri_is_read_and_written_like_a_directory(self, tmp_path):
        files = TrialFiles(f"file://{tmp_path}/bucket", 1)
        files.save(BEST, {"weights": torch.ones(2)})
        assert torch.equal(files.load(BEST)["weights"], torch.ones(2))
