"""The results of a study, read from its storage alone: the ranked trials, the Pareto front, the grid of a table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from harness.config.space import configuration_of, papers_within
from harness.config.trial import TrialConfig
from harness.study.records import TrialRecord
from search_spaces import Space

STATE_WORDS = {
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "interrupted",
    TrialState.WAITING: "interrupted",
}


@dataclass(frozen=True)
class Row:
    """One trial of the final table.

    `macro_f1` and `positive_f1` are those of its best epoch, on validation; None if it had none, as is `params` where
    none can be counted. `system`, `mapper` and `schedule` are short texts; a component that the system does not use is
    "-". `worker` is the Ray node and the process of its last epoch. `is_constant` marks predictions that give every
    clip the same answer for each label, `is_best` a member of the Pareto front.
    """

    number: int
    state: str
    macro_f1: float | None
    positive_f1: float | None
    params: int | None
    system: str
    mapper: str
    schedule: str
    epochs: int
    seconds: float
    reason: str
    worker: str
    is_constant: bool
    is_best: bool
    f1_by_label: Mapping[str, float]


def ranked_rows(trials: Iterable[FrozenTrial], *, best: Iterable[FrozenTrial] = ()) -> list[Row]:
    """Return the trials that began, the best first, those without a figure last; mark those that are among `best`."""
    numbers = {trial.number for trial in best}
    rows = []
    for trial in trials:
        record = TrialRecord.of(trial)
        if record.paths is not None:
            rows.append(_row(trial, record, record.paths, is_best=trial.number in numbers))
    return sorted(rows, key=lambda row: (row.macro_f1 is None, -(row.macro_f1 or 0.0), row.number))


def _row(trial: FrozenTrial, record: TrialRecord, paths: Mapping[str, Any], *, is_best: bool) -> Row:
    report = record.report
    return Row(
        number=trial.number,
        state=STATE_WORDS[trial.state],
        macro_f1=report.best.value if report else None,
        positive_f1=report.best.figures["positive_f1"] if report else None,
        params=(report.params or None) if report else None,  # a forest's trees are not counted
        epochs=report.last.epoch if report else 0,
        seconds=report.seconds if report else 0.0,
        reason=record.reason,
        worker=(report.worker or "") if report else "",
        is_constant=report.best.is_constant if report else False,
        is_best=is_best,
        f1_by_label=report.best.f1_by_label if report else {},
        **_words(paths),
    )


def _words(paths: Mapping[str, Any]) -> dict[str, str]:
    """Return system, mapper and schedule of a configuration in a few words each."""
    config = TrialConfig.from_paths(paths)
    uses = config.system.uses
    return {
        "system": describe_system(config),
        "mapper": config.mapper.kind if "mapper" in uses else "-",
        "schedule": f"{config.schedule.kind} {config.optimiser.lr:.1e}" if "schedule" in uses else "-",
    }


def _sizes(component: Any) -> list[str]:
    """Return the sizes of a component that a table shows."""
    shown = getattr(component, "shown", {})
    return [f"{word} {getattr(component, field)}".strip() for field, word in shown.items()]


def describe_configuration(paths: Mapping[str, Any]) -> str:
    """Return a whole configuration in one line: system, normalisation, mapper, schedule and rate."""
    config, words = TrialConfig.from_paths(paths), _words(paths)
    parts = [" ".join([words["system"], *_sizes(config.system)])]
    if "normalisation" in config.system.uses:
        parts.append(f"normalisation {config.normalisation.kind}")
    parts += [f"{words['mapper']} mapper"] if words["mapper"] != "-" else []
    return ", ".join(parts + ([words["schedule"]] if words["schedule"] != "-" else []))


def describe_system(config: TrialConfig) -> str:
    """Return the name of a configuration's system, with its sizes if it is a reprogrammer."""
    is_reprogrammed = "reprogrammer" in config.system.uses
    return " ".join([config.name, *(_sizes(config.reprogrammer) if is_reprogrammed else [])])


Grid = Mapping[tuple[str, str], Sequence[float]]


def grid_of(space: Space, trials: Iterable[FrozenTrial], *, fixed: Mapping[str, Any]) -> Grid:
    """Return the macro-F1 of the finished trials by row and column of the space's table, in the table's order.

    Every cell of the table is there, perhaps without a figure. Only the table's own configurations count, with the
    `fixed` values in their place: a trial at another learning rate is no repeat.
    """
    assert space.cell is not None
    cells: dict[str, tuple[str, str]] = {}
    for paper in papers_within(space, fixed):
        config = configuration_of(space, {path: fixed.get(path, value) for path, value in paper.items()})
        cells[config.digest()] = space.cell(config.to_paths())
    found: dict[tuple[str, str], list[float]] = {cell: [] for cell in cells.values()}
    for trial in trials:
        record = TrialRecord.of(trial)
        digest = TrialConfig.from_paths(record.paths or {}).digest()
        if trial.state == TrialState.COMPLETE and digest in cells:
            found[cells[digest]].append(max(record.values.values()))
    return found


def axes_of(grid: Grid) -> tuple[list[str], list[str]]:
    """Return the rows and the columns, in the table's order."""
    return list(dict.fromkeys(row for row, _ in grid)), list(dict.fromkeys(column for _, column in grid))


def grid_table(grid: Grid, *, title: str) -> Table:
    """Return the grid as a table to print: mean, standard deviation and number of each cell's trials."""
    rows, columns = axes_of(grid)
    table = Table(title=title, title_justify="left")
    for name in ("", *columns):
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(row, *(mean_and_spread(grid.get((row, column), ())) for column in columns))
    return table


def mean_and_spread(values: Sequence[float]) -> str:
    """Return the mean of the values, their standard deviation if there are several, and their number."""
    if not values:
        return "-"
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread} ({len(values)})"
