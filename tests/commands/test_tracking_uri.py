"""The store of a run: `--tracking-uri`, then the study's own, then MLFLOW_TRACKING_URI for what is new."""

import importlib
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from harness.common.records import read_record, write_record
from harness.config.study import StudyPlace
from harness.reproduction import run as reproduction_run
from harness.reproduction.spec import SETTINGS, Reproduction
from tests.support.evaluations import make_spec, make_study

FLAG, OWN, ENVIRONMENT = (f"http://{name}:5000" for name in ("flag", "own", "environment"))

COMMANDS = {
    "harness.study.__main__": ["--space", "noise"],
    "harness.reproduce": [],
    "harness.evaluate": ["study-1"],
}


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    """Return what runs a command with MLFLOW_TRACKING_URI, up to where its frameworks would do the work."""
    for variable, value in dict(os.environ).items():
        monkeypatch.setenv(variable, value)  # which the command changes
    given = []
    finished = SimpleNamespace(is_interrupted=False, has_failed=False)
    monkeypatch.setattr("harness.study.run.run_study", lambda spec, *_, **__: given.append(spec.tracking_uri) or 0)
    monkeypatch.setattr(
        "harness.evaluation.run.evaluate", lambda *_, tracking_uri, **__: given.append(tracking_uri) or finished
    )
    monkeypatch.setattr("harness.evaluation.report.conclude", lambda *_: None)
    monkeypatch.setattr(
        "harness.reproduction.run.reproduce",
        lambda wanted, _: given.append(reproduction_run._settle(wanted).tracking_uri) or 0,
    )

    def invoke(module, *arguments, flag=None):
        flags = ["--storage", str(tmp_path), *(["--tracking-uri", flag] if flag else [])]
        app = importlib.import_module(module).app
        done = CliRunner().invoke(app, [*arguments, *flags], env={"MLFLOW_TRACKING_URI": ENVIRONMENT})
        assert done.exit_code == 0, done.output
        return given.pop()

    return invoke


def test_a_new_study_takes_the_flag_and_else_the_environment(invoke):
    new = "harness.study.__main__", "--space", "noise", "--name", "new"
    assert (invoke(*new), invoke(*new, flag=FLAG)) == (ENVIRONMENT, FLAG)


@pytest.mark.parametrize("own", [OWN, None])
def test_a_study_that_resumes_keeps_its_store_unless_the_flag_names_another(invoke, tmp_path, own):
    place = make_study(tmp_path)
    place.write_spec(replace(place.read_spec(), tracking_uri=own))
    resumed = "harness.study.__main__", "--resume", place.home.name
    assert (invoke(*resumed), invoke(*resumed, flag=FLAG)) == (own, FLAG)


def test_an_evaluation_leaves_the_store_to_its_studies_unless_the_flag_names_another(invoke, tmp_path):
    evaluated = "harness.evaluate", make_study(tmp_path).home.name
    assert (invoke(*evaluated), invoke(*evaluated, flag=FLAG)) == (None, FLAG)


@pytest.mark.parametrize("own", [OWN, None])
def test_a_reproduction_takes_the_environment_when_it_is_new_and_keeps_its_store_from_then_on(invoke, tmp_path, own):
    (tmp_path / "r").mkdir()
    reproduce = "harness.reproduce", "--name", "r"
    assert (invoke(*reproduce), invoke(*reproduce, flag=FLAG)) == (ENVIRONMENT, FLAG)
    file = tmp_path / "r" / SETTINGS
    write_record(file, replace(read_record(Reproduction, file), tracking_uri=own))
    part = StudyPlace.of(str(tmp_path), "r.none")
    part.home.mkdir()
    part.write_spec(make_spec("r.none"))
    assert (invoke(*reproduce), invoke(*reproduce, flag=FLAG)) == (own, FLAG)


@pytest.mark.parametrize("command", ["harness.study.__main__", "harness.reproduce"])
def test_the_environment_is_checked_and_named_in_the_help(command):
    app, runner = importlib.import_module(command).app, CliRunner()
    done = runner.invoke(app, COMMANDS[command], env={"MLFLOW_TRACKING_URI": "mlruns"})
    assert (done.exit_code, "tracking-uri='mlruns'" in done.output) == (2, True)
    assert "MLFLOW_TRACKING_URI" in runner.invoke(app, ["--help"]).output


@pytest.mark.parametrize("command", COMMANDS)
def test_the_flag_overrides_the_environment_and_is_checked(command):
    arguments = [*COMMANDS[command], "--tracking-uri", "ftp://host"]
    done = CliRunner().invoke(importlib.import_module(command).app, arguments, env={"MLFLOW_TRACKING_URI": "mlruns"})
    assert (done.exit_code, "tracking-uri='ftp://host'" in done.output) == (2, True)
