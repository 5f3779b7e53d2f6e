"""The terminal output of a study: its first lines, its progress and its ranked table."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.live import Live
from rich.text import Text

from harness.common.tables import Column, fitted_table
from harness.study.plan import Plan
from harness.study.records import TrialRecord, TrialReport
from harness.study.results import Row, ranked_rows

_QUIET_SECONDS = 10.0

_TABLE_WIDTH = 140

_COLUMNS = (
    Column("rank", drop=5),
    Column("trial"),
    Column("macro-F1"),
    Column("positive F1", drop=2),
    Column("params", drop=1),
    Column("system", is_number=False),
    Column("mapper", is_number=False, drop=3),
    Column("schedule, rate", is_number=False, drop=4),
    Column("epochs", drop=6),
    Column("seconds", drop=7),
    Column("state", is_number=False),
)


@dataclass
class Progress:
    """Counts of a running study. Epochs count since this driver started; `mean_epochs` is over the ended trials.

    `noun` names the trials. `shows_best` is False where nothing is searched.
    """

    total: int
    noun: str = "trials"
    shows_best: bool = True
    done: int = 0
    stopped: int = 0
    failed: int = 0
    best: float | None = None
    best_number: int | None = None
    running: dict[int, int] = field(default_factory=dict)  # the epochs of each running trial, by number
    epochs_reported: int = 0
    mean_epochs: float = 0.0
    started: float = field(default_factory=time.monotonic)
    training_since: float | None = None
    deadline: float = float("inf")

    @property
    def ended(self) -> int:
        """Return the number of trials that ended, however."""
        return self.done + self.stopped + self.failed

    def seconds_left(self) -> float | None:
        """Return the expected time to the end, or None before the first epoch."""
        if not self.epochs_reported or self.training_since is None:
            return None
        elapsed = time.monotonic() - self.training_since
        left = (self.total - self.ended) * self.mean_epochs - sum(self.running.values())
        expected = elapsed / self.epochs_reported * max(left, len(self.running))
        return max(0.0, min(expected, self.deadline - time.monotonic()))

    def line(self) -> str:
        """Return the progress in one line."""
        stopped = f"{self.stopped} stopped early, " if self.shows_best else ""
        counts = f"{self.done} done, {stopped}{self.failed} failed, {len(self.running)} running"
        parts = [clock(time.monotonic() - self.started), f"{self.ended}/{self.total} {self.noun}: {counts}"]
        if self.shows_best:
            best = "none yet" if self.best is None else f"{self.best:.3f} (trial {self.best_number})"
            parts.append(f"best macro-F1 {best}")
        if (left := self.seconds_left()) is not None:
            parts.append(f"ETA {clock(left)}")
        return " · ".join(parts)


class StudyConsole:
    """Prints lines that stay, and a line of progress: rewritten on a terminal, repeated now and then elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or _console()
        self._live: Live | None = None
        self._last = 0.0

    def say(self, text: str = "") -> None:
        """Print a line."""
        self.console.print(text, markup=False)

    def header(self, facts: Sequence[tuple[str, str]]) -> None:
        """Print the settings of a study, a line each."""
        for name, fact in facts:
            self.say(f"{name:>10}  {fact}")

    def start(self) -> None:
        """Begin to show progress."""
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()

    def show(self, progress: Progress, *, now: bool = False) -> None:
        """Show the progress: at once on a terminal, else at most every ten seconds unless `now`."""
        if self._live is not None:
            self._live.update(Text(progress.line()))
        elif now or time.monotonic() - self._last > _QUIET_SECONDS:
            self._last = time.monotonic()
            self.say(progress.line())

    def stop(self) -> None:
        """End showing progress."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def table(self, title: str, rows: Sequence[Row]) -> None:
        """Print trials as a table, in the order given."""
        cells = [_cells(rank, row) for rank, row in enumerate(rows, 1)]
        self.console.print(fitted_table(title, _COLUMNS, cells, width=self.console.width), soft_wrap=False)
        if any(row.is_constant for row in rows):
            self.say("constant: its best epoch gives every clip the same answer for each label")


def _cells(rank: int, row: Row) -> list[str]:
    """Return the cells of a trial, in the order of the columns."""
    macro_f1, positive_f1 = ("-" if f1 is None else f"{f1:.3f}" for f1 in (row.macro_f1, row.positive_f1))
    params = "-" if row.params is None else f"{row.params:,}"
    state = f"{row.state}, constant" if row.is_constant else row.state
    cells = [str(rank), str(row.number), macro_f1, positive_f1, params, row.system, row.mapper, row.schedule]
    return [*cells, str(row.epochs), f"{row.seconds:.0f}", state]


def _console() -> Console:
    """Return a console as wide as the terminal; elsewhere as wide as `COLUMNS`, or as the table."""
    console = Console(highlight=False, soft_wrap=True)
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(highlight=False, soft_wrap=True, width=_TABLE_WIDTH)


def clock(seconds: float) -> str:
    """Return seconds as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Reporter:
    """Prints a line for each trial that ends, and the progress of the study in between."""

    def __init__(self, study: optuna.Study, console: StudyConsole, *, plan: Plan, deadline: float, epochs: int) -> None:
        self._study, self._console, self._plan = study, console, plan
        self._progress = Progress(
            plan.n_trials,
            noun="runs" if plan.reads_test else "trials",
            shows_best=not plan.reads_test,
            deadline=deadline,
            mean_epochs=float(epochs),
        )
        self._announced = {trial.number for trial in self._trials() if trial.state.is_finished()}
        self._count()

    def start(self, number: int) -> None:
        """Count a trial as running."""
        self._progress.training_since = self._progress.training_since or time.monotonic()
        self._progress.running[number] = 0
        self._console.show(self._progress)

    def epoch(self, report: TrialReport) -> None:
        """Count an epoch."""
        self._progress.epochs_reported += 1
        self._progress.running[report.number] = report.last.epoch
        best = report.best.value
        if self._progress.best is None or best > self._progress.best:
            self._progress.best, self._progress.best_number = best, report.number
        self._console.show(self._progress)

    def end(self, number: int) -> None:
        """Count a trial as running no longer; the storage knows how it ended."""
        self._progress.running.pop(number, None)

    def lose_worker(self, number: int) -> None:
        """Announce that a trial lost its worker; unless the storage has given the trial up, it continues on another."""
        if not self._trials()[number].state.is_finished():
            title = self._plan.trial(number).title
            self._console.say(f"{title}: its worker was lost; it goes on from its last epoch")
        self.end(number)

    def announce(self) -> None:
        """Print a line for each trial that has ended since the last call, and the progress."""
        new = [t for t in self._trials() if t.state.is_finished() and t.number not in self._announced]
        for trial in new:
            for row in ranked_rows([trial]):  # none, if it was never drawn to its end
                self._console.say(self._announcement(trial, row))
        self._announced |= {trial.number for trial in new}
        self._count()
        if new:
            self._console.show(self._progress, now=True)

    def _announcement(self, trial: FrozenTrial, row: Row) -> str:
        report = TrialRecord.of(trial).report
        test = report.test if report else None
        details = [] if test is None else [f"test macro-F1 {test['macro_f1']:.3f}"]
        if row.macro_f1 is not None:
            details.append(f"{'validation ' if test else ''}macro-F1 {row.macro_f1:.3f}")
        details += [] if row.params is None else [f"{row.params:,} parameters"]
        details += [word for word in (row.system, row.mapper, row.schedule) if word != "-"]
        details += [f"{row.epochs} epochs", clock(row.seconds)]
        reason = f": {row.reason}" if row.reason and row.state == "failed" else ""
        return f"{self._plan.trial(row.number).title} {row.state}{reason} ({', '.join(details)})"

    def _count(self) -> None:
        trials, progress = self._trials(), self._progress
        states = Counter(trial.state for trial in trials)
        progress.done, progress.stopped = states[TrialState.COMPLETE], states[TrialState.PRUNED]
        progress.failed = states[TrialState.FAIL]
        epochs = [report.last.epoch for trial in trials if (report := TrialRecord.of(trial).report)]
        if epochs:
            progress.mean_epochs = sum(epochs) / len(epochs)
        best = next((row for row in ranked_rows(trials) if row.macro_f1 is not None), None)
        if best is not None:
            progress.best, progress.best_number = best.macro_f1, best.number

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)
