"""The terminal output of a study: its first lines, its progress and its ranked table."""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.trial import TrialState
from ray import tune
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.study.plan import Plan
from harness.study.records import TrialRecord, TrialReport
from harness.study.results import Row, ranked_rows

_QUIET_SECONDS = 10.0

_TABLE_WIDTH = 140


@dataclass
class Progress:
    """Counts of a running study. Epochs count since this driver started; `mean_epochs` is of the ended trials.

    `noun` is what is counted; `best` may be left out of the line where nothing is searched.
    """

    total: int
    noun: str = "trials"
    shows_best: bool = True
    done: int = 0
    stopped: int = 0
    failed: int = 0
    running: set[int] = field(default_factory=set)
    best: float | None = None
    best_number: int | None = None
    epochs_reported: int = 0
    epochs_in_running: dict[int, int] = field(default_factory=dict)
    mean_epochs: float = 0.0
    started: float = field(default_factory=time.monotonic)
    training_since: float | None = None
    deadline: float = float("inf")

    @property
    def ended(self) -> int:
        """Return the number of trials that ended, however."""
        return self.done + self.stopped + self.failed

    def seconds_left(self) -> float | None:
        """Return the expected time to the end, or None before there is anything to go by."""
        if not self.epochs_reported or self.training_since is None:
            return None
        elapsed = time.monotonic() - self.training_since
        left = (self.total - self.ended) * self.mean_epochs - sum(self.epochs_in_running.values())
        expected = elapsed / self.epochs_reported * max(left, len(self.running))
        return max(0.0, min(expected, self.deadline - time.monotonic()))

    def line(self) -> str:
        """Return the progress in one line."""
        best = "none yet" if self.best is None else f"{self.best:.3f} (trial {self.best_number})"
        left = self.seconds_left()
        parts = [
            clock(time.monotonic() - self.started),
            f"{self.ended}/{self.total} {self.noun}: {self._counts()}",
            *([f"best macro-F1 {best}"] if self.shows_best else []),
            *([] if left is None else [f"ETA {clock(left)}"]),
        ]
        return " · ".join(parts)

    def _counts(self) -> str:
        stopped = [f"{self.stopped} stopped early"] if self.shows_best else []
        return ", ".join([f"{self.done} done", *stopped, f"{self.failed} failed", f"{len(self.running)} running"])


class StudyConsole:
    """Prints lines that stay, and one line of progress that is rewritten on a terminal and repeated elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or _console()
        self._live: Live | None = None
        self._last = 0.0

    def say(self, text: str = "") -> None:
        """Print a line."""
        self.console.print(text, markup=False)

    def header(self, facts: Sequence[tuple[str, str]]) -> None:
        """Print what the study uses, a line each."""
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
        cells = [{c.name: c.cell(rank, row) for c in _COLUMNS} for rank, row in enumerate(rows, 1)]
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        columns = _fitting(cells, self.console.width)
        for column in columns:
            table.add_column(column.name, justify=column.justify, no_wrap=column.name != "system", overflow="fold")
        for row in cells:
            table.add_row(*(row[column.name] for column in columns))
        self.console.print(table, soft_wrap=False)
        if any(row.is_constant for row in rows):
            self.say("constant: its best epoch gives every clip the same answer for each label")


@dataclass(frozen=True)
class _Column:
    """A column of the table. Where the terminal is narrow, the columns of the lowest `priority` are dropped."""

    name: str
    priority: int
    justify: Literal["left", "right"]
    cell: Callable[[int, Row], str]


_COLUMNS = (
    _Column("rank", 3, "right", lambda rank, _: str(rank)),
    _Column("trial", 9, "right", lambda _, row: str(row.number)),
    _Column("macro-F1", 9, "right", lambda _, row: _figure(row.macro_f1)),
    _Column("positive F1", 6, "right", lambda _, row: _figure(row.positive_f1)),
    _Column("params", 7, "right", lambda _, row: "-" if row.params is None else f"{row.params:,}"),
    _Column("system", 9, "left", lambda _, row: row.system),
    _Column("mapper", 5, "left", lambda _, row: row.mapper),
    _Column("schedule, rate", 4, "left", lambda _, row: row.schedule),
    _Column("epochs", 2, "right", lambda _, row: str(row.epochs)),
    _Column("seconds", 1, "right", lambda _, row: f"{row.seconds:.0f}"),
    _Column("state", 8, "left", lambda _, row: f"{row.state}, constant" if row.is_constant else row.state),
)


def _fitting(cells: Sequence[Mapping[str, str]], width: int) -> list[_Column]:
    """Return the columns that fit a terminal, in their order: no number is cut; only the system may wrap."""
    columns = list(_COLUMNS)

    def needed() -> int:
        longest = (max(len(column.name), *(len(row[column.name]) for row in cells), 0) for column in columns)
        return sum(longest) + 2 * len(columns)

    while needed() > width and (least := min(columns, key=lambda column: column.priority)).priority < 8:
        columns.remove(least)
    return columns


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


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
        report = TrialReport.from_tune(result)
        if report is None:
            return
        self._progress.epochs_reported += 1
        self._progress.epochs_in_running[report.number] = report.last.epoch
        best = report.best.value
        if self._progress.best is None or best > self._progress.best:
            self._progress.best, self._progress.best_number = best, report.number
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
        report = TrialRecord.of(self._study.get_trials(deepcopy=False)[row.number]).report
        test = report.test if report else None
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
        ended = [report.last.epoch for t in trials if (report := TrialRecord.of(t).report)]
        if ended:
            progress.mean_epochs = sum(ended) / len(ended)
        best = next((row for row in ranked_rows(trials) if row.macro_f1 is not None), None)
        if best is not None:
            progress.best, progress.best_number = best.macro_f1, best.number
