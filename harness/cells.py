"""A study whose space is a table: what its trials say, cell by cell."""

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from harness.config import TrialConfig
from harness.searcher import PATHS, values_by_epoch
from search_spaces import Space

Cells = Mapping[tuple[str, str], Sequence[float]]


def cells_of(space: Space, trials: Iterable[FrozenTrial]) -> Cells:
    """Return the macro-F1 of the finished trials by row and column of the space's table, in the table's order.

    Every cell of the table is there, if without a figure.
    """
    assert space.cell is not None
    found: dict[tuple[str, str], list[float]] = {_cell(space, paper): [] for paper in space.paper}
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            best = max(values_by_epoch(trial).values())
            found.setdefault(_cell(space, json.loads(trial.user_attrs[PATHS])), []).append(best)
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


def _cell(space: Space, paths: Mapping[str, object]) -> tuple[str, str]:
    assert space.cell is not None
    return space.cell(TrialConfig.from_paths(paths).to_paths())
