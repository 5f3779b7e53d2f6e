"""Whole studies through the command line, with real Ray, Optuna and MLflow."""

import json
import re
import subprocess
import sys

import pytest
from mlflow.entities import ViewType
from optuna.trial import TrialState

from tests.support.studies import make_workshop

pytestmark = pytest.mark.drill
QUICK = ("--trials", "3", "--epochs", "2", "--concurrent", "1")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return make_workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def first(workshop):
    """Run one study that several tests look at."""
    return workshop.run(workshop.new("first", *QUICK, "--seed", "3"))


def ranking(workshop, name):
    """Return the results but for times and workers."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "worker")} for row in workshop.results(name)]


def test_a_study_says_what_it_uses_before_it_begins_and_what_to_do_when_it_ends(workshop, first):
    head, tail = first[: first.index("running")], first[first.index("Study first") :]
    for fact in ("data", "backbone", "noise, 12 axes", "3 trials of 2 epochs", "CPU", "floor"):
        assert fact in head
    assert "results.json" in tail
    assert "python -m tracking.ui" in tail
    assert re.search(r"http://127\.0\.0\.1:5000/#/experiments/\d+/runs\?.*viewStateShareKey=", tail)
    assert "python -m harness.study --resume first" in tail


def test_the_papers_configuration_is_trial_zero(workshop, first):
    paths = json.loads(workshop.trials("first")[0].user_attrs["paths"])
    assert paths["reprogrammer/shape"] == "full"
    assert paths["optimiser/lr"] == 5e-5
    assert paths["schedule/kind"] == "paper"


def test_every_trial_is_a_run_with_parameters_metrics_figures_and_a_checkpoint(workshop, first):
    runs = workshop.runs("first")
    assert len(runs) == 3
    for run, row in zip(runs, sorted(workshop.results("first"), key=lambda r: r["number"]), strict=True):
        data = run.data
        assert data.params["reprogrammer/kind"] == "noise"
        assert data.metrics["macro_f1"] == pytest.approx(row["macro_f1"], abs=1e-4)
        assert data.metrics["params"] == row["params"]
        assert {f"f1/{label}" for label in row["f1_by_label"]} <= set(data.metrics)
        assert {"data_digest", "backbone_digest", "git_commit", "seed", "version/torch"} <= set(data.tags)
        if row["state"] == "done":
            folders = {f.path for f in workshop.client().list_artifacts(run.info.run_id)}
            assert folders == {"figures", "checkpoint"}
    steps = [m.step for m in workshop.client().get_metric_history(runs[0].info.run_id, "val/macro_f1")]
    assert steps == [1, 2]


def test_one_parent_run_holds_the_trials_of_a_study(workshop, first):
    client = workshop.client()
    experiments = [e.experiment_id for e in client.search_experiments(view_type=ViewType.ACTIVE_ONLY)]
    parents = client.search_runs(experiments, "tags.kind = 'study' and tags.study = 'first'")
    assert len(parents) == 1
    trials = workshop.runs("first")
    assert {r.data.tags["mlflow.parentRunId"] for r in trials} == {parents[0].info.run_id}
    terms = {"validation_fraction": "0.4", "precision": "fp32", "epochs": "2", "scheduler": "asha", "fixed": "none"}
    assert all(terms.items() <= run.data.params.items() for run in (*parents, *trials))


def test_trials_of_a_study_share_one_worker(workshop, first):
    assert len({row["worker"] for row in workshop.results("first")}) == 1


def test_the_same_seed_gives_the_same_table_and_another_seed_another(workshop, first):
    workshop.run(workshop.new("same", *QUICK, "--seed", "3"))
    workshop.run(workshop.new("other", *QUICK, "--seed", "4"))
    assert ranking(workshop, "same") == ranking(workshop, "first")
    assert ranking(workshop, "other") != ranking(workshop, "first")


def test_a_name_that_exists_is_refused(workshop, first):
    said = workshop.run(workshop.new("first", *QUICK), expect=2)
    assert "name=first: this study exists" in said
    assert "--resume first" in said
    assert "Traceback" not in said


def test_resume_with_more_trials_extends_a_study(workshop, first):
    before = {t.number: t.value for t in workshop.trials("first")}
    said = workshop.run(workshop.command("--resume", "first", "--trials", "5"))
    trials = workshop.trials("first")
    assert len(trials) == 5
    assert {n: trials[n].value for n in before} == before
    assert len(workshop.runs("first")) == 5
    assert "5/5 trials" in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--space", "vae"), "space='vae': must be one of"),
        ((), "space: missing"),
        (("--space", "noise", "--fix", "reprogrammer/deep=3"), "has no path reprogrammer/deep"),
        (("--space", "noise", "--trials", "0"), "trials=0: must be at least 1"),
        (("--space", "noise", "--objective", "loss"), "objective='loss': must be one of f1, f1,params"),
        (
            ("--space", "noise", "--data", "/no/such/place"),
            "data=/no/such/place: no such directory; give demo, openmic or a directory",
        ),
        (("--space", "noise", "--backbone", "ast-huge"), "backbone='ast-huge': must be one of"),
        (("--space", "noise", "--time-budget", "soon"), "time-budget='soon': must be a duration"),
        (("--space", "noise", "--name", "a/b"), "name='a/b': letters, digits"),
        (
            ("--space", "all", "--objective", "f1,params"),
            "objective=f1,params: the trees of random_forest have no parameters to count",
        ),
        (("--space", "noise", "--preset", "mine"), "preset='mine': must be one of paper, released"),
        (("--space", "noise", "--fraction", "1.5"), "fraction=1.5: must be above 0 and at most 1"),
        (("--resume", "x", "--fraction", "0.5"), "resume: cannot go with --fraction"),
        (("--resume", "never-begun"), "resume=never-begun: no study in"),
        (("--resume", "x", "--space", "noise", "--seed", "1"), "resume: cannot go with --seed, --space"),
        (("--space", "noise", "--demo-clips", "199"), "demo-clips=199: must be at least 200"),
        (("--resume", ""), "resume='': letters, digits"),
        (("--resume", "../x"), "resume='../x': letters, digits"),
        (("--space", "noise", "--data", ".", "--demo-clips", "9"), "data: cannot go with --demo-clips"),
        (("--space", "noise", "--split", "public", "--validation-fraction", "0.2"), "split=public: cannot go with"),
    ],
)
def test_a_wrong_flag_is_refused_in_a_line_and_leaves_nothing_behind(workshop, flags, message):
    before = sorted(p.name for p in workshop.storage.glob("*")) if workshop.storage.exists() else []
    assert message in workshop.refused("harness.study", *flags)
    assert (sorted(p.name for p in workshop.storage.glob("*")) if workshop.storage.exists() else []) == before


def test_a_failing_trial_costs_the_study_nothing_else_but_its_exit_code(workshop):
    flags = ("--trials", "2", "--epochs", "1", "--fix", "reprogrammer/depth=4")
    odd = ("--backbone", str(workshop.root / "odd.safetensors"))
    said = workshop.run(workshop.new("failing", *flags, *odd, space="unet"), expect=1)
    assert "each level halves the 40 frames" in said
    assert {t.state for t in workshop.trials("failing")} == {TrialState.FAIL}
    assert all("each level halves" in row["reason"] for row in workshop.results("failing"))
    assert {run.info.status for run in workshop.runs("failing")} == {"FAILED"}


def test_two_objectives_print_the_pareto_front(workshop):
    flags = ("--trials", "14", "--epochs", "3", "--objective", "f1,params", "--scheduler", "asha")
    said = workshop.run(workshop.new("pareto", *flags, "--fix", "system/kind=reprogramming", space="all"))
    assert "Pareto front" in said
    assert len(workshop.trials("pareto")) == 14
    assert {t.state for t in workshop.trials("pareto")} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_a_spent_time_budget_keeps_what_there_is_and_lets_the_rest_go_on(workshop):
    flags = ("--trials", "4", "--epochs", "200", "--scheduler", "none", "--time-budget", "20s")
    said = workshop.run(workshop.new("timed", *flags))
    assert TrialState.RUNNING not in {t.state for t in workshop.trials("timed")}
    before = {row["number"]: row for row in workshop.results("timed")}
    assert "interrupted" in {row["state"] for row in before.values()}
    assert all(row["params"] and row["macro_f1"] for row in before.values() if row["epochs"])
    assert "resume with   python -m harness.study --resume timed" in said
    assert {"KILLED"} <= {run.info.status for run in workshop.runs("timed")}
    workshop.run(workshop.command("--resume", "timed"))
    after = {row["number"]: row for row in workshop.results("timed")}
    assert {row["state"] for row in after.values()} == {"done"}
    assert {run.info.status for run in workshop.runs("timed")} == {"FINISHED"}


def test_without_a_tracking_server_a_study_ends_well_and_delivers_later(workshop):
    flags = (*QUICK, "--tracking-uri", "http://127.0.0.1:9")
    said = workshop.run(workshop.new("offline", *flags))
    assert len(workshop.results("offline")) == 3
    assert "http://127.0.0.1:9\n" in said[: said.index("running")]
    assert re.search(r"MLflow +http://127\.0\.0\.1:9$", said[said.index("Study offline") :], re.MULTILINE)
    assert "tracking.sync" in said
    store = f"sqlite:///{workshop.storage / 'mlflow.db'}"
    sync = [
        sys.executable,
        "-m",
        "tracking.sync",
        str(workshop.storage / "offline"),
        "--tracking-uri",
        store,
        "--create",
    ]
    subprocess.run(sync, check=True, env=workshop.environment, cwd=workshop.root, timeout=120)
    assert len(workshop.runs("offline")) == 3
