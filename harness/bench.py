"""Measure this project's speed on this machine.

    python -m harness.bench
    python -m harness.bench --only training --backbones ast-nano --rounds 9 --json

Every speed stands beside a baseline that was measured in turns with it; a ratio above 1 is faster than the baseline.
Ratios are medians over rounds, with the lowest and the highest round in brackets.
"""

import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console, RenderableType

from harness.benchmarks import report
from harness.benchmarks.front_end import measure_front_end
from harness.benchmarks.memory import measure_memory
from harness.benchmarks.overhead import measure_overhead, prepare_demo
from harness.benchmarks.preparation import measure_preparation
from harness.benchmarks.reading import measure_reading, measure_waiting
from harness.benchmarks.timing import torch_threads
from harness.benchmarks.training import BACKBONES, TrainingPlan, measure_training
from harness.common.cli import EXIT_REFUSED
from harness.common.progress import track
from harness.config.checks import one_of
from harness.config.study import PRECISIONS
from harness.config.trial import REPROGRAMMERS

PARTS = ("front-end", "preparation", "reading", "training", "memory", "overhead")
_ROUNDS = {part: 3 if part == "overhead" else 5 for part in PARTS}
_DEMO_CLIPS = 400
_WIDTH = 130

Measured = tuple[Any, RenderableType]
"""Figures for JSON, and their table."""
Measure = Callable[[int], Measured]

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    only: Annotated[str, typer.Option(help="Parts to measure, with commas between.")] = ",".join(PARTS),
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of each comparison. [5; of studies 3]")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the training step. [all cores]")] = None,
    backbones: Annotated[str, typer.Option(help="Backbones of the training step.")] = ",".join(BACKBONES),
    precisions: Annotated[str, typer.Option(help="Precisions of the training step.")] = ",".join(PRECISIONS),
    reprogrammers: Annotated[str, typer.Option(help="Reprogrammers of the training step.")] = ",".join(REPROGRAMMERS),
    store_gb: Annotated[float, typer.Option(min=0.01, help="Size of the store that is read; OpenMIC's is 5.2.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Measure the parts asked for and print them."""
    try:
        parts = _chosen("only", only, PARTS)
        plan = TrainingPlan(
            backbones=backbones.split(","),
            precisions=_chosen("precisions", precisions, tuple(PRECISIONS)),
            reprogrammers=_chosen("reprogrammers", reprogrammers, tuple(REPROGRAMMERS)),
            rounds=rounds or _ROUNDS["training"],
            device="cuda" if torch.cuda.is_available() else "cpu",
        )
        threads = threads or len(os.sched_getaffinity(0))
        results: dict[str, Any] = {"environment": environment(plan.device, threads)}
        measures = _measures(plan, threads=threads, store_gb=store_gb)
        tables = []
        for part in parts:
            typer.echo(f"{part}: measuring", err=True)
            results[part], table = measures[part](rounds or _ROUNDS[part])
            tables.append(table)
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_REFUSED) from None
    results["environment"]["load_after"] = os.getloadavg()[0]
    _show(results, tables, as_json=as_json)


def environment(device: str, threads: int) -> dict[str, Any]:
    """Return the conditions of the figures: machine, load (mean of the last minute) and versions."""
    return {
        "machine": torch.cuda.get_device_name(device) if device == "cuda" else _cpu(),
        "device": device,
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        **{package: _version(package) for package in ("torch", "torchaudio", "timm", "transformers", "ray")},
    }


def _measures(plan: TrainingPlan, *, threads: int, store_gb: float) -> dict[str, Measure]:
    """Return the function for each part, which takes the rounds and returns figures and table."""
    return {
        "front-end": _front_end,
        "preparation": _preparation,
        "reading": lambda rounds: _reading(rounds, store_gb=store_gb, threads=threads),
        "training": lambda _: _training(plan, threads=threads),
        "memory": lambda _: _memory(),
        "overhead": _overhead,
    }


def _front_end(rounds: int) -> Measured:
    speeds = measure_front_end(rounds=rounds)
    return [asdict(row) for row in speeds], report.front_end_table(speeds)


def _preparation(rounds: int) -> Measured:
    speeds = measure_preparation(rounds=rounds)
    return [asdict(row) for row in speeds], report.preparation_table(speeds)


def _reading(rounds: int, *, store_gb: float, threads: int) -> Measured:
    with torch_threads(threads):
        speeds, waiting = measure_reading(store_gb=store_gb, rounds=rounds), measure_waiting(rounds=rounds)
    figures = {"store": [asdict(row) for row in speeds], "training": [asdict(row) for row in waiting]}
    return figures, report.reading_table(speeds, waiting)


def _training(plan: TrainingPlan, *, threads: int) -> Measured:
    total = len(plan.backbones) * len(plan.precisions) * len(plan.reprogrammers)
    with torch_threads(threads):
        rows = list(track(measure_training(plan), total=total, label="training"))
    return [asdict(row) for row in rows], report.training_table(rows)


def _memory() -> Measured:
    rows = list(measure_memory())
    return [{**asdict(row), "peak_mb": row.peak_mb} for row in rows], report.memory_table(rows)


def _overhead(rounds: int) -> Measured:
    prepare_demo(_DEMO_CLIPS)
    overhead = measure_overhead(rounds=rounds, demo_clips=_DEMO_CLIPS)
    return {**asdict(overhead), "are_workers_reused": overhead.are_workers_reused}, report.overhead_table(overhead)


def _show(results: dict[str, Any], tables: Sequence[RenderableType], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(results, indent=2))
        return
    facts = results["environment"]
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, soft_wrap=True, width=_WIDTH)
    console.print(
        f"{facts['machine']}, {facts['cores']} cores, {facts['threads']} threads, torch {facts['torch']}, "
        f"load {facts['load_before']:.1f} before and {facts['load_after']:.1f} after",
        markup=False,
    )
    for table in tables:
        console.print()
        console.print(table, soft_wrap=False)


def _chosen(flag: str, text: str, choices: tuple[str, ...]) -> tuple[str, ...]:
    """Return the choices that a flag names, with commas between."""
    values = tuple(text.split(","))
    for value in values:
        one_of(flag, value, choices)
    return values


def _cpu() -> str:
    """Return the processor's name, where Linux gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(app())
