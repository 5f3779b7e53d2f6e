"""Progress of bytes that come or go: a bar with speed and time left on a terminal, a line now and then elsewhere.

Beside `harness.data.progress`, which counts items from 0: bytes have units, and a download may begin half-way.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Protocol, TextIO

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from harness.data.progress import LINE_SECONDS

ByteReport = Callable[[int, int | None], None]
"""Takes the bytes done and the bytes in all, None where nobody knows; what was done at the first call is not new."""


class ByteProgress(Protocol):
    """Something that reports bytes as they go by, such as `track_bytes` or `quiet_bytes`."""

    def __call__(self, label: str, /) -> AbstractContextManager[ByteReport]:
        """Give what is to be called with each new state."""
        ...


def track_bytes(label: str, /) -> AbstractContextManager[ByteReport]:
    """Report to stderr: a bar on a terminal, or else a line every 5 s and one at the end."""
    return _bytes_on_terminal(label) if sys.stderr.isatty() else bytes_in_lines(label)


@contextmanager
def quiet_bytes(label: str, /) -> Iterator[ByteReport]:  # noqa: ARG001
    """Report nothing."""
    yield lambda _done, _total: None


@contextmanager
def bytes_in_lines(
    label: str, /, *, stream: TextIO | None = None, line_seconds: float = LINE_SECONDS
) -> Iterator[ByteReport]:
    """Write a line to `stream` (stderr) now and then, and one at the end."""
    lines = _Lines(label, stream if stream is not None else sys.stderr, line_seconds)
    try:
        yield lines.report
    finally:
        lines.close()


class _Lines:
    """Lines about one transfer."""

    def __init__(self, label: str, stream: TextIO, line_seconds: float) -> None:
        self._label, self._stream, self._line_seconds = label, stream, line_seconds
        self._started = self._last = time.monotonic()
        self._first: int | None = None
        self._done = 0
        self._total: int | None = None

    def report(self, done: int, total: int | None) -> None:
        """Remember the state; write a line if the last one is long enough ago."""
        self._done, self._total = done, total
        if self._first is None:
            self._first, self._started = done, time.monotonic()
        if time.monotonic() - self._last >= self._line_seconds and done != total:
            self._last = time.monotonic()
            self._write()

    def close(self) -> None:
        """Write the last line, if there was anything to report."""
        if self._first is not None:
            self._write()

    def _write(self) -> None:
        seconds = time.monotonic() - self._started
        rate = (self._done - (self._first or 0)) / max(seconds, 1e-9)
        if self._total is not None and self._done < self._total:
            tail = f"{_clock((self._total - self._done) / rate)} left" if rate else "waiting"
        else:
            tail = f"took {_clock(seconds)}"
        of_all = "" if self._total is None else f" of {decimal(self._total)}"
        self._stream.write(f"{self._label}: {decimal(self._done)}{of_all}, {decimal(int(rate))}/s, {tail}\n")
        self._stream.flush()


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


@contextmanager
def _bytes_on_terminal(label: str) -> Iterator[ByteReport]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:

        def report(done: int, total: int | None) -> None:
            if not bar.tasks:  # only now, so that what was there before does not count as speed
                bar.add_task(label, total=total, completed=done)
            bar.update(bar.tasks[0].id, completed=done, total=total)

        yield report
