"""The drill: studies that are interrupted in every way, and taken up again."""

import os
import signal

import pytest
from filelock import FileLock
from optuna.trial import TrialState

from harness.study.records import TrialRecord
from tests.support.studies import make_workshop

pytestmark = pytest.mark.drill
TRIALS, EPOCHS = 4, 90
FLAGS = ("--trials", str(TRIALS), "--epochs", str(EPOCHS), "--scheduler", "none")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return make_workshop(tmp_path_factory.mktemp("drill"))


def under_way(workshop, name):
    return workshop.under_way(workshop.new(name, *FLAGS), name, epochs=EPOCHS)


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
    with under_way(workshop, name) as process:
        process.send_signal(number)
        said, _ = process.communicate(timeout=90)
    assert process.returncode == 130, said
    assert f"resume with   python -m harness.study --resume {name}" in said
    before = records(workshop, name)
    assert before
    assert TrialState.RUNNING not in {t.state for t in workshop.trials(name)}
    assert "KILLED" in {run.info.status for run in workshop.runs(name)}
    workshop.run(workshop.command("--resume", name))
    check_whole(workshop, name, before=before)


def test_a_study_whose_driver_was_killed_goes_on(workshop):
    with under_way(workshop, "killed") as process:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    before = records(workshop, "killed")
    assert TrialState.RUNNING in {t.state for t in workshop.trials("killed")}
    with FileLock(workshop.storage / "killed" / "driver.lock"):  # as another driver would hold it
        refused = workshop.run(workshop.command("--resume", "killed"), expect=2)
        assert "is being run by another process" in refused
    workshop.run(workshop.command("--resume", "killed"))
    check_whole(workshop, "killed", before=before)


def test_a_killed_worker_costs_no_trial(workshop):
    with under_way(workshop, "worker") as process:
        before = records(workshop, "worker")
        running = [TrialRecord.of(t).report for t in workshop.trials("worker") if t.state == TrialState.RUNNING]
        _, pid = next(report for report in running if report).worker.split("/")
        os.kill(int(pid), signal.SIGKILL)
        said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert "its worker was lost" in said
    check_whole(workshop, "worker", before=before)
