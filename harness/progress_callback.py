"""Progress of a study, from Tune's events and the Optuna storage."""

import json
import logging
import time
from typing import Any

import optuna
from optuna.trial import TrialState
from ray import tune

from harness.console import Progress, StudyConsole, clock
from harness.plan import Plan
from harness.results import Row, ranked_rows
from harness.searcher import SUMMARY, TEST

logger = logging.getLogger(__name__)


class ProgressCallback(tune.Callback):
    """Prints a line for each trial that ends, and the state of the study in between."""

    def __init__(self, study: optuna.Study, console: StudyConsole, *, plan: Plan, deadline: float, epochs: int) -> None:
        self._study, self._console, self._plan = study, console, plan
        self._progress = Progress(
            plan.n_trials,
            noun="runs" if plan.reads_test else "trials",
            shows_best=not plan.reads_test,
            deadline=deadline,
            mean_epochs=float(epochs),
        )
        self._announced = {t.number for t in study.get_trials(deepcopy=False) if t.state.is_finished()}
        self._has_news = False
        self._count()

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out: Tune's snapshots are never read, and a study cannot be pickled."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Count a trial as running."""
        self._progress.training_since = self._progress.training_since or time.monotonic()
        self._progress.running.add(trial.config["number"])
        self._console.show(self._progress)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Any],
        trial: Any,
        result: dict[str, Any],
        **_: Any,
    ) -> None:
        """Count an epoch."""
        if "best_macro_f1" not in result:
            return
        self._progress.epochs_reported += 1
        self._progress.epochs_in_running[result["number"]] = result["epoch"]
        if self._progress.best is None or result["best_macro_f1"] > self._progress.best:
            self._progress.best, self._progress.best_number = result["best_macro_f1"], result["number"]
        self._console.show(self._progress)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Note that a trial ended; the storage will say how."""
        self._end(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Note that a trial's worker was lost; unless the storage has given the trial up, another takes it up."""
        number = trial.config["number"]
        if not self._study.get_trials(deepcopy=False)[number].state.is_finished():
            self._console.say(f"{self._plan.title(number)}: its worker was lost; it goes on from its last epoch")
        self._end(trial)

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        """Announce what has ended since the last step."""
        if self._has_news:
            self._has_news = False
            self.announce()

    def on_experiment_end(self, trials: list[Any], **_: Any) -> None:
        """Announce what has ended last."""
        self.announce()

    def announce(self) -> None:
        """Print a line for each trial that ended and was not yet announced, and the progress."""
        ended = [t for t in self._study.get_trials(deepcopy=False) if t.state.is_finished()]
        new = [t for t in ended if t.number not in self._announced]
        for row in sorted(ranked_rows(new), key=lambda row: row.number):
            self._console.say(self._announcement(row))
        self._announced |= {t.number for t in new}
        self._count()
        if new:
            self._console.show(self._progress, now=True)

    def _announcement(self, row: Row) -> str:
        attributes = self._study.get_trials(deepcopy=False)[row.number].user_attrs
        test = json.loads(attributes.get(TEST, "null"))
        figures = [] if test is None else [f"test macro-F1 {test['macro_f1']:.3f}"]
        if row.macro_f1 is not None:
            figures.append(f"{'validation ' if test else ''}macro-F1 {row.macro_f1:.3f}")
        parameters = [] if row.params is None else [f"{row.params:,} parameters"]
        words = [word for word in (row.system, row.mapper, row.schedule) if word != "-"]
        reason = f": {row.reason}" if row.reason and row.state == "failed" else ""
        detail = ", ".join([*figures, *parameters, *words, f"{row.epochs} epochs", clock(row.seconds)])
        return f"{self._plan.title(row.number)} {row.state}{reason} ({detail})"

    def _end(self, trial: Any) -> None:
        self._progress.running.discard(trial.config["number"])
        self._progress.epochs_in_running.pop(trial.config["number"], None)
        self._has_news = True

    def _count(self) -> None:
        trials = self._study.get_trials(deepcopy=False)
        by_state = {state: [t for t in trials if t.state == state] for state in TrialState}
        progress = self._progress
        progress.done, progress.stopped = len(by_state[TrialState.COMPLETE]), len(by_state[TrialState.PRUNED])
        progress.failed = len(by_state[TrialState.FAIL])
        ended = [json.loads(t.user_attrs[SUMMARY])["epochs"] for t in trials if SUMMARY in t.user_attrs]
        if ended:
            progress.mean_epochs = sum(ended) / len(ended)
        best = next((row for row in ranked_rows(trials) if row.macro_f1 is not None), None)
        if best is not None:
            progress.best, progress.best_number = best.macro_f1, best.number
