"""Tune's early-stopping schedulers, made to resume a study that another driver began.

A scheduler of Tune's remembers its rungs by Tune's trial ids, which change with every driver. Here it sees Optuna's
numbers instead, and replays every stored epoch before the first trial starts.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from harness.common.registry import resolve
from harness.config.study import SCHEDULERS

METRIC, TIME = "best_macro_f1", "epoch"


@dataclass(frozen=True)
class _StandIn:
    """A trial for a scheduler: an id that lasts as long as the study."""

    trial_id: str


def make_asha(epochs: int) -> TrialScheduler:
    """Return ASHA, which stops the worse half at each rung from the second epoch on."""
    return AsyncHyperBandScheduler(
        time_attr=TIME,
        metric=METRIC,
        mode="max",
        max_t=epochs,
        grace_period=min(2, epochs),
        reduction_factor=2,
    )


def make_median(epochs: int) -> TrialScheduler:  # noqa: ARG001
    """Return the median rule, which stops a trial whose best is below the median of the others' means."""
    # a time slice without end keeps the rule from pausing trials to gather samples; a soft stop, which reaches
    # Tune as a stop all the same, keeps it from asserting that a trial it would have stopped reports no more: the
    # replay judges in another order than the first driver did
    forever: Any = math.inf
    return MedianStoppingRule(
        time_attr=TIME, metric=METRIC, mode="max", grace_period=2, min_time_slice=forever, hard_stop=False
    )


def make_none(epochs: int) -> TrialScheduler:  # noqa: ARG001
    """Return the scheduler that stops no trial."""
    return FIFOScheduler()  # type: ignore[no-untyped-call]


class StudyScheduler(FIFOScheduler):
    """Runs trials in order and asks a scheduler of Tune's, by study number, which to stop.

    `history` maps the number of each trial of the study to its stored values by epoch.
    """

    def __init__(self, kind: str, *, epochs: int, history: Mapping[int, Mapping[int, float]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inner: Any = resolve(SCHEDULERS[kind])(epochs)
        self._seen: set[tuple[str, int]] = set()
        for number, values in sorted(history.items()):
            self._replay(_StandIn(str(number)), sorted(values.items()))

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Begin to follow a trial."""
        self._inner.on_trial_add(tune_controller, self._stand_in(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return whether the trial goes on; an epoch that was reported before decides nothing."""
        stand_in = self._stand_in(trial)
        seen = (stand_in.trial_id, result.get(TIME, -1))
        if METRIC not in result or seen in self._seen:
            return str(TrialScheduler.CONTINUE)
        self._seen.add(seen)
        decision = self._inner.on_trial_result(tune_controller, stand_in, result)
        return str(TrialScheduler.CONTINUE if decision == TrialScheduler.CONTINUE else TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """End following a trial that reached its end."""
        if METRIC in result:
            self._inner.on_trial_complete(tune_controller, self._stand_in(trial), result)

    def debug_string(self) -> str:
        """Return the inner scheduler's state."""
        return str(self._inner.debug_string())

    def _replay(self, stand_in: _StandIn, values: Iterable[tuple[int, float]]) -> None:
        self._inner.on_trial_add(None, stand_in)
        for epoch, value in values:
            self._seen.add((stand_in.trial_id, epoch))
            self._inner.on_trial_result(None, stand_in, {TIME: epoch, METRIC: value})

    @staticmethod
    def _stand_in(trial: Any) -> _StandIn:
        return _StandIn(str(trial.config["number"]))
