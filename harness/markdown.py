"""Markdown that several reports are made of."""

from collections.abc import Sequence


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, n_words: int) -> str:
    """Return a table whose first `n_words` columns are words and whose others are numbers."""
    rule = ["---" if column < n_words else "---:" for column in range(len(headings))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows))
