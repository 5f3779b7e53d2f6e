"""Fair comparisons: the ways of doing a piece of work take turns, so a slow minute of the machine hits them all.

A ratio says how many times as fast as its baseline a way is: above 1 is faster. It is the median over rounds of the
two times of one round, and so not exactly the quotient of two medians.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.table import Table

_ROUNDS_AT_LEAST = 3


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as its baseline: the median over rounds, and the extremes."""

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f} to {self.highest:.2f})"


Cell = str | int | float | Ratio | Mapping[str, float] | None
Row = dict[str, Cell]


@dataclass(frozen=True)
class Measurement:
    """The figures of a part: rows with the same columns. The caption says what a ratio compares with."""

    title: str
    rows: Sequence[Row]
    caption: str = ""

    def table(self) -> Table:
        """Return the rows as a table whose columns never fold."""
        table = Table(title=self.title, title_justify="left", caption=self.caption, caption_justify="left")
        for name in self.rows[0]:
            table.add_column(name.replace("_", " "), no_wrap=True)
        for row in self.rows:
            table.add_row(*(_text(cell) for cell in row.values()))
        return table


def _text(cell: Cell) -> str:
    match cell:
        case None:
            return "-"
        case float():
            return f"{cell:,.0f}" if cell >= 100 else f"{cell:.3g}"
        case Mapping():
            return ", ".join(f"{name} {_text(value)}" for name, value in cell.items())
        case _:
            return str(cell)


def interleaved(
    ways: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    limit_seconds: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
    before_each: Callable[[], object] = lambda: None,
) -> dict[str, tuple[float, ...]]:
    """Return the seconds that each way took in each round, by `clock`: A B C, A B C, and so on.

    `before_each` runs before each way and is not counted. One uncounted round goes before all. No round begins after
    `limit_seconds` of wall time, except that three, or `rounds` if fewer, are always done.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    started = time.perf_counter()
    for done in range(rounds):
        if done >= _ROUNDS_AT_LEAST and time.perf_counter() - started > limit_seconds:
            break
        for name, way in ways.items():
            before_each()
            before = clock()
            way()
            seconds[name].append(clock() - before)
    return {name: tuple(values) for name, values in seconds.items()}


def speed(work: float, seconds: Sequence[float]) -> float:
    """Return the units of work a second in the median round."""
    return work / statistics.median(seconds)


def ratio(seconds: Sequence[float], baseline: Sequence[float]) -> Ratio:
    """Compare a way with its baseline, round by round."""
    quotients = [theirs / ours for ours, theirs in zip(seconds, baseline, strict=True)]
    return Ratio(statistics.median(quotients), min(quotients), max(quotients))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute on `count` threads inside, and on as many as before outside."""
    import torch  # noqa: PLC0415  the process whose reading `memory` measures must not hold torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
