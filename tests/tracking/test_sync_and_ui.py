"""The two commands, on stores that are there, moved, or missing."""

import logging
import os
import shutil
import socket

import pytest
import typer
from typer.testing import CliRunner

from tests.support.mlflow import EXPERIMENT, add_study, experiment, free_port, new_store, open_outbox, runs, track_study
from tracking import sync, ui, views
from tracking.uris import default_uri


def invoke(module, *arguments):
    app = typer.Typer()
    app.command()(module.main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def served(monkeypatch):
    """Return the working directory, command and environment with which `tracking.ui` becomes the server."""
    calls = []
    monkeypatch.setattr(os, "execve", lambda _, command, environment: calls.append((os.getcwd(), command, environment)))  # noqa: PTH109
    monkeypatch.chdir(".")  # to come back after the test
    return calls


def test_the_ui_prints_the_links_of_the_port_that_it_serves(finished, tmp_path, served):
    port = free_port()
    done = invoke(ui, tmp_path / "study", "--port", port)
    assert done.exit_code == 0, done.output
    for view, title in views.TITLES.items():
        assert f"{title:24}http://127.0.0.1:{port}/#/experiments/1/" in done.output
        assert f"viewStateShareKey={view}" in done.output
    ((directory, command, environment),) = served
    assert directory == str(tmp_path)
    assert (
        " ".join(command[1:]) == f"-m mlflow server --workers 1 --backend-store-uri sqlite:///mlflow.db --port {port}"
    )
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


@pytest.mark.parametrize("module", [ui, sync])
def test_a_moved_study_is_served_and_delivered_from_its_new_place(module, original, tmp_path, served):
    shutil.copytree(original, tmp_path / "new")
    assert invoke(module, tmp_path / "new" / "study").exit_code == 0
    assert [directory for directory, *_ in served] == ([str(tmp_path / "new")] if module is ui else [])
    assert os.listdir(tmp_path) == ["new"]  # noqa: PTH208
    assert len(runs(default_uri(tmp_path / "new"))) == 2


@pytest.mark.parametrize("module", [ui, sync])
def test_a_missing_store_is_named_and_never_created(module, tmp_path, tmp_path_factory, served):
    """The store lies elsewhere: its path is absolute, and it has moved."""
    uri = new_store(tmp_path / "elsewhere", tmp_path_factory)
    track_study(tmp_path / "studies" / "study", uri, trials=1)
    shutil.move(tmp_path / "elsewhere", tmp_path / "new")
    refused = invoke(module, tmp_path / "studies" / "study")
    assert refused.exit_code == 2
    assert all(part in refused.output for part in (str(tmp_path / "elsewhere"), "--tracking-uri", "--create"))
    assert "all delivered" not in refused.output
    assert sorted(os.listdir(tmp_path)) == ["new", "studies"]  # noqa: PTH208
    given = [tmp_path / "studies" / "study", "--tracking-uri", default_uri(tmp_path / "new")]
    assert invoke(module, *given).exit_code == 0
    assert len(served) == (module is ui)


def test_sync_creates_a_store_when_it_is_asked_to_quietly_and_without_touching_handlers(original, tmp_path, capfd):
    shutil.copytree(original, tmp_path / "new?")
    (tmp_path / "new?" / "mlflow.db").unlink()
    uri = default_uri(tmp_path / "new?")
    root_handlers = list(logging.getLogger().handlers)
    done = invoke(sync, tmp_path / "new?" / "study", "--create")
    assert done.exit_code == 0, done.output
    assert len(runs(uri)) == 2
    assert experiment(uri).artifact_location == (tmp_path / "new?/artifacts/reprogramming-demo-ast-nano").as_uri()
    assert logging.getLogger().handlers == root_handlers
    assert "".join(capfd.readouterr()) == ""
    assert os.listdir(tmp_path) == ["new?"]  # noqa: PTH208


def test_sync_delivers_to_a_second_store_and_leaves_the_first_in_charge(finished, tmp_path, tmp_path_factory):
    second = new_store(tmp_path / "second", tmp_path_factory)
    state = (tmp_path / "study" / "outbox.json").read_text()
    for _ in range(2):
        done = invoke(sync, tmp_path / "study", "--tracking-uri", second)
        assert (done.exit_code, len(runs(second))) == (0, 2), done.output
    assert (tmp_path / "study" / "outbox.json").read_text() == state


@pytest.mark.parametrize("module", [ui, sync])
def test_a_directory_without_an_outbox_is_refused(module, tmp_path):
    refused = invoke(module, tmp_path)
    assert refused.exit_code == 2
    assert "no outbox" in refused.output


def test_the_ui_refuses_a_port_in_use_and_an_experiment_that_is_not_there(uri, tmp_path, served):
    open_outbox(tmp_path / "study", uri).close()
    nothing = invoke(ui, tmp_path / "study", "--port", free_port())
    assert (nothing.exit_code, "no such experiment" in nothing.output, EXPERIMENT in nothing.output) == (2, True, True)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        taken = invoke(ui, tmp_path / "study", "--port", port)
    assert (taken.exit_code, f"port={port}" in taken.output, served) == (2, True, [])


def test_a_study_without_a_server_ends_soon_and_its_command_delivers_later(tmp_path, tmp_path_factory):
    dead = f"http://127.0.0.1:{free_port()}"
    outbox = open_outbox(tmp_path / "study", dead)
    add_study(outbox)
    assert f"python -m tracking.sync {tmp_path / 'study'}" in outbox.close(timeout_s=20)
    assert outbox.left() > 10
    failed = invoke(sync, tmp_path / "study", "--patience", "0")
    assert (failed.exit_code, "records are left" in failed.output) == (1, True)
    silent = invoke(ui, tmp_path / "study")
    assert (silent.exit_code, "does not answer" in silent.output) == (2, True)
    later = new_store(tmp_path / "later", tmp_path_factory)
    assert invoke(sync, tmp_path / "study", "--tracking-uri", later).exit_code == 0
    assert len(runs(later)) == 2


@pytest.mark.parametrize("experiment_id", [None, "7"])
def test_the_printed_url_is_the_one_that_serves(experiment_id, tmp_path):
    """A server that was never reached has no experiment id; its own address is printed all the same."""
    (link,) = ui.ui_lines(tmp_path / "study", "http://head:5999", experiment_id, view=views.SIZE)
    assert link.startswith("http://head:5999")
    assert ("/#/experiments/7/" in link) == (experiment_id is not None)
    command, then = ui.ui_lines(tmp_path / "study", "sqlite:////data/mlflow.db", experiment_id)
    assert command == f"python -m tracking.ui {tmp_path / 'study'}"
    assert then.startswith(f"then open http://127.0.0.1:{ui.DEFAULT_PORT}")
