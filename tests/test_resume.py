"""The drill: studies that are interrupted in every way, and taken up again."""

import os
import signal

import psutil
import pytest
from optuna.trial import TrialState

from tests.studies import make_workshop, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.process]
TRIALS, EPOCHS = 4, 120
FLAGS = ("--trials", str(TRIALS), "--epochs", str(EPOCHS), "--scheduler", "none")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return make_workshop(tmp_path_factory.mktemp("drill"))


def begin(workshop, name):
    """Start a study; return its process once one trial has ended and another is well under way."""
    process = workshop.start(workshop.new(name, *FLAGS))

    def is_under_way():
        assert process.poll() is None, process.stdout.read()
        if not (workshop.storage / name / "optuna.db").exists():
            return False
        try:
            running = [t for t in workshop.trials(name) if t.state == TrialState.RUNNING]
            ended = [t for t in workshop.trials(name) if t.state == TrialState.COMPLETE]
        except KeyError:  # the study is not in its storage yet
            return False
        return ended and any(3 < max(t.intermediate_values, default=0) < EPOCHS // 2 for t in running)

    wait_for(is_under_way, what=f"study {name} under way")
    return process


def records(workshop, name):
    """Return the epochs in each trial's checkpoint."""
    checkpoints = {n: workshop.checkpoint(name, n) for n in range(TRIALS)}
    return {n: checkpoint["records"] for n, checkpoint in checkpoints.items() if checkpoint}


def check_whole(workshop, name, *, before):
    """Hold a study that was taken up to all that was promised."""
    trials = workshop.trials(name)
    assert [t.state for t in trials] == [TrialState.COMPLETE] * TRIALS
    after = records(workshop, name)
    for number, kept in before.items():  # times included: what was computed was not computed again
        assert after[number][: len(kept)] == kept
    for number in range(TRIALS):
        assert [record["epoch"] for record in after[number]] == list(range(1, EPOCHS + 1))
        assert sorted(trials[number].intermediate_values) == list(range(1, EPOCHS + 1))
    runs = workshop.runs(name)
    assert len(runs) == TRIALS
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        steps = [m.step for m in workshop.client().get_metric_history(run.info.run_id, "val/macro_f1")]
        assert steps == list(range(1, EPOCHS + 1))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_a_study_that_was_asked_to_end_says_how_to_go_on_and_does(workshop, number):
    name = number.name.lower()
    process = begin(workshop, name)
    process.send_signal(number)
    said, _ = process.communicate(timeout=90)
    assert process.returncode == 130, said
    assert f"go on with   python -m harness.study --resume {name}" in said
    before = records(workshop, name)
    assert before
    workshop.run(workshop.command("--resume", name))
    check_whole(workshop, name, before=before)


def test_a_study_whose_driver_was_killed_goes_on(workshop):
    process = begin(workshop, "killed")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    before = records(workshop, "killed")
    assert TrialState.RUNNING in {t.state for t in workshop.trials("killed")}
    workshop.run(workshop.command("--resume", "killed"))
    check_whole(workshop, "killed", before=before)


def test_a_killed_worker_costs_no_trial(workshop):
    process = begin(workshop, "worker")
    workers = [p for p in psutil.Process(process.pid).children(recursive=True) if "run_trial" in p.name()]
    workers += [p for p in _ray_workers(process.pid) if p not in workers]
    assert workers
    before = records(workshop, "worker")
    workers[0].kill()
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert "its worker was lost" in said
    check_whole(workshop, "worker", before=before)


def test_a_second_driver_of_a_running_study_is_refused(workshop):
    process = begin(workshop, "twice")
    said = workshop.run(workshop.command("--resume", "twice"), expect=1)
    assert "is being run by another process" in said
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=90)


def _ray_workers(driver):
    """Return the processes of the driver's Ray that run trials: their titles name the trainable."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            if any("ImplicitFunc" in part or "run_trial" in part for part in process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found
