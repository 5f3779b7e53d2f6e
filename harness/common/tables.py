"""Tables that fit a terminal: words fold, optional columns are dropped, and a number is never cut."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

_WORDS_WIDTH = 12  # a column of words does not fold below this


@dataclass(frozen=True)
class Column:
    """A column. Where the terminal is too narrow, the column of the highest `drop` goes first; 0 always stays."""

    name: str
    is_number: bool = True
    drop: int = 0


def fitted_table(title: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], *, width: int) -> Table:
    """Return the rows as a table of at most `width` characters.

    The caption names the columns that are left out. If the others still do not fit, each row becomes a block of lines.
    """
    shown = list(range(len(columns)))
    dropped: list[str] = []
    while _width(columns, rows, shown) > width and (optional := [i for i in shown if columns[i].drop]):
        goes = max(optional, key=lambda i: columns[i].drop)
        shown.remove(goes)
        dropped.append(columns[goes].name)
    caption = f"too narrow for {', '.join(reversed(dropped))}" if dropped else None
    if _width(columns, rows, shown) > width:
        return _stacked(title, columns, rows)
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for i in shown:
        is_number = columns[i].is_number
        least = _least(columns[i], [row[i] for row in rows])
        table.add_column(columns[i].name, justify="right" if is_number else "left", overflow="fold", min_width=least)
    for row in rows:
        table.add_row(*(row[i] for i in shown))
    return table


def _stacked(title: str, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column("figure", overflow="fold")
    numbers = [row[i] for row in rows for i, column in enumerate(columns) if column.is_number]
    table.add_column("value", overflow="fold", min_width=max(map(len, numbers), default=0))
    for row in rows:
        for column, cell in zip(columns, row, strict=True):
            table.add_row(column.name.replace("\n", " "), cell)
        table.add_section()
    return table


def _width(columns: Sequence[Column], rows: Sequence[Sequence[str]], shown: Sequence[int]) -> int:
    """Return the least width of a table of these columns, borders and padding included."""
    return 1 + sum(3 + _least(columns[i], [row[i] for row in rows]) for i in shown)


def _least(column: Column, cells: Sequence[str]) -> int:
    longest_cell = max((len(line) for cell in cells for line in cell.splitlines()), default=0)
    longest_word = max((len(word) for word in column.name.split()), default=0)
    return max(longest_word, longest_cell if column.is_number else min(longest_cell, _WORDS_WIDTH))
