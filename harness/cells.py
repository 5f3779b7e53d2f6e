"""A study whose space is a table: what its trials say, cell by cell."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from harness.config import TrialConfig
from harness.searcher import PATHS, values_by_epoch
from harness.subspace import configuration_of, papers_within
from search_spaces import Space

Cells = Mapping[tuple[str, str], Sequence[float]]


def cells_of(space: Space, trials: Iterable[FrozenTrial], *, fixed: Mapping[str, Any]) -> Cells:
    """Return the macro-F1 of the finished trials by row and column of the space's table, in the table's order.

    Every cell of the table is there, if without a figure. Only the table's own configurations count, with what is
    `fixed` in its place: a trial at another learning rate would be no repeat.
    """
    table = {config.digest(): _cell(space, config) for config in _configurations(space, fixed)}
    found: dict[tuple[str, str], list[float]] = {cell: [] for cell in table.values()}
    for trial in trials:
        config = TrialConfig.from_paths(json.loads(trial.user_attrs.get(PATHS, "{}")))
        if trial.state == TrialState.COMPLETE and config.digest() in table:
            found[table[config.digest()]].append(max(values_by_epoch(trial).values()))
    return found


def axes_of(cells: Cells) -> tuple[list[str], list[str]]:
    """Return the rows and the columns, in the table's order."""
    return list(dict.fromkeys(row for row, _ in cells)), list(dict.fromkeys(column for _, column in cells))


def table_of(cells: Cells, *, title: str) -> Table:
    """Return the cells as a table to print: mean, standard deviation and number of each cell's trials."""
    rows, columns = axes_of(cells)
    table = Table(title=title, title_justify="left")
    for name in ("", *columns):
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(row, *(in_words(cells.get((row, column), ())) for column in columns))
    return table


def in_words(values: Sequence[float]) -> str:
    """Return the mean of the values, their standard deviation if there are several, and their number."""
    if not values:
        return "-"
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread} ({len(values)})"


def _configurations(space: Space, fixed: Mapping[str, Any]) -> Iterator[TrialConfig]:
    for paper in papers_within(space, fixed):
        yield configuration_of(space, {path: fixed.get(path, value) for path, value in paper.items()})


def _cell(space: Space, config: TrialConfig) -> tuple[str, str]:
    assert space.cell is not None
    return space.cell(config.to_paths())
