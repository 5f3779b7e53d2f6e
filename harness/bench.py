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
from collections.abc import Collection, Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, RenderableType

from harness.common.cli import report_errors
from harness.common.ray_start import cpu_count
from harness.config.checks import one_of
from harness.config.study import PRECISIONS
from harness.config.trial import REPROGRAMMERS

if TYPE_CHECKING:
    from harness.benchmarks.timing import Measurement
    from harness.benchmarks.training import TrainingPlan

PARTS = ("front-end", "preparation", "reading", "training", "memory", "overhead")
BACKBONES = ("ast-nano", "ast-base384-random")
_ROUNDS = {part: 3 if part == "overhead" else 5 for part in PARTS}
_DEMO_CLIPS = 400
_WIDTH = 130

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
    """Measure the requested parts and print them."""
    with report_errors(lambda: "run the same command again"):
        parts = _chosen("only", only, PARTS)
        chosen = _chosen("precisions", precisions, PRECISIONS), _chosen("reprogrammers", reprogrammers, REPROGRAMMERS)
        # loads torch, which a wrong flag and --help need not wait for
        from harness.benchmarks.training import TrainingPlan  # noqa: PLC0415

        plan = TrainingPlan(backbones.split(","), *chosen, rounds=rounds or _ROUNDS["training"])
        threads = threads or cpu_count()
        results: dict[str, Any] = {"environment": environment(plan.device, threads)}
        tables: list[RenderableType] = []
        for part in parts:
            typer.echo(f"{part}: measuring", err=True)
            found = _measure(part, plan, rounds=rounds or _ROUNDS[part], threads=threads, store_gb=store_gb)
            results[part] = [asdict(measurement) for measurement in found]
            tables += [measurement.table() for measurement in found]
    results["environment"]["load_after"] = os.getloadavg()[0]
    if as_json:
        print(json.dumps(results, indent=2))
    else:
        _show(results["environment"], tables)


def _measure(part: str, plan: "TrainingPlan", *, rounds: int, threads: int, store_gb: float) -> "Sequence[Measurement]":
    from harness.benchmarks import front_end, memory, overhead, reading, timing, training  # noqa: PLC0415

    with timing.torch_threads(threads):
        match part:
            case "front-end":
                return [front_end.measure_front_end(rounds=rounds)]
            case "preparation":
                return [front_end.measure_preparation(rounds=rounds)]
            case "reading":
                read = reading.measure_reading(store_gb=store_gb, rounds=rounds)
                return [read, reading.measure_waiting(rounds=rounds)]
            case "training":
                return [training.measure_training(plan)]
            case "memory":
                return [memory.measure_memory()]
            case _:
                overhead.prepare_demo(_DEMO_CLIPS)
                return [overhead.measure_overhead(rounds=rounds, demo_clips=_DEMO_CLIPS)]


def environment(device: str, threads: int) -> dict[str, Any]:
    """Return the conditions of the figures: machine, load (mean of the last minute) and versions."""
    import torch  # noqa: PLC0415

    return {
        "machine": torch.cuda.get_device_name(device) if device == "cuda" else _cpu(),
        "device": device,
        "cores": cpu_count(),
        "threads": threads,
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "torchaudio", "timm", "ray")},
        "transformers": version("transformers") if find_spec("transformers") else "not installed",
    }


def _show(facts: dict[str, Any], tables: list[RenderableType]) -> None:
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


def _chosen(flag: str, text: str, choices: Collection[str]) -> tuple[str, ...]:
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


if __name__ == "__main__":
    sys.exit(app())
