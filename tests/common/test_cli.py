"""Exit codes, messages and streams that the commands share, and flags that are refused before anything heavy loads."""

import io
import os
import resource
import signal
import socket
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from harness import evaluate, reproduce
from harness.common import cli
from harness.common.cli import check_storage, configure_logging, report_errors
from harness.study import __main__ as study

STUDY, EVALUATE, REPRODUCE = study.app, evaluate.app, reproduce.app


@pytest.fixture(autouse=True)
def _signals_and_environment(monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def closed_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


REFUSED = [
    (STUDY, ["--space", "vae"], "space", "vae"),
    (STUDY, ["--space", "unet", "--fix", "reprogrammer/deep=3"], "fix", "reprogrammer/deep"),
    (STUDY, ["--space", "unet", "--fix", "reprogrammer/depth=9"], "fix", "reprogrammer/depth=9"),
    (STUDY, ["--space", "all", "--objective", "f1,params"], "objective", "random_forest"),
    (STUDY, ["--space", "unet", "--data", "no/such"], "data", "no/such"),
    (STUDY, ["--space", "unet", "--storage", "a_file/x"], "storage", "a_file"),
    (STUDY, ["--space", "unet", "--cpus-per-trial", "9999"], "cpus-per-trial", "9999"),
    (STUDY, ["--resume", "none-such"], "resume", "none-such"),
    (EVALUATE, ["none-such"], "study", "none-such"),
    (EVALUATE, ["none-such", "--by", "test_f1"], "by", "test_f1"),
    (REPRODUCE, ["--data", "no/such"], "data", "no/such"),
    (REPRODUCE, ["--systems", "gan"], "systems", "gan"),
    (REPRODUCE, ["--storage", "a_file/x"], "storage", "a_file"),
]


@pytest.mark.parametrize(("app", "arguments", "flag", "value"), REFUSED)
def test_a_refused_command_names_flag_and_value_and_changes_nothing(tmp_path, monkeypatch, app, arguments, flag, value):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").write_text("")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == cli.EXIT_REFUSED
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert f"{flag}=" in line
    assert value in line
    assert [path.name for path in tmp_path.iterdir()] == ["a_file"]


def test_an_address_at_which_nothing_listens_is_refused_in_one_line():
    address = f"127.0.0.1:{closed_port()}"
    done = CliRunner().invoke(STUDY, ["--space", "unet", "--address", address])
    assert (done.exit_code, len(done.stderr.splitlines())) == (cli.EXIT_REFUSED, 1)
    assert f"address={address}" in done.stderr


def test_refusals_load_no_framework(tmp_path):
    calls = [(f"{app.registered_commands[0].callback.__module__}", words) for app, words, *_ in REFUSED]
    calls = [("harness.study.__main__" if module == "__main__" else module, words) for module, words in calls]
    script = f"""
import importlib, sys
from typer.testing import CliRunner
open("a_file", "w").close()
for module, words in {calls!r}:
    CliRunner().invoke(importlib.import_module(module).app, words)
    heavy = {{"torch", "ray", "mlflow", "scipy", "sklearn", "matplotlib"}} & set(sys.modules)
    assert not heavy, (words, heavy)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=environment, timeout=120)


class LibraryError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("depth=9: must be 2 to 4"), 2, "error: depth=9: must be 2 to 4"),
        (FileNotFoundError("data=x: no such directory"), 2, "error: data=x: no such directory"),
        (OSError(28, "No space left on device", "f.db"), 1, "No space left on device: 'f.db'; go on with --resume s"),
        (LibraryError("disk is full\n[SQL: INSERT]"), 1, "error: LibraryError: disk is full; go on with --resume s"),
        (RuntimeError("Ray cannot start"), 1, "error: Ray cannot start; go on with --resume s"),
        (KeyboardInterrupt(), 130, "interrupted; nothing that was computed is lost: go on with --resume s"),
    ],
)
def test_an_error_becomes_one_line_and_an_exit_code(capsys, error, code, line):
    with pytest.raises(typer.Exit) as ended, report_errors(lambda: "go on with --resume s"):
        raise error
    said = capsys.readouterr().err
    assert ended.value.exit_code == code
    assert said.endswith(f"{line}\n")
    assert said.count("\n") == 1


def test_an_exit_code_passes():
    with pytest.raises(typer.Exit) as ended, report_errors(lambda: ""):
        raise typer.Exit(7)
    assert ended.value.exit_code == 7


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_stream_that_is_not_utf_8_takes_every_character(monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    configure_logging()
    print("0.61 ± 0.02 ─ żaba")
    sys.stdout.flush()
    assert raw.getvalue().startswith(b"0.61 ")


def test_a_storage_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    check_storage(str(tmp_path / "new" / "studies"))
    check_storage("s3://bucket/studies")
    with pytest.raises(ValueError, match="storage='': must not be empty"):
        check_storage("")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match=r"storage=.*cannot be written"):
        check_storage(str(tmp_path))


@pytest.mark.drill
@pytest.mark.parametrize("words", [["--space", "unet", "--fix", "reprogrammer/deep=3"], ["--resume", "none-such"]])
def test_a_refusal_takes_under_three_seconds_of_a_core(tmp_path, words):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "harness.study", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        timeout=300,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == cli.EXIT_REFUSED
    assert after.ru_utime - before.ru_utime < 3
