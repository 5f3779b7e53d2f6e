"""Optuna proposes, Ray Tune schedules: a searcher whose only memory is the Optuna study's storage.

Ray's own OptunaSearch keeps trials in two places and breaks or repeats them on resume. Here the storage is the one
truth. A trial that it shows as running when a driver starts was interrupted: the searcher hands it out again with the
same parameters, and it resumes from its checkpoint.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from harness.common.text import first_line
from harness.study.plan import Plan
from harness.study.records import FAILED, STOPS_STUDY, TrialRecord, TrialReport

logger = logging.getLogger(__name__)

_MAX_LOST_WORKERS = 3
"""How many workers a trial may lose before it counts as failed. Three lost nodes are bad luck; the fourth time, the
trial itself is the likely cause."""


T = TypeVar("T")


def _stops_the_study(on_error: T) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Keep an exception from Tune, which would print hundreds of lines; the driver reports `error` and stops."""

    def decorate(method: Callable[..., T]) -> Callable[..., T]:
        @wraps(method)
        def guarded(self: "StudySearcher", *args: Any, **kwargs: Any) -> T:
            if self.error is not None:
                return on_error
            try:
                return method(self, *args, **kwargs)
            except Exception as error:
                logger.debug("the study's storage failed", exc_info=True)
                self.error = f"its storage failed: {_root_cause(error)}"
                return on_error

        return guarded

    return decorate


def _root_cause(error: BaseException) -> str:
    """Return the first line of the error that an error of Optuna's or SQLAlchemy's came from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {first_line(error)}"


class StudySearcher(Searcher):
    """Hands interrupted trials out again, then asks Optuna, up to the study's budget.

    A trial whose worker is lost counts as interrupted, up to a limit. Tune's own retries are not used: Tune counts a
    dead worker once for each message on its way there, and may fail the trial at the second.

    `make_task` turns a trial's number and its paths into the worker's task. No trial begins after `deadline`, a
    `time.monotonic()`. `error` is set once the study cannot go on.
    """

    def __init__(
        self,
        study: optuna.Study,
        plan: Plan,
        *,
        make_task: Callable[[int, Mapping[str, Any]], str],
        objectives: tuple[str, ...],
        deadline: float = math.inf,
    ) -> None:
        super().__init__()
        self._study, self._plan, self._make_task = study, plan, make_task
        self._objectives, self._deadline = objectives, deadline
        self.error: str | None = None
        self._max_concurrent = 1
        self._numbers: dict[str, int] = {}
        self._lost_workers: Counter[int] = Counter()
        self._interrupted = [t.number for t in self._trials() if t.state == TrialState.RUNNING]

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out: Tune's snapshots of a searcher are never read, and a study cannot be pickled."""
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "StudySearcher":
        """Return itself: there is one study."""
        return self

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Replace Tune's limiter, which loses the completions of trials that it has not started."""
        self._max_concurrent = max_concurrent
        return True

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **_: Any) -> bool:
        """Refuse a space of Tune's: the search space is Optuna's."""
        return False

    @_stops_the_study(str(Searcher.FINISHED))
    def suggest(self, trial_id: str) -> Any:  # type: ignore[override]
        """Return the next trial's task, None while all workers are busy, or FINISHED."""
        trials = self._trials()
        n_running = sum(trials[n].state == TrialState.RUNNING for n in self._numbers.values())
        if n_running >= self._max_concurrent:
            return None
        if time.monotonic() >= self._deadline:
            return str(Searcher.FINISHED)
        if self._interrupted:
            # repeats the parameters that it has, and draws those that it lacks
            trial = optuna.trial.Trial(self._study, trials[self._interrupted.pop(0)]._trial_id)
        elif sum(t.state != TrialState.WAITING for t in trials) < self._plan.n_trials:
            trial = self._study.ask()
        else:  # Tune does not ask again after FINISHED, and a trial that runs may come back
            return None if n_running else str(Searcher.FINISHED)
        constants = self._plan.suggest(trial)
        paths = {**trial.params, **constants}
        self._store(trial, TrialRecord(paths=paths))
        self._numbers[trial_id] = trial.number
        return {"number": trial.number, "task": self._make_task(trial.number, paths)}

    @_stops_the_study(None)
    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Store the epoch's report, and the best macro-F1 so far as the trial's value at this epoch."""
        trial = self._trial(trial_id)
        report = TrialReport.from_tune(result)
        if trial is None or trial.state.is_finished() or report is None:
            return
        self._store(trial, TrialRecord(report=report))
        epoch, value = report.last.epoch, report.best.value
        if len(self._objectives) > 1:
            # Optuna's sampler takes a pruned trial's intermediate values for those of a single objective
            self._store(trial, TrialRecord(values={**TrialRecord.of(trial).values, epoch: value}))
            return
        # Trial.report would do, but only on the object that `ask` gave, which does not outlive a driver
        self._study._storage.set_trial_intermediate_value(trial._trial_id, epoch, value)

    @_stops_the_study(None)
    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how the trial ended: COMPLETE after its last epoch, PRUNED before, FAIL for a reason."""
        trial = self._trial(trial_id)
        if trial is None or trial.state.is_finished():
            return
        if error and self._lost_workers[trial.number] < _MAX_LOST_WORKERS:
            self._lost_workers[trial.number] += 1
            self._interrupted.append(self._numbers.pop(trial_id))
            return
        result = result or {}
        if result.get(STOPS_STUDY):  # the trial resumes with the study
            self.error = str(result[FAILED])
            return
        self.on_trial_result(trial_id, result)
        reason = self._reason_to_fail(trial.number, result, error=error)
        if reason is not None:
            self._store(trial, TrialRecord(reason=reason))
            self._study.tell(trial.number, state=TrialState.FAIL)
        elif int(result["epoch"]) < self._epochs(trial.number):
            if time.monotonic() < self._deadline:  # else it is requeued, and resumes with the study
                self._store(trial, TrialRecord(reason="scheduler"))
                self._study.tell(trial.number, state=TrialState.PRUNED)
        else:
            self._study.tell(trial.number, [float(result[name]) for name in self._objectives])

    def _reason_to_fail(self, number: int, result: Mapping[str, Any], *, error: bool) -> str | None:
        if FAILED in result:
            return str(result[FAILED])
        report = TrialReport.from_tune(result)
        if error or report is None:
            return f"its worker was lost {_MAX_LOST_WORKERS + 1} times"
        if self._plan.reads_test and report.last.epoch >= self._epochs(number) and report.test is None:
            return "it ended without a reading of the test split"
        return None

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: the storage is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing: the storage is the state."""

    def _epochs(self, number: int) -> int:
        return self._plan.trial(number).spec.epochs

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _trial(self, trial_id: str) -> FrozenTrial | None:
        number = self._numbers.get(trial_id)
        return None if number is None else self._trials()[number]

    def _store(self, trial: FrozenTrial | optuna.Trial, record: TrialRecord) -> None:
        for name, value in record.attributes().items():
            self._study._storage.set_trial_user_attr(trial._trial_id, name, value)
