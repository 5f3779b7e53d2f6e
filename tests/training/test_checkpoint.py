"""A checkpoint describes itself: it is all that another process needs to predict."""

import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from harness.config.study import DataSpec
from harness.models.backbones import backbone_digest, load_backbone
from harness.models.backbones.ast import Ast
from harness.models.backbones.checkpoints import save_ast
from harness.study.files import BEST, TrialFiles
from harness.study.session import Session, TrialTask
from harness.training.checkpoint import load_checkpoint, read_header
from harness.training.metrics import score
from tests.conftest import LABELS, TINY
from tests.support.evaluations import make_spec
from tests.support.systems import config_of, data_of

PROVENANCE = {
    "backbone_revision": "abc",
    "data_digest": "d" * 64,
    "git_commit": "c0ffee",
    "version/torch": torch.__version__,
}


@pytest.fixture
def trained(tmp_path, tiny_file, monkeypatch):
    """Return a function that trains a system in a session: its checkpoint file and its validation clips."""
    monkeypatch.setattr("harness.study.session._draw_figures", lambda *_, **__: None)

    def train(name, **paths):
        data = data_of(name)
        monkeypatch.setattr("harness.study.session._data", lambda *_: data)
        backbone = load_backbone(tiny_file)
        digests = {"log_mel_digest": "f" * 64, "vggish_digest": "f" * 64}
        task = TrialTask(
            number=3,
            paths={**config_of(name).to_paths(), **paths},
            study=make_spec(
                "s",
                epochs=2,
                backbone=tiny_file,
                data=DataSpec(split="artist"),
                provenance={**PROVENANCE, **digests, "backbone_digest": backbone_digest(backbone)},
            ),
            seed=5,
            shared=str(tmp_path / "study"),
            threads=1,
        )
        reports = list(Session(task))
        return tmp_path / "study/trials/003" / BEST, data.validation, reports[-1]

    return train


def change(file, **changes):
    """Write a checkpoint with another header or other tensors."""
    header = {**asdict(read_header(file)), **changes.pop("header", {})}
    tensors = load(file.read_bytes())
    metadata = {"checkpoint_version": changes.pop("version", "1"), "checkpoint": json.dumps(header)}
    file.write_bytes(save({**tensors, **changes}, metadata=metadata))


def test_its_header_says_what_it_holds_and_where_it_comes_from(trained, tiny_file):
    file, _, report = trained("cnn")
    header = read_header(file)
    assert header.config == config_of("cnn").to_paths()
    assert header.labels == LABELS
    assert header.front_end == asdict(TINY.front_end)
    assert (header.input, header.seed, header.commit) == ("log_mel", 5, "c0ffee")
    assert header.backbone == {
        "name": tiny_file,
        "digest": backbone_digest(load_backbone(tiny_file)),
        "revision": "abc",
    }
    assert (header.data["split"], header.data["digest"], header.data["data_digest"]) == ("artist", "f" * 64, "d" * 64)
    assert (header.epoch, header.figures) == (report.best.epoch, report.best.figures)
    assert header.versions == {"torch": torch.__version__}


@pytest.mark.parametrize("name", ["unet", "noise", "finetune", "cnn_baseline", "mean_teacher", "random_forest"])
def test_a_loaded_checkpoint_scores_as_its_best_epoch_did(trained, name):
    file, validation, report = trained(name)
    loaded = load_checkpoint(file)
    found = loaded.predict(validation)
    scores = score(found, validation.targets, observed=validation.observed, labels=LABELS)
    assert scores.figures == report.best.figures


def test_a_measured_label_mapping_comes_from_the_file(trained):
    paths = {"mapper/kind": "many_to_one", "mapper/assignment": "frequent"}
    file, validation, report = trained("cnn", **paths)
    found = load_checkpoint(file).predict(validation)
    scores = score(found, validation.targets, observed=validation.observed, labels=LABELS)
    assert scores.figures == report.best.figures


@pytest.mark.drill
@pytest.mark.parametrize("name", ["unet", "random_forest"])
def test_a_fresh_process_predicts_the_same_probabilities(trained, tmp_path, name):
    file, validation, _ = trained(name)
    moved = file.rename(tmp_path / "alone.safetensors")
    features = np.asarray(validation.features)
    np.savez(tmp_path / "clips.npz", features, validation.rows, validation.targets, validation.observed)
    script = f"""
import numpy as np
from pathlib import Path
from harness.data.batches import Split
from harness.training.checkpoint import load_checkpoint
part = Split(*np.load({str(tmp_path / "clips.npz")!r}).values())
np.save({str(tmp_path / "found.npy")!r}, load_checkpoint(Path({str(moved)!r})).predict(part))
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
    assert np.array_equal(np.load(tmp_path / "found.npy"), load_checkpoint(moved).predict(validation))


def test_another_backbone_is_refused_by_its_digest(trained, tmp_path):
    file, _, _ = trained("cnn")
    torch.manual_seed(1)
    save_ast(tmp_path / "other.safetensors", Ast(TINY), {})
    with pytest.raises(ValueError, match=r"backbone=.*trained with"):
        load_checkpoint(file, backbone=str(tmp_path / "other.safetensors"))


def test_the_same_backbone_may_lie_elsewhere(trained, tmp_path, tiny_file):
    file, validation, _ = trained("cnn")
    expected = load_checkpoint(file).predict(validation)
    (tmp_path / "tiny.safetensors").rename(tmp_path / "moved.safetensors")
    with pytest.raises(FileNotFoundError, match="backbone"):
        load_checkpoint(file)
    found = load_checkpoint(file, backbone=str(tmp_path / "moved.safetensors")).predict(validation)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("damage", ["cut", "another version", "no header", "a pickle", "a missing tensor"])
def test_a_file_that_is_no_whole_checkpoint_of_this_version_is_refused(trained, damage):
    file, _, _ = trained("cnn")
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[:-9])
    elif damage == "another version":
        change(file, version="7")
    elif damage == "no header":
        file.write_bytes(save(load(content)))
    elif damage == "a pickle":
        torch.save({"model": torch.ones(2)}, file)
    else:
        header = read_header(file)
        weights = load(content)
        weights.popitem()
        file.write_bytes(save(weights, {"checkpoint_version": "1", "checkpoint": json.dumps(asdict(header))}))
    with pytest.raises(ValueError, match=BEST):
        load_checkpoint(file)


def test_a_study_in_an_object_store_has_checkpoints_too(trained, tmp_path):
    file, validation, _ = trained("cnn")
    content = TrialFiles(f"file://{tmp_path}/study", 3).read(BEST)
    assert np.array_equal(load_checkpoint(content).predict(validation), load_checkpoint(file).predict(validation))
