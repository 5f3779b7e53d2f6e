"""The searcher: the Optuna storage is the only truth about trials."""

import json
import sqlite3
import warnings
from functools import cache

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from ray.tune.search import Searcher
from sqlalchemy.exc import OperationalError

from harness.study.plan import Plan, PlannedTrial
from harness.study.records import TrialFailure, TrialRecord
from harness.study.results import ranked_rows
from harness.study.searcher import StudySearcher
from harness.study.storage import make_sampler, open_storage, requeue
from search_spaces import load
from tests.support.evaluations import make_spec
from tests.support.records import make_report

EPOCHS = 3
SPACE = load("noise")


@cache
def storage_of(path):
    """Return the storage of a study; in memory, since a file's hundreds of commits take most of these tests' time."""
    return InMemoryStorage()


def open_study(path, *, seed=0, directions=("maximize",), storage_of=storage_of):
    storage = storage_of(path)
    study = optuna.create_study(storage=storage, study_name="s", directions=list(directions), load_if_exists=True)
    study.sampler = make_sampler(seed, n_trials_so_far=len(study.trials), fixed={})
    return study


def searcher(study, *, n_trials=4, concurrent=10, reads_test=False, **options):
    plan = Plan(n_trials, SPACE.suggest, lambda _: PlannedTrial(make_spec("s", epochs=EPOCHS), 0, "t"), reads_test)
    made = StudySearcher(
        study,
        plan,
        make_task=lambda number, paths: json.dumps({"number": number, "paths": dict(paths)}),
        **{"objectives": ("best_macro_f1",), **options},
    )
    made.set_max_concurrency(concurrent)
    return made


def report(number, epoch, value, *, params=10):
    return make_report(number, epoch, value, params=params).to_tune()


def states(study):
    return [t.state for t in study.trials]


FAILED = {"number": 0, "failed": "DivergedError: nan"}


@pytest.mark.parametrize(
    ("results", "state", "value", "reason"),
    [
        ([report(0, 1, 0.4), report(0, 2, 0.6), report(0, 3, 0.6)], TrialState.COMPLETE, 0.6, ""),
        ([report(0, 2, 0.3)], TrialState.PRUNED, 0.3, "scheduler"),
        ([FAILED], TrialState.FAIL, None, "DivergedError: nan"),
    ],
)
def test_the_last_result_decides_how_a_trial_ends(tmp_path, results, state, value, reason):
    study = open_study(tmp_path)
    made = searcher(study)
    made.suggest("a")
    for result in results:
        made.on_trial_result("a", result)
    made.on_trial_complete("a", results[-1])
    (trial,) = study.trials
    assert (trial.state, trial.value, TrialRecord.of(trial).reason) == (state, value, reason)
    assert trial.intermediate_values == {r["epoch"]: r["best_macro_f1"] for r in results if r is not FAILED}
    assert made.suggest("b")["number"] == 1


def test_a_trial_whose_worker_was_lost_is_handed_out_again_with_its_own_parameters(tmp_path):
    study = open_study(tmp_path)
    made = searcher(study, n_trials=1, concurrent=2)
    task = made.suggest("a")
    assert made.suggest("b") is None  # not FINISHED, after which Tune would not ask again
    made.on_trial_complete("a", None, error=True)
    made.on_trial_complete("a", None, error=True)  # a late message of the same dead worker
    assert made.suggest("b") == task
    made.on_trial_complete("b", report(0, 3, 0.5))
    assert states(study) == [TrialState.COMPLETE]
    assert made.suggest("c") == Searcher.FINISHED


def test_a_trial_that_keeps_losing_its_worker_fails(tmp_path):
    study = open_study(tmp_path)
    made = searcher(study)
    for name in "abcd":
        assert states(study) in ([], [TrialState.RUNNING])
        assert made.suggest(name)["number"] == 0
        made.on_trial_complete(name, None, error=True)
    assert states(study) == [TrialState.FAIL]
    assert TrialRecord.of(study.trials[0]).reason == "its worker was lost 4 times"


@pytest.mark.parametrize(
    ("test", "state", "reason"),
    [
        ({"macro_f1": 0.9}, TrialState.COMPLETE, ""),
        (None, TrialState.FAIL, "it ended without a reading of the test split"),
    ],
)
def test_a_trial_of_an_evaluation_ends_with_its_reading_and_is_valued_by_validation(tmp_path, test, state, reason):
    study = open_study(tmp_path)
    made = searcher(study, reads_test=True)
    made.suggest("a")
    made.on_trial_complete("a", make_report(0, 3, 0.5, test=test).to_tune())
    record = TrialRecord.of(study.trials[0])
    assert (states(study), record.report.test, record.reason) == ([state], test, reason)
    assert study.trials[0].value == (0.5 if test else None)


def test_no_trial_begins_beyond_the_concurrency_or_after_the_deadline(tmp_path):
    made = searcher(open_study(tmp_path), concurrent=1)
    assert made.suggest("a")["number"] == 0
    assert made.suggest("b") is None
    assert searcher(open_study(tmp_path), deadline=0.0).suggest("a") == Searcher.FINISHED


def test_the_budget_counts_all_drivers_of_a_study(tmp_path):
    first = searcher(open_study(tmp_path), n_trials=3)
    first.suggest("a")
    first.on_trial_complete("a", report(0, 3, 0.5))
    second = searcher(open_study(tmp_path), n_trials=3)
    assert second.suggest("b")["number"] == 1
    assert second.suggest("c")["number"] == 2
    for name, number in (("b", 1), ("c", 2)):
        second.on_trial_complete(name, report(number, 3, 0.5))
    assert second.suggest("d") == Searcher.FINISHED


def test_a_resumed_study_does_not_repeat_its_draws(tmp_path):
    first = searcher(open_study(tmp_path))
    one = json.loads(first.suggest("a")["task"])["paths"]
    first.on_trial_complete("a", report(0, 3, 0.5))
    two = json.loads(searcher(open_study(tmp_path)).suggest("b")["task"])["paths"]
    assert one["optimiser/lr"] != two["optimiser/lr"]


def test_the_same_seed_draws_the_same_trials(tmp_path):
    def draws(name):
        (tmp_path / name).mkdir()
        made = searcher(open_study(tmp_path / name, seed=7), concurrent=1)
        for number in range(4):
            task = json.loads(made.suggest(str(number))["task"])
            made.on_trial_complete(str(number), report(number, 3, 0.1 * number))
            yield task["paths"]

    assert list(draws("one")) == list(draws("two"))


def test_two_objectives_are_stored_side_by_side(tmp_path):
    study = open_study(tmp_path, directions=("maximize", "minimize"))
    made = searcher(study, objectives=("best_macro_f1", "params"))
    for name, value, params in (("a", 0.5, 10), ("b", 0.6, 20), ("c", 0.4, 30)):
        number = made.suggest(name)["number"]
        made.on_trial_result(name, report(number, 1, value, params=params))
        made.on_trial_complete(name, report(number, 3, value, params=params))
    made.suggest("d")
    made.on_trial_complete("d", report(3, 1, 0.1))
    assert [t.values for t in study.trials[:3]] == [[0.5, 10.0], [0.6, 20.0], [0.4, 30.0]]
    assert study.trials[3].state == TrialState.PRUNED
    rows = ranked_rows(study.trials, best=study.best_trials)
    assert {row.number for row in rows if row.is_best} == {0, 1}


def test_two_objectives_go_on_after_the_random_start_with_trials_that_were_stopped(tmp_path):
    study = open_study(tmp_path, directions=("maximize", "minimize"))
    made = searcher(study, objectives=("best_macro_f1", "params"), n_trials=16)
    for index in range(16):
        number = made.suggest(str(index))["number"]
        made.on_trial_result(str(index), report(number, 1, 0.01 * index))
        made.on_trial_complete(str(index), report(number, 1 if index % 3 else 3, 0.01 * index))
    assert {TrialState.PRUNED, TrialState.COMPLETE} == set(states(study))
    assert TrialRecord.of(study.trials[1]).values == {1: 0.01}


def test_what_runs_no_longer_is_put_back_and_goes_on_as_the_same_trial(tmp_path):
    study = open_study(tmp_path, storage_of=open_storage)
    made = searcher(study)
    task = json.loads(made.suggest("a")["task"])
    made.on_trial_result("a", report(0, 1, 0.4))
    requeue(study)
    assert states(study) == [TrialState.WAITING]
    assert [(row.state, row.macro_f1, row.epochs) for row in ranked_rows(study.trials)] == [("interrupted", 0.4, 1)]
    second = searcher(open_study(tmp_path, storage_of=open_storage))
    assert json.loads(second.suggest("b")["task"]) == task
    second.on_trial_complete("b", report(0, 3, 0.6))
    assert open_study(tmp_path, storage_of=open_storage).trials[0].intermediate_values == {1: 0.4, 3: 0.6}
    assert len(open_study(tmp_path, storage_of=open_storage).trials) == 1


def test_the_table_ranks_by_the_best_epoch_and_keeps_the_failed_last(tmp_path):
    study = open_study(tmp_path)
    made = searcher(study)
    for name in "abc":
        made.suggest(name)
    made.on_trial_complete("a", {"number": 0, "failed": "nan"})
    made.on_trial_complete("b", report(1, 3, 0.4))
    made.on_trial_complete("c", report(2, 2, 0.7))
    rows = ranked_rows(study.trials)
    assert [(row.number, row.state) for row in rows] == [(2, "stopped"), (1, "done"), (0, "failed")]
    assert (rows[0].macro_f1, rows[0].params, rows[0].epochs, rows[0].seconds) == (0.7, 10, 2, 1.5)


def test_fixed_values_hold_in_every_trial(tmp_path):
    study = open_study(tmp_path)
    study.sampler = make_sampler(0, n_trials_so_far=0, fixed={"optimiser/lr": 1e-3, "mapper/kind": "fc"})
    made = searcher(study)
    for name in "abcd":
        paths = json.loads(made.suggest(name)["task"])["paths"]
        assert (paths["optimiser/lr"], paths["mapper/kind"]) == (1e-3, "fc")


def test_a_trial_that_was_cut_off_while_it_was_drawn_is_drawn_to_its_end(tmp_path):
    study = open_study(tmp_path)
    searcher(study)
    for _ in range(2):
        half = study.ask()
        shape = half.suggest_categorical("reprogrammer/shape", ["full", "mel", "frame"])
    task = searcher(open_study(tmp_path)).suggest("a")
    paths = json.loads(task["task"])["paths"]
    assert task["number"] == 0
    assert {"optimiser/lr", "mapper/kind", "reprogrammer/kind"} <= set(paths)
    second = searcher(open_study(tmp_path))
    second.suggest("b")
    assert json.loads(second.suggest("c")["task"])["paths"]["reprogrammer/shape"] == shape


def test_what_of_optuna_is_experimental_was_chosen_knowingly_and_is_not_warned_of(tmp_path):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        make_sampler(0, n_trials_so_far=0, fixed={"reprogrammer/kind": "noise"})
        open_study(tmp_path).ask()
    assert [str(warning.message) for warning in told] == []


@pytest.mark.parametrize("method", ["suggest", "on_trial_result", "on_trial_complete"])
def test_a_storage_that_fails_stops_the_study_with_its_cause_and_raises_nothing(tmp_path, monkeypatch, method):
    made = searcher(open_study(tmp_path))
    made.suggest("a")

    def full(*_, **__):
        raise StorageInternalError from OperationalError("INSERT", {}, sqlite3.OperationalError("disk is full"))

    monkeypatch.setattr(made._study._storage, "get_all_trials", full)
    getattr(made, method)("a", *([report(0, 3, 0.5)] if method != "suggest" else []))
    assert "disk is full" in made.error
    assert made.suggest("b") == Searcher.FINISHED


def test_a_full_disk_on_a_worker_stops_the_study_and_keeps_the_trial(tmp_path):
    study = open_study(tmp_path)
    made = searcher(study)
    made.suggest("a")
    made.on_trial_complete("a", TrialFailure(0, "OSError: no space", stops_study=True).to_tune())
    assert made.error == "OSError: no space"
    requeue(study)
    assert states(study) == [TrialState.WAITING]
