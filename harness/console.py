"""What a study shows on the terminal: its first lines, its progress and its ranked table."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.results import Row

_QUIET_SECONDS = 10.0
_TABLE_WIDTH = 130


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
        table = Table(title=title, title_justify="left")
        for name, justify in _COLUMNS:
            table.add_column(name, justify="right" if justify else "left", no_wrap=True)
        for rank, row in enumerate(rows, 1):
            table.add_row(*_cells(rank, row))
        self.console.print(table, soft_wrap=False)


_COLUMNS = (
    ("rank", True),
    ("trial", True),
    ("macro-F1", True),
    ("params", True),
    ("system", False),
    ("mapper", False),
    ("schedule, rate", False),
    ("epochs", True),
    ("seconds", True),
    ("state", False),
)


def _console() -> Console:
    """Return a console that is as wide as the terminal, or as the table where there is none."""
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=_TABLE_WIDTH)


def _cells(rank: int, row: Row) -> tuple[str, ...]:
    return (
        str(rank),
        str(row.number),
        "-" if row.macro_f1 is None else f"{row.macro_f1:.3f}",
        "-" if row.params is None else f"{row.params:,}",
        row.system,
        row.mapper,
        row.schedule,
        str(row.epochs),
        f"{row.seconds:.0f}",
        row.state,
    )


def clock(seconds: float) -> str:
    """Return seconds as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
