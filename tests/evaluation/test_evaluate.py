"""Drills: whole evaluations through the command line, some of them killed and continued."""

import json
import os
import re
import signal
import sys

import pytest
from optuna.trial import TrialState

from harness.study.heldout import READS, RESULT
from harness.study.records import TrialRecord
from tests.support.studies import make_workshop, wait_for

pytestmark = pytest.mark.drill
SEEDS, EPOCHS = 3, 50
KILLED = ("long", "--seeds", str(SEEDS), "--concurrent", "1")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return make_workshop(tmp_path_factory.mktemp("evaluations"))


@pytest.fixture(scope="module")
def short(workshop):
    """Run a study of three short trials."""
    flags = ("--trials", "3", "--epochs", "2", "--scheduler", "none")
    return workshop.run(workshop.new("short", *flags))


@pytest.fixture(scope="module")
def long(workshop):
    """Run a study of one trial that is long enough to be killed."""
    return workshop.run(workshop.new("long", "--trials", "1", "--epochs", str(EPOCHS)))


def command(workshop, *words):
    return [sys.executable, "-m", "harness.evaluate", *words, "--storage", str(workshop.storage)]


def files(workshop, name, file):
    """Return a file's content by run."""
    found = sorted((workshop.storage / name / "trials").glob(f"*/{file}"))
    return {int(path.parent.name): path.read_bytes() for path in found}


def runs(workshop, name, kind):
    client = workshop.client()
    experiments = [e.experiment_id for e in client.search_experiments()]
    return client.search_runs(experiments, f"tags.kind = '{kind}' and tags.study = '{name}'")


def states(workshop, name):
    return [trial.state for trial in workshop.trials(name)]


def report(workshop, name):
    return json.loads((workshop.storage / name / "evaluation.json").read_text())


def under_way(workshop, name):
    return workshop.under_way(command(workshop, *KILLED, "--name", name), name, epochs=EPOCHS)


def check_whole(workshop, name, *, results, checkpoints):
    """Check an evaluation that was killed and continued."""
    assert results
    after = files(workshop, name, RESULT)
    assert {number: after[number] for number in results} == results  # byte for byte, the time of reading included
    reads = files(workshop, name, READS)
    assert {number: len(json.loads(content)) for number, content in reads.items()} == dict.fromkeys(range(SEEDS), 1)
    trials = workshop.trials(name)
    assert [t.state for t in trials] == [TrialState.COMPLETE] * SEEDS
    for number, trial in enumerate(trials):
        assert TrialRecord.of(trial).report.test == json.loads(after[number])
        assert trial.value == TrialRecord.of(trial).report.best.figures["macro_f1"]
        records = workshop.checkpoint(name, number)["records"]
        assert [record["epoch"] for record in records] == list(range(1, EPOCHS + 1))
        kept = checkpoints[number]["records"] if checkpoints.get(number) else []
        assert records[: len(kept)] == kept  # no epoch is trained twice
    assert len(report(workshop, name)["configurations"][0]["seeds"]) == SEEDS
    tracked = runs(workshop, name, "evaluation-run")
    assert {run.info.status for run in tracked} == {"FINISHED"}
    assert sorted(run.data.tags["seed_index"] for run in tracked) == [str(seed) for seed in range(SEEDS)]
    assert all("test/macro_f1" in run.data.metrics for run in tracked)


def state_of(workshop, name):
    """Return the readings and the checkpoints by run."""
    return {
        "results": files(workshop, name, RESULT),
        "checkpoints": {number: workshop.checkpoint(name, number) for number in range(SEEDS)},
    }


def test_an_evaluation_continues_after_a_killed_driver_and_after_an_interrupt(workshop, long):
    with under_way(workshop, "killed") as process:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    before = state_of(workshop, "killed")
    process = workshop.start(command(workshop, *KILLED, "--name", "killed"))
    wait_for(lambda: states(workshop, "killed").count(TrialState.COMPLETE) == 2, what="a second run's end")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 130, output
    assert "with 3 seeds, of which 1 finished; 2 more now" in output
    assert "type the same command again" in output
    assert "2/3" in output  # the table of what there is
    workshop.run(command(workshop, *KILLED, "--name", "killed"))
    check_whole(workshop, "killed", **before)


def test_a_killed_worker_costs_no_run_and_no_second_reading(workshop, long):
    with under_way(workshop, "worker") as process:
        before = state_of(workshop, "worker")
        running = [TrialRecord.of(t).report for t in workshop.trials("worker") if t.state == TrialState.RUNNING]
        _, pid = next(report for report in running if report).worker.split("/")
        os.kill(int(pid), signal.SIGKILL)
        output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "long trial 0, seed 1: its worker was lost" in output
    check_whole(workshop, "worker", **before)


def test_an_evaluation_shows_the_paper_names_and_all_figures(workshop, short):
    output = workshop.run(command(workshop, "short", "--seeds", "2", "--top", "2"))
    for part in ("noise (AST-NRP)", "positive F1", "mAP", "paired by seed", "95 % interval", "floor", "evaluation.md"):
        assert part in output
    found = report(workshop, "short.evaluation")
    assert [len(c["seeds"]) for c in found["configurations"]] == [2, 2]
    labels = found["labels"]
    assert all(set(c["test_f1"]) == set(labels) and c["test"]["macro_f1"]["n"] == 2 for c in found["configurations"])
    trials = workshop.trials("short.evaluation")
    retrained = {json.dumps(TrialRecord.of(trial).paths) for trial in trials}
    assert len(retrained) == 2
    ranking = workshop.results("short")
    assert {c["trial"] for c in found["configurations"]} == {row["number"] for row in ranking[:2]}


def test_an_evaluation_is_a_run_of_its_own_in_mlflow_beside_the_study(workshop, short):
    (parent,) = runs(workshop, "short.evaluation", "evaluation")
    children = runs(workshop, "short.evaluation", "evaluation-run")
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert len(children) == parent.data.metrics["runs"] == 4
    best = workshop.results("short")[0]["number"]
    children = [run for run in children if run.data.tags["source_trial"] == str(best)]
    for run in children:
        assert {"test/positive_f1", "test/map", "test_f1/banjo", "macro_f1", "params"} <= set(run.data.metrics)
        assert (run.data.tags["source_study"], run.data.tags["source_trial"]) == ("short", str(best))
        assert run.data.tags["config_digest"]
        assert run.data.params["reprogrammer/kind"] == "noise"
        assert (run.data.params["validation_fraction"], run.data.params["scheduler"]) == ("0.4", "none")
    assert (parent.data.tags["validation_fraction"], parent.data.tags["precision"]) == ("0.4", "fp32")
    mean = sum(run.data.metrics["test/macro_f1"] for run in children) / 2
    assert parent.data.metrics[f"test_mean/short trial {best}"] == pytest.approx(mean, abs=1e-4)
    artifacts = workshop.client().list_artifacts(parent.info.run_id, "report")
    assert {artifact.path for artifact in artifacts} == {"report/evaluation.json", "report/evaluation.md"}
    assert len(workshop.runs("short")) == 3  # the study's own table is as it was
    assert parent.info.experiment_id == workshop.runs("short")[0].info.experiment_id


def test_more_seeds_and_another_study_extend_and_a_second_call_repeats(workshop, short, long):
    first = ("short", "--seeds", "1", "--name", "grown")
    output = workshop.run(command(workshop, *first))
    assert "one seed has no standard deviation" in output
    before = files(workshop, "grown", RESULT)
    output = workshop.run(command(workshop, "short", "long", "--seeds", "2", "--name", "grown"))
    assert "evaluated before on" in output
    assert "with 1 seed; 1 more now" in output
    after = files(workshop, "grown", RESULT)
    assert len(after) == 4
    assert {number: after[number] for number in before} == before
    assert {c["study"] for c in report(workshop, "grown")["configurations"]} == {"short", "long"}
    assert len(workshop.checkpoint("grown", 3)["records"]) != len(workshop.checkpoint("grown", 0)["records"])
    output = workshop.run(command(workshop, "short", "long", "--seeds", "2", "--name", "grown"))
    assert "all 2 are finished: the table repeats them, test was not read again" in output
    assert "running" not in output.partition("Evaluation grown")[0]
    assert files(workshop, "grown", RESULT) == after
    assert {len(json.loads(content)) for content in files(workshop, "grown", READS).values()} == {1}


def test_a_study_of_a_fraction_is_evaluated_on_the_whole_test_split_prepared_before_the_runs(tmp_path):
    workshop = make_workshop(tmp_path)  # where nothing is prepared
    flags = ("--trials", "1", "--epochs", "1", "--fraction", "0.1")
    output = workshop.run(workshop.new("part", *flags))
    assert "random validation split, a fraction of 0.1" in output
    kept = re.search(r"0\.1 of 19 and 13 clips, stratified by label: (\d+) and (\d+), more than 2 and 1 since", output)
    n_kept = sum(map(int, kept.groups()))
    assert f"features: {n_kept}/{n_kept}," in output
    output = workshop.run(command(workshop, "part", "--seeds", "1"))
    assert "features: 8/8," in output.partition("running")[0]
    (configuration,) = report(workshop, "part.evaluation")["configurations"]
    assert configuration["seeds"][0]["test"]["n_clips"] == 8
    assert f"macro-F1 {configuration['test_floor']:.3f} on test, " in output
    (run,) = workshop.runs("part")
    client = workshop.client()
    assert client.get_run(run.data.tags["mlflow.parentRunId"]).data.params["fraction"] == "0.1"
    assert "fraction 0.1" in client.get_experiment(run.info.experiment_id).name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("short", "--systems", "noise,vae"), "systems='vae': no finished trial of it; must be one of noise"),
        (("short", "--name", "a/b"), "name='a/b': letters, digits"),
    ],
)
def test_a_wrong_flag_is_refused_and_leaves_nothing_behind(workshop, short, words, message):
    before = sorted(workshop.storage.glob("*"))
    assert message in workshop.refused("harness.evaluate", *words)
    assert sorted(workshop.storage.glob("*")) == before
