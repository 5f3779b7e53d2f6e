"""A checkpoint describes itself: it is all that another process needs to predict."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

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
from harness.training.checkpoint import load_checkpoint, read_header, tensors_digest
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


@pytest.fixture(scope="module")
def backbone_file(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("backbone") / "tiny.safetensors"
    save_ast(file, Ast(TINY), {})
    return str(file)


@pytest.fixture(scope="module")
def train(tmp_path_factory, backbone_file):
    """Return a function that trains a system in a session, once: its checkpoint, validation clips and last report."""
    digests = {"log_mel_digest": "f" * 64, "vggish_digest": "f" * 64}
    provenance = {**PROVENANCE, **digests, "backbone_digest": backbone_digest(load_backbone(backbone_file))}
    spec = make_spec("s", epochs=2, backbone=backbone_file, data=DataSpec(split="artist"), provenance=provenance)

    @cache
    def trained(name, assignment):
        mapper = {"mapper/kind": "many_to_one", "mapper/assignment": assignment} if assignment else {}
        paths, data = {**config_of(name).to_paths(), **mapper}, data_of(name)
        shared = tmp_path_factory.mktemp("study")
        task = TrialTask(number=3, paths=paths, study=spec, seed=5, shared=str(shared), threads=1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("harness.study.session._draw_figures", lambda *_, **__: None)
            patch.setattr("harness.study.session._data", lambda *_: data)
            *_, report = Session(task)
        return shared / "trials/003" / BEST, data.validation, report

    return trained


@pytest.fixture
def trained(train, tmp_path):
    """Return a function like `train` that gives each test a checkpoint file of its own."""

    def copied(name, assignment=None):
        file, validation, report = train(name, assignment)
        return Path(shutil.copy(file, tmp_path)), validation, report

    return copied


def rewrite(file, *, version="2", header=None, weights=None):
    """Write a checkpoint with another version, header or tensors."""
    values = json.dumps(header or asdict(read_header(file)))
    tensors = load(file.read_bytes()) if weights is None else weights
    digest = tensors_digest(tensors)
    metadata = {"checkpoint_version": version, "checkpoint_tensors_sha256": digest, "checkpoint": values}
    file.write_bytes(save(tensors, metadata))


def test_its_header_says_what_it_holds_and_where_it_comes_from(trained, backbone_file):
    file, _, report = trained("cnn")
    header = read_header(file)
    assert header.config == config_of("cnn").to_paths()
    assert header.labels == LABELS
    assert header.front_end == asdict(TINY.front_end)
    assert (header.input, header.seed, header.commit) == ("log_mel", 5, "c0ffee")
    assert header.backbone == {
        "name": backbone_file,
        "digest": backbone_digest(load_backbone(backbone_file)),
        "revision": "abc",
    }
    assert (header.data["split"], header.data["digest"], header.data["data_digest"]) == ("artist", "f" * 64, "d" * 64)
    assert (header.epoch, header.figures) == (report.best.epoch, report.best.figures)
    assert header.versions == {"torch": torch.__version__}


@pytest.mark.parametrize(
    ("name", "assignment"),
    [
        ("unet", None),
        ("cnn", "frequent"),
        ("finetune", None),
        ("cnn_baseline", None),
        ("mean_teacher", None),
        ("random_forest", None),
    ],
)
def test_a_loaded_checkpoint_scores_as_its_best_epoch_did(trained, name, assignment):
    file, validation, report = trained(name, assignment)
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


def test_the_same_backbone_may_lie_elsewhere(trained, tmp_path, backbone_file):
    file, validation, _ = trained("cnn")
    expected = load_checkpoint(file).predict(validation)
    header = asdict(read_header(file))
    rewrite(file, header={**header, "backbone": {**header["backbone"], "name": str(tmp_path / "gone.safetensors")}})
    with pytest.raises(FileNotFoundError, match="backbone"):
        load_checkpoint(file)
    found = load_checkpoint(file, backbone=backbone_file).predict(validation)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    "damage", ["cut", "a flipped bit", "another version", "no header", "a pickle", "a missing tensor"]
)
def test_a_file_that_is_no_whole_checkpoint_of_this_version_is_refused(trained, damage):
    file, _, _ = trained("cnn")
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[:-9])
    elif damage == "a flipped bit":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "another version":
        rewrite(file, version="7")
    elif damage == "no header":
        file.write_bytes(save(load(content)))
    elif damage == "a pickle":
        torch.save({"model": torch.ones(2)}, file)
    else:
        rewrite(file, weights=dict([*load(content).items()][1:]))
    with pytest.raises(ValueError, match=BEST):
        load_checkpoint(file)


def test_a_directory_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=rf"^{tmp_path}: is a directory; give the checkpoint file"):
        load_checkpoint(tmp_path)


def test_a_study_in_an_object_store_has_checkpoints_too(trained, tmp_path):
    file, validation, _ = trained("cnn")
    place = tmp_path / "study/trials/003"
    place.mkdir(parents=True)
    shutil.copy(file, place)
    content = TrialFiles(f"file://{tmp_path}/study", 3).read(BEST)
    assert np.array_equal(load_checkpoint(content).predict(validation), load_checkpoint(file).predict(validation))
