"""Short texts for messages and reports."""

from collections.abc import Iterable, Sequence


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its name if it has none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, n_words: int) -> str:
    """Return a table whose first `n_words` columns are words and whose others are numbers."""
    rule = ["---" if column < n_words else "---:" for column in range(len(headings))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows))


def summarise(names: Iterable[str], *, limit: int = 5) -> str:
    """Return the first few names and the count of the rest, for a message."""
    listed = list(names)
    rest = len(listed) - limit
    return ", ".join(listed[:limit]) + (f" and {rest} more" if rest > 0 else "")
