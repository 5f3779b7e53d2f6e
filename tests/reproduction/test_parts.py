"""The parts of a reproduction that were interrupted or failed, without training anything."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
from optuna.trial import TrialState

from harness.config.study import DataSpec, Resources
from harness.evaluation.result import EvaluationResult
from harness.reproduction import run
from harness.reproduction.run import run_part, why_unfinished, with_another_try
from harness.reproduction.spec import Reproduction
from harness.study.console import StudyConsole
from harness.study.records import TrialRecord
from harness.study.storage import has_remaining_trials, open_study
from search_spaces import load
from tests.support.layouts import Layout
from tests.support.mlflow import new_store
from tracking.mlflow_store import mlflow_client

# MLflow 3.17 still uses what SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


@pytest.fixture
def reproduction(tmp_path):
    data = DataSpec(source=str(Layout(n_clips=12, n_train=6).write(tmp_path / "data")))
    settings = {"seeds": 2, "trials": 1, "epochs": 3, "backbone": "ast-nano"}
    return Reproduction("r", str(tmp_path / "studies"), data, ("none", "unet"), **settings)


def make_part(reproduction, part, state=TrialState.FAIL):
    """Make the study of a part with one trial, the paper's, which ended like this."""
    place, spec = reproduction.place_of(part), reproduction.spec(part)
    place.home.mkdir(parents=True)
    place.write_spec(spec)
    study = open_study(spec, place)
    trial = study.ask()
    for name, value in TrialRecord(reason="no memory").attributes().items():
        trial.set_user_attr(name, value)
    study.tell(trial, 0.5 if state == TrialState.COMPLETE else None, state=state)
    return place, spec


def test_a_part_that_was_interrupted_before_its_first_trial_is_unfinished(reproduction, monkeypatch):
    monkeypatch.setattr(run, "begin", lambda *_, **__: SimpleNamespace(console=StudyConsole()))
    monkeypatch.setattr(run, "run", lambda *_: SimpleNamespace(rows=[], has_remaining_trials=True))
    assert not run_part(reproduction, "unet", Resources())


def test_a_study_of_failed_trials_is_tried_again_with_the_papers_configuration(reproduction):
    place, spec = make_part(reproduction, "unet")
    for _ in range(2):  # as when the first driver was killed before it wrote the study down
        again = with_another_try(spec, place, trials=1)
        assert again.trials == 2
        study = open_study(again, place)
        assert has_remaining_trials(study, again.trials)
        assert [t.state for t in study.get_trials()] == [TrialState.FAIL, TrialState.WAITING]
    trial = study.ask()
    load("unet").suggest(trial)
    assert trial.params == load("unet").paper[0]
    assert with_another_try(again, place, trials=1) == again


def test_a_study_whose_trials_stopped_early_is_tried_again(reproduction):
    place, spec = make_part(reproduction, "unet", TrialState.PRUNED)
    assert with_another_try(spec, place, trials=8).trials == 9


def test_a_study_that_finished_or_has_not_begun_is_not_tried_again(reproduction):
    place, spec = make_part(reproduction, "unet", TrialState.COMPLETE)
    assert with_another_try(spec, place, trials=1) == spec
    assert with_another_try(spec, reproduction.place_of("none"), trials=1) == spec
    assert not why_unfinished(place)


def test_where_every_part_failed_the_report_has_its_rows_and_the_reasons(reproduction, monkeypatch, capsys):
    monkeypatch.setattr(run, "connected", lambda _: nullcontext())
    monkeypatch.setattr(run, "run_part", lambda *_: True)
    monkeypatch.setattr(run, "_log", lambda *_: None)
    for part in reproduction.parts:
        make_part(reproduction, part)
    assert run.reproduce(reproduction, Resources()) == 1
    report = (reproduction.place.home / "report.md").read_text()
    assert "| unet | AST-URP | - | - | 0.018 | - | - | 0 |" in report
    for part in reproduction.parts:
        assert f"- {part}: none of its trials has finished, so it is not evaluated; trial 0 failed: no memory" in report
    assert "the same command tries again" in capsys.readouterr().out.replace("\n", " ")


def test_the_run_that_holds_the_report_has_the_settings_of_its_studies(reproduction, tmp_path_factory):
    uri = new_store(reproduction.place.home.parent, tmp_path_factory)
    reproduction = replace(reproduction, tracking_uri=uri, precision="bf16", systems=("none", "random_forest"))
    for part in reproduction.parts:
        place, digests = reproduction.place_of(part), dict.fromkeys(("data_digest", "backbone_digest"), "d" * 64)
        place.home.mkdir()
        place.write_spec(replace(reproduction.spec(part), provenance=digests))
    run._log(reproduction, EvaluationResult("e", reproduction.place, (), (), None, (), is_interrupted=False), files=())
    client = mlflow_client(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (found,) = client.search_runs(experiments, "tags.study = 'r'")
    settings = {"precision": "bf16", "split": "random", "validation_fraction": "0.15", "epochs": "3, 1"}
    assert settings.items() <= found.data.tags.items()
