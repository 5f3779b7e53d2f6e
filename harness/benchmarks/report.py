"""The benchmark's tables."""

from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

from harness.benchmarks.front_end import FrontEndSpeed
from harness.benchmarks.overhead import Overhead
from harness.benchmarks.timing import Ratio
from harness.benchmarks.training import TrainingSpeed


def front_end_table(rows: Iterable[FrontEndSpeed]) -> Table:
    """Return clips a second of each way to the log-mel."""
    table = _table("Front end: clips a second of one core", "way", "clips/s", "times the released code's speed")
    for row in rows:
        table.add_row(row.way, f"{row.clips_per_core_second:.1f}", _words(row.ratio))
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
    """Return what a trial costs beyond its training."""
    short, long = overhead.trials
    table = _table(f"Harness overhead, from studies of {short} and {long} trials, one at a time", "what", "seconds")
    for what, seconds in (
        ("a trial's cost beyond its training", overhead.per_trial),
        ("between the end of a trial and the training of the next", overhead.before_training),
        ("between the training of a trial and its end", overhead.after_training),
        ("training of a trial", overhead.training_per_trial),
        ("start of the command to first training step", overhead.to_first_training),
        (f"whole study of {short} trials", overhead.wall[0]),
        (f"whole study of {long} trials", overhead.wall[1]),
    ):
        table.add_row(what, f"{seconds:.2f}")
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
