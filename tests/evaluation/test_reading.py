"""Unreadable test clips, which a study of a fraction never met: from the flag to the figures."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState
from typer.testing import CliRunner

from harness import evaluate as command
from harness.config.study import DataSpec, StudyPlace
from harness.config.trial import TrialConfig
from harness.evaluation import run as evaluation_run
from harness.evaluation.plan import evaluation_plan, read_runs
from harness.evaluation.request import Request
from harness.evaluation.run import evaluate
from harness.features.inputs import LogMel
from harness.models.backbones.ast import Ast
from harness.models.backbones.checkpoints import save_ast
from harness.study.console import StudyConsole
from harness.study.files import TrialFiles
from harness.study.heldout import read_test_once
from harness.study.prepare import prepare_for
from harness.study.records import TrialRecord
from harness.study.sources import open_dataset
from harness.study.storage import open_storage
from tests.conftest import TINY
from tests.support.evaluations import make_spec, make_study
from tests.support.layouts import Layout, write_tone
from tests.support.records import make_report


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Return a folder with a study of half of the clips, its data and its cache."""
    folder = tmp_path_factory.mktemp("reading")
    torch.manual_seed(0)
    save_ast(folder / "tiny.safetensors", Ast(TINY), {})
    layout, root = Layout(n_clips=24, n_train=16), folder / "data"
    layout.write(root)
    for row, key in enumerate(layout.keys):
        write_tone(root / f"audio/{key[:3]}/{key}.ogg", hertz=200 * (row + 1))
    data = DataSpec(source=str(root), validation_fraction=0.4, fraction=0.5)
    spec = make_spec("s", backbone=str(folder / "tiny.safetensors"), data=data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPROGRAMMING_CACHE", str(folder / "cache"))
        place = make_study(folder)
        spec = prepare_for(spec, place, [TrialConfig()], console=StudyConsole()).spec
    place.write_spec(spec)
    return folder


@pytest.fixture
def study(prepared, tmp_path, monkeypatch):
    """Return the place of a copy of the study, one of whose test clips is damaged."""
    monkeypatch.setenv("REPROGRAMMING_CACHE", str(prepared / "cache"))
    for name in ("data", "s"):
        shutil.copytree(prepared / name, tmp_path / name)
    place = StudyPlace.of(str(tmp_path), "s")
    spec = place.read_spec()
    data = replace(spec.data, source=str(tmp_path / "data"))
    place.write_spec(replace(spec, data=data))
    dataset = open_dataset(data)
    dataset.paths[dataset.test[2]].write_bytes(b"not sound")
    return place


@pytest.fixture
def unrun(monkeypatch):
    """Prepare and write an evaluation without its runs, and without tracking."""
    tracker = SimpleNamespace(close=lambda **_: "", ui_lines=list)
    monkeypatch.setattr(evaluation_run, "Tracker", lambda *_, **__: tracker)
    monkeypatch.setattr(evaluation_run, "has_remaining_trials", lambda *_: False)


def evaluated(place, **flags):
    return evaluate(Request((place,), seeds=2, systems=("unet",), **flags), console=StudyConsole())


def copy_study(study, place, **changes):
    """Copy a study with its trials under another name."""
    shutil.copytree(study.home, place.home)
    name = place.home.name
    storages = {"from_storage": open_storage(study.home), "to_storage": open_storage(place.home)}
    optuna.copy_study(from_study_name="s", to_study_name=name, **storages)
    place.write_spec(replace(study.read_spec(), name=name, **changes))
    return place


def read(terms, place, *, number):
    """Return the figures of a run that has read the test split; they are in Optuna's trial of that number too."""
    files, inputs = TrialFiles(place.shared, number), LogMel(TINY.front_end)
    found = read_test_once(files, terms, inputs=inputs, predict=lambda part: np.zeros(part.targets.shape))
    attributes = TrialRecord(report=make_report(number, 3, found["macro_f1"], test=found)).attributes()
    trial = optuna.trial.create_trial(state=TrialState.COMPLETE, value=0.5, user_attrs=attributes)
    optuna.load_study(study_name=place.home.name, storage=open_storage(place.home)).add_trial(trial)
    return found


@pytest.mark.parametrize("words", [[], ["--skip-corrupt"]])
def test_the_command_passes_the_flag_on(study, monkeypatch, words):
    requests = []

    def refuse(request, **_):
        requests.append(request)
        raise ValueError("enough")

    monkeypatch.setattr(evaluation_run, "evaluate", refuse)
    monkeypatch.setattr("harness.common.cli.prepare_environment", lambda **_: None)
    done = CliRunner().invoke(command.app, ["s", *words, "--storage", str(study.home.parent)])
    assert done.exit_code == 2
    assert [request.skips_corrupt for request in requests] == [bool(words)]


def test_a_request_without_a_study_of_the_evaluation_is_refused(study, unrun, tmp_path):
    other = copy_study(study, StudyPlace.of(str(tmp_path), "t"))
    evaluate(Request((study, other), systems=("unet",), skips_corrupt=True, name="both"), console=StudyConsole())
    with pytest.raises(ValueError, match="name=both: this evaluation also holds t"):
        evaluate(Request((study,), systems=("unet",), skips_corrupt=True, name="both"), console=StudyConsole())


def test_a_name_that_no_study_can_have_is_refused_and_makes_no_folder(study, unrun):
    with pytest.raises(ValueError, match="name='a/b': letters, digits"):
        evaluated(study, name="a/b")
    assert not (study.home.parent / "a").exists()


def test_the_flag_decides_once_whether_the_runs_leave_out_an_unreadable_test_clip(study, unrun):
    with pytest.raises(ValueError, match=r"1 of 8 clips cannot be read: .* with --skip-corrupt"):
        evaluated(study)
    assert not (study.home.parent / "s.evaluation").exists()
    result = evaluated(study, skips_corrupt=True)
    terms = evaluation_plan(read_runs(result.place.home)).trial(0).spec.data
    assert terms == replace(study.read_spec().data, skips_corrupt=True)
    found = read(terms, result.place, number=0)
    assert (found["n_clips"], found["n_left_out"]) == (7, 1)
    with pytest.raises(ValueError, match="skip-corrupt: the evaluation of study s began with it"):
        evaluated(study)
    assert study.read_spec().data.skips_corrupt is False


def test_other_sound_in_test_clips_than_earlier_runs_were_tested_on_is_refused(study, unrun):
    """A study of a fraction has no digest of the test clips: only those runs have."""
    place = evaluated(study, skips_corrupt=True).place
    terms = evaluation_plan(read_runs(place.home)).trial(0).spec.data
    found = [read(terms, place, number=0)]
    evaluated(study, skips_corrupt=True)
    dataset = open_dataset(terms)
    one, other = (dataset.paths[dataset.test[i]] for i in (0, 1))
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    with pytest.raises(ValueError, match=r"name=s.evaluation: the test clips are not what 1 of its 1 runs were tested"):
        evaluated(study, skips_corrupt=True)
    evaluated(study, skips_corrupt=True, name="another")
    one.write_bytes(kept)
    found.append(read(terms, place, number=1))
    assert found[0]["log_mel_digest"] == found[1]["log_mel_digest"]
    evaluated(study, skips_corrupt=True)


def test_runs_are_held_to_the_test_clips_of_their_own_study(study, unrun, tmp_path):
    """Two copies of a data set, one of them denoised, have the same tables and other audio."""
    spec = study.read_spec()
    copy = tmp_path / "denoised"
    shutil.copytree(spec.data.source, copy)
    data = replace(spec.data, source=str(copy))
    dataset = open_dataset(data)
    one, other = (dataset.paths[dataset.test[i]] for i in (0, 1))
    one.write_bytes(other.read_bytes())
    place = copy_study(study, StudyPlace.of(str(tmp_path), "t"), data=data)
    request = Request((study, place), seeds=1, systems=("unet",), skips_corrupt=True)
    found = evaluate(request, console=StudyConsole())
    plan = evaluation_plan(read_runs(found.place.home))
    digests = {read(plan.trial(number).spec.data, found.place, number=number)["log_mel_digest"] for number in (0, 1)}
    assert len(digests) == 2
    evaluate(replace(request, seeds=2), console=StudyConsole())
