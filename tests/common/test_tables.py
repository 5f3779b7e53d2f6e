"""Tables at several widths: no number is cut."""

import re

import pytest
from rich.console import Console

from harness.common.tables import Column, fitted_table

COLUMNS = (
    Column("system", is_number=False),
    Column("configuration", is_number=False),
    Column("macro-F1"),
    Column("min", drop=2),
    Column("trained parameters", drop=1),
)
ROWS = [
    ["finetune (AST-TL)", "a-study-with-a-long-name trial 123", "0.694 ± 0.017", "0.681", "86,204,180"],
    ["noise", "b trial 4", "0.602 ± 0.018", "0.590", "2,728"],
]


def shown(width, columns=COLUMNS, rows=ROWS):
    console = Console(width=width, record=True, color_system=None)
    console.print(fitted_table("Figures", columns, rows, width=width))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    return text


def numbers_of(column):
    return [row[column] for row in ROWS]


@pytest.mark.parametrize("width", [30, 60, 80, 120])
def test_a_number_is_whole_or_its_column_is_named_as_left_out(width):
    text = shown(width)
    for i in (2, 3, 4):
        whole = all(number in text for number in numbers_of(i))
        is_named = COLUMNS[i].name in text.partition("too narrow for")[2]
        assert whole != is_named


def test_a_wide_terminal_has_all_columns_and_words_on_one_line():
    text = shown(120)
    assert "too narrow" not in text
    assert "a-study-with-a-long-name trial 123" in text


def test_words_fold_and_stay_complete():
    text = shown(80)
    folded = re.sub(r"[\s│┃]", "", text)
    assert "trial123" in folded


def test_a_table_that_cannot_fit_is_stacked():
    text = shown(30)
    assert re.search(r"macro-F1 +│ 0\.694 ± 0\.017", text)
