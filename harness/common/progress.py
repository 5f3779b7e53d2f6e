"""Progress of a long loop: a bar with rate and time left on a terminal, a line every five seconds elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TextIO, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.text import Text

T = TypeVar("T")


class Progress(Protocol):
    """Reports the progress of a loop, as `track` and `quiet` do."""

    def __call__(self, iterable: Iterable[T], /, *, total: int, label: str) -> Iterator[T]:
        """Yield what `iterable` yields, reporting progress towards `total`."""
        ...


def track(iterable: Iterable[T], /, *, total: int, label: str) -> Iterator[T]:
    """Yield what `iterable` yields, reporting done of total, items per second and time left to stderr.

    A terminal gets a bar; a log file gets one line every 5 s and one at the end.
    """
    tracked = _track_on_terminal if sys.stderr.isatty() else track_in_lines
    return tracked(iterable, total=total, label=label)


def quiet(iterable: Iterable[T], /, *, total: int, label: str) -> Iterator[T]:  # noqa: ARG001
    """Yield what `iterable` yields and report nothing."""
    return iter(iterable)


def track_in_lines(
    iterable: Iterable[T],
    /,
    *,
    total: int,
    label: str,
    stream: TextIO | None = None,
    line_seconds: float = 5.0,
) -> Iterator[T]:
    """Yield what `iterable` yields; write a line to `stream` (stderr) every `line_seconds` and one at the end.

    Rate and time left count from the first item, since workers may have to start before it. The last line covers the
    whole loop.
    """
    started = first = last = time.monotonic()
    done = 0
    for done, item in enumerate(iterable, 1):
        if done == 1:
            first = last = time.monotonic()
        yield item
        now = time.monotonic()
        if now - last >= line_seconds and 1 < done < total:
            last = now
            rate = (done - 1) / max(now - first, 1e-9)
            _write_line(f"{label}: {done}/{total}, {rate:.1f}/s, {_clock((total - done) / rate)} left", stream)
    seconds = time.monotonic() - started
    _write_line(f"{label}: {done}/{total}, {done / max(seconds, 1e-9):.1f}/s, took {_clock(seconds)}", stream)


def _write_line(line: str, stream: TextIO | None) -> None:
    out = stream if stream is not None else sys.stderr
    out.write(f"{line}\n")
    out.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


class _RateColumn(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        """Show the rate of the last half minute, or of the whole task once it is finished."""
        rate = task.finished_speed or task.speed
        return Text("" if rate is None else f"{rate:.1f}/s")


def _track_on_terminal(iterable: Iterable[T], *, total: int, label: str) -> Iterator[T]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        yield from bar.track(iterable, total=total, description=label)
