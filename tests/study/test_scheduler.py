"""Early stopping that a new driver takes up where the last one left it."""

from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler

from harness.config.study import SCHEDULERS
from harness.study.scheduler import METRIC, TIME, StudyScheduler

EPOCHS = 8


def tune_trial(number, tune_id):
    return SimpleNamespace(trial_id=tune_id, config={"number": number})


def run(scheduler, number, values, *, tune_id=None):
    """Report values epoch by epoch; return the decisions up to a stop."""
    trial = tune_trial(number, tune_id or f"tune-{number}")
    scheduler.on_trial_add(None, trial)
    decisions = []
    for epoch, value in values.items():
        decisions.append(scheduler.on_trial_result(None, trial, {TIME: epoch, METRIC: value}))
        if decisions[-1] == TrialScheduler.STOP:
            break
    return decisions


def steady(value, epochs=EPOCHS):
    return dict.fromkeys(range(1, epochs + 1), value)


@pytest.mark.parametrize("kind", ["asha", "median"])
@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_trial_far_below_the_others_is_stopped_early_even_by_a_new_driver(kind, is_resumed):
    others = {number: steady(0.8) for number in range(4)}
    scheduler = StudyScheduler(kind, epochs=EPOCHS, history=others if is_resumed else {})
    for number, values in ({} if is_resumed else others).items():
        run(scheduler, number, values)
    decisions = run(scheduler, 4, steady(0.1))
    assert decisions[-1] == TrialScheduler.STOP
    assert 2 <= len(decisions) < EPOCHS


def test_a_resumed_trial_is_judged_as_if_it_had_not_been_interrupted():
    others = {number: steady(0.5 + 0.1 * number) for number in range(3)}
    values = {epoch: 0.45 + 0.01 * epoch for epoch in range(1, EPOCHS + 1)}
    whole = run(StudyScheduler("asha", epochs=EPOCHS, history=others), 3, values)
    cut = 1
    resumed = StudyScheduler("asha", epochs=EPOCHS, history={**others, 3: {cut: values[cut]}})
    rest = run(resumed, 3, {epoch: value for epoch, value in values.items() if epoch >= cut}, tune_id="new")
    assert rest == whole[cut - 1 :]


def test_an_epoch_reported_twice_is_judged_once():
    scheduler = StudyScheduler("asha", epochs=EPOCHS, history={n: {2: 0.9} for n in range(4)})
    trial = tune_trial(9, "x")
    scheduler.on_trial_add(None, trial)
    low = {TIME: 2, METRIC: 0.1}
    assert scheduler.on_trial_result(None, trial, low) == TrialScheduler.STOP
    assert scheduler.on_trial_result(None, trial, low) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_failed_trial_is_no_concern_of_the_scheduler(kind):
    scheduler = StudyScheduler(kind, epochs=EPOCHS, history={})
    trial = tune_trial(0, "a")
    scheduler.on_trial_add(None, trial)
    failed = {"number": 0, "failed": "nan"}
    assert scheduler.on_trial_result(None, trial, failed) == TrialScheduler.CONTINUE
    scheduler.on_trial_complete(None, trial, failed)
    scheduler.on_trial_error(None, trial)
    scheduler.on_trial_remove(None, trial)


def test_without_a_scheduler_nothing_is_stopped_and_one_epoch_is_enough_for_every_scheduler():
    scheduler = StudyScheduler("none", epochs=EPOCHS, history={n: steady(0.9) for n in range(4)})
    assert set(run(scheduler, 4, steady(0.0))) == {TrialScheduler.CONTINUE}
    for kind in SCHEDULERS:
        run(StudyScheduler(kind, epochs=1, history={}), 0, steady(0.5, epochs=1))
