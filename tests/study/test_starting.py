"""Studies that start: their names, their directories, and signals while Ray starts."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
from typer.testing import CliRunner

from harness.common.ray_start import delayed_interrupts
from harness.config.study import StudyPlace, claim_name, make_study_directory
from harness.study import __main__ as study_command
from harness.study.run import locked
from tests.support.evaluations import make_study


def test_studies_that_start_at_once_take_different_names(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: claim_name(str(tmp_path), "unet"), range(8)))
    assert sorted(found) == [f"unet-{number}" for number in range(1, 9)]


def test_a_claimed_directory_is_given_back_if_the_study_cannot_begin(tmp_path):
    place = StudyPlace.of(str(tmp_path), claim_name(str(tmp_path), "unet"))
    with pytest.raises(ValueError, match="flag"), locked(place, is_new=True):
        raise ValueError("a wrong flag")
    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_is_a_file_is_refused_by_its_flag(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="storage="):
        make_study_directory(tmp_path / "file" / "s")


def test_the_name_of_a_study_that_exists_is_refused_before_the_frameworks_load(tmp_path, monkeypatch):
    place = make_study(tmp_path)
    monkeypatch.setattr(study_command, "announce", lambda _: pytest.fail("the frameworks load"))
    monkeypatch.setattr(study_command, "running", lambda *_, **__: nullcontext())
    flags = ["--space", "noise", "--storage", str(tmp_path), "--name", place.home.name]
    refused = CliRunner().invoke(study_command.app, flags).exception
    assert isinstance(refused, ValueError)
    assert "name=s: this study exists in" in str(refused)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_ray_forks_is_raised_once_it_has(number):
    before = signal.getsignal(number)
    steps = []

    def start():
        with delayed_interrupts():
            os.kill(os.getpid(), number)
            steps.append("started")
        steps.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert steps == ["started"]
    assert signal.getsignal(number) is before


def test_a_second_signal_does_not_wait():
    steps = []

    def start():
        with delayed_interrupts():
            for step in range(2):
                steps.append(step)
                os.kill(os.getpid(), signal.SIGINT)
            steps.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert steps == [0, 1]


FORKING = """
import contextlib, os, signal, subprocess, sys
from harness.common.ray_start import delayed_interrupts
guard = {"guarded": delayed_interrupts, "bare": contextlib.nullcontext}[sys.argv[1]]
is_armed = False
os.register_at_fork(after_in_parent=lambda: is_armed and os.kill(os.getpid(), signal.SIGINT))
n_lost = 0
for _ in range(20):
    try:
        with guard():
            is_armed = True
            subprocess.run(["true"], preexec_fn=lambda: None)  # which makes subprocess call the hooks, as Ray does
            is_armed = False
        n_lost += 1
    except KeyboardInterrupt:
        pass
print(n_lost)
"""


@pytest.mark.drill
@pytest.mark.parametrize(("guard", "n_lost"), [("guarded", 0), ("bare", 20)])
def test_python_loses_a_signal_in_a_hook_of_a_fork_unless_it_is_delayed(guard, n_lost):
    command = [sys.executable, "-c", FORKING, guard]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=True)
    assert int(done.stdout) == n_lost


@pytest.mark.drill
def test_of_twenty_interrupts_while_ray_starts_none_is_lost():
    script = "import ray; from harness.common.ray_start import start_ray; print(1, flush=True); start_ray(None, cpus=1)"
    for attempt in range(20):
        with subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            time.sleep(0.1 * attempt)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=120)
        assert b"KeyboardInterrupt" in said.splitlines()[-1], (attempt, said)
