"""The benchmark's tables."""

from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

from harness.benchmarks.front_end import FrontEndSpeed
from harness.benchmarks.memory import BOUND_MB, Memory
from harness.benchmarks.overhead import Overhead
from harness.benchmarks.preparation import PreparationSpeed
from harness.benchmarks.reading import ReadingSpeed, Waiting
from harness.benchmarks.timing import Ratio
from harness.benchmarks.training import TrainingSpeed


def front_end_table(rows: Iterable[FrontEndSpeed]) -> Table:
    """Return clips a second of each way to the log-mel."""
    table = _table("Front end: clips a second of one core", "way", "clips/s", "times the released code's speed")
    for row in rows:
        table.add_row(row.way, f"{row.clips_per_core_second:.1f}", _words(row.ratio))
    return table


def preparation_table(rows: Iterable[PreparationSpeed]) -> Table:
    """Return clips a second of each way to prepare a data set."""
    columns = ("way", "clips/s", "a core", "times the released code's speed on a core", "times one thread's")
    table = _table("Preparation: clips a second, by the clock", *columns)
    for row in rows:
        speeds = f"{row.clips_per_second:.1f}", f"{row.clips_per_second / row.cores:.1f}"
        table.add_row(row.way, *speeds, _words(row.ratio), _words(row.scaling))
    return table


def reading_table(rows: Iterable[ReadingSpeed], waiting: Iterable[Waiting]) -> Table:
    """Return clips a second of each way to read a store, and how long training waits for its clips."""
    columns = ("way", "page cache", "clips/s", "batches/s", "times the memory map's speed")
    table = _table("Reading in random order", *columns)
    for row in rows:
        speeds = f"{row.clips_per_second:,.0f}", f"{row.batches_per_second:,.0f}"
        table.add_row(f"{row.way}, {row.store_gb:g} GB", row.page_cache, *speeds, _words(row.ratio))
    table.caption = "\n".join(
        f"training {row.backbone}, {row.page_cache}: {row.clips_per_second:.0f} clips/s, waits for clips "
        f"{row.share_waited:.2%} of the time; {_words(row.ratio)} times the speed without reading ahead"
        for row in waiting
    )
    return table


def memory_table(rows: Iterable[Memory]) -> Table:
    """Return the peak resident memory of each process."""
    table = _table("Memory: resident at most", "process", "MB", "by the end of")
    for row in rows:
        stages = ", ".join(f"{stage} {most:,.0f}" for stage, most in row.stages_mb.items())
        table.add_row(row.process, f"{row.peak_mb:,.0f}", stages)
    table.caption = f"a trial is to stay below {BOUND_MB:,} MB"
    return table


def training_table(rows: Iterable[TrainingSpeed]) -> Table:
    """Return samples a second of each reprogrammer."""
    columns = ("backbone", "precision", "reprogrammer", "batch", "ours", "transformers", "times transformers' speed")
    table = _table("Training step: samples a second", *columns)
    for row in rows:
        theirs = row.transformers_samples_per_second
        table.add_row(
            f"{Path(row.backbone).name} on {row.device}",
            row.precision,
            row.reprogrammer,
            str(row.batch),
            f"{row.samples_per_second:.3g}",
            "not installed" if theirs is None else f"{theirs:.3g}",
            "-" if row.ratio is None else _words(row.ratio),
        )
    return table


def overhead_table(overhead: Overhead) -> Table:
    """Return the cost of a trial beyond its training."""
    short, long = overhead.trials
    table = _table(f"Harness overhead, from studies of {short} and {long} trials, one at a time", "stage", "seconds")
    for stage, seconds in (
        ("a trial's cost beyond its training", overhead.per_trial),
        ("between the end of a trial and the training of the next", overhead.before_training),
        ("between the training of a trial and its end", overhead.after_training),
        ("training of a trial", overhead.training_per_trial),
        ("start of the command to first training step", overhead.to_first_training),
        (f"whole study of {short} trials", overhead.wall[0]),
        (f"whole study of {long} trials", overhead.wall[1]),
    ):
        table.add_row(stage, f"{seconds:.2f}")
    table.caption = (
        f"{overhead.worker_processes} worker process(es) ran {long} trials: workers are "
        f"{'' if overhead.are_workers_reused else 'not '}reused"
    )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left", min_width=len(title))
    for name in columns:
        table.add_column(name, no_wrap=True)
    return table


def _words(ratio: Ratio) -> str:
    return f"{ratio.median:.2f} ({ratio.lowest:.2f} to {ratio.highest:.2f})"
