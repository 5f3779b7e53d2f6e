"""The parts of a reproduction, each a study: run, tried again if all of it failed, and known for what it lacks."""

from optuna.trial import TrialState

from harness import driver
from harness.console import StudyConsole
from harness.plan import StudyPlan
from harness.reproduction.wanted import Reproduction
from harness.run_study import begin, carry_out, claimed, take_up
from harness.searcher import REASON
from harness.spec import Resources, StudyPlace, StudySpec
from harness.subspace import papers_within
from search_spaces import load


def run_part(wanted: Reproduction, part: str, resources: Resources) -> bool:
    """Run what a part's study owes, or again what failed as a whole; return whether it came to its end."""
    place, spec = wanted.place_of(part), wanted.spec(part)
    is_new = not place.spec_file.exists()
    with claimed(place, is_new=is_new):
        if is_new:
            prepared = begin(spec, place, assignments=[])
        else:
            spec = place.read_spec().extended(trials=None, tracking_uri=wanted.tracking_uri)
            spec = with_another_try(spec, place, trials=wanted.trials)
            if place.has_begun() and not driver.owes(driver.open_study(spec, place), StudyPlan(spec)):
                StudyConsole().say(f"{spec.name}: done before")
                return True
            prepared = take_up(spec, place)
        outcome = carry_out(prepared, resources)
    best = outcome.rows[0] if outcome.rows else None  # none where a signal came before the first trial
    if best is not None and best.macro_f1 is not None:
        prepared.console.say(f"best      trial {best.number}, validation macro-F1 {best.macro_f1:.3f}")
    return not outcome.owes


def with_another_try(spec: StudySpec, place: StudyPlace, *, trials: int) -> StudySpec:
    """Return the study with so many more trials if all have ended and none has finished, the paper's again first.

    What failed stays in the study, as a failed run stays in an evaluation.
    """
    if not place.has_begun():
        return spec
    study = driver.open_study(spec, place)
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    n_ended = sum(state.is_finished() for state in states)
    if n_ended < spec.trials or TrialState.COMPLETE in states:
        return spec
    if n_ended == len(states):  # else they are in line, and the driver was killed then
        for paper in papers_within(load(spec.space, spec.preset), spec.fixed):
            study.enqueue_trial({**paper, **spec.fixed})
    StudyConsole().say(f"{spec.name}: none of its trials has finished; {trials} more now")
    return spec.extended(trials=n_ended + trials, tracking_uri=None)


def why_unfinished(place: StudyPlace) -> str:
    """Return why nothing of a part can be evaluated; "" if a trial of it has finished."""
    trials = driver.open_study(place.read_spec(), place).get_trials(deepcopy=False)
    if any(trial.state == TrialState.COMPLETE for trial in trials):
        return ""
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    told = "none of its trials has finished, so it is not evaluated"
    if failed:
        told += f"; trial {failed[-1].number} failed: {failed[-1].user_attrs.get(REASON, 'for no known reason')}"
    return f"{told}; the same command tries again, see {place.home}"
