"""MLFLOW_TRACKING_URI is the default of `--tracking-uri` in every command that tracks."""

import importlib

import pytest
from typer.testing import CliRunner

COMMANDS = {
    "harness.study.__main__": ["--space", "noise"],
    "harness.reproduce": [],
    "harness.evaluate": ["study-1"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_environment_names_the_store_and_the_flag_overrides_it(command):
    app, runner = importlib.import_module(command).app, CliRunner()
    by_environment = runner.invoke(app, COMMANDS[command], env={"MLFLOW_TRACKING_URI": "mlruns"})
    assert (by_environment.exit_code != 0, "tracking-uri='mlruns'" in by_environment.output) == (True, True)
    arguments = [*COMMANDS[command], "--tracking-uri", "ftp://host"]
    by_flag = runner.invoke(app, arguments, env={"MLFLOW_TRACKING_URI": "mlruns"})
    assert "tracking-uri='ftp://host'" in by_flag.output
    assert "MLFLOW_TRACKING_URI" in runner.invoke(app, ["--help"]).output
