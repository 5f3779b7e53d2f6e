"""Everything that is wrong with the small files of a data set, where the readers stop at the first.

The rules are those of `harness.data.tables` and `harness.data.openmic`; what is found is told by line or by key.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from os.path import lexists
from pathlib import Path

import numpy as np

from harness.data.npz import member_names, read_array, read_strings
from harness.data.problems import Problems
from harness.data.tables import find_repeated, partition_lines, why_no_name
from harness.features.audio import regular_size

_LABEL_COLUMNS = ("sample_key", "instrument", "relevance")


def check_label_npz(path: Path, labels: Sequence[str] | None, problems: Problems) -> tuple[str, ...]:
    """Add what is wrong with the arrays; return the keys, none if they cannot be read."""
    if problems.attempt(path.name, lambda: member_names(path)) is None:
        return ()
    keys = problems.attempt(path.name, lambda: read_strings(path, "sample_key"))
    targets = problems.attempt(path.name, lambda: read_array(path, "Y_true"))
    observed = problems.attempt(path.name, lambda: read_array(path, "Y_mask"))
    if keys is None:
        return ()
    for row, key in enumerate(keys):
        if unfit := why_no_name(key):
            problems.add(path.name, f"sample_key[{row}]: {unfit}")
    for key in find_repeated(keys):
        problems.add(path.name, f"sample_key lists {key} more than once")
    expected = (len(keys), len(labels)) if labels is not None else None
    for name, array in (("Y_true", targets), ("Y_mask", observed)):
        if array is not None and expected is not None and array.shape != expected:
            problems.add(path.name, f"{name} has shape {array.shape}; the keys and the instruments ask for {expected}")
    if observed is not None and observed.dtype != np.bool_:
        problems.add(path.name, f"Y_mask has type {observed.dtype}; it must be boolean")
    if targets is not None and targets.dtype.kind not in "fiu":
        problems.add(path.name, f"Y_true has type {targets.dtype}; it must hold numbers")
    elif targets is not None and labels is not None and targets.shape == expected:
        for row, label in np.argwhere(~((targets >= 0) & (targets <= 1))):
            problems.add(path.name, f"key {keys[row]}, {labels[label]}: label {targets[row, label]} is not in 0 to 1")
    return keys


def check_label_csv(path: Path, labels: Sequence[str] | None, problems: Problems) -> tuple[str, ...]:
    """Add what is wrong with each line; return the keys that occur."""
    first_line: dict[tuple[str, str], int] = {}
    for line, (key, instrument, relevance) in _rows(path, _LABEL_COLUMNS, problems):
        if unfit := why_no_name(key):
            problems.add(path.name, f"line {line}: {unfit}")
        if labels is not None and instrument not in labels:
            problems.add(path.name, f"line {line}: unknown instrument {instrument!r}")
        if (first := first_line.setdefault((key, instrument), line)) != line:
            problems.add(path.name, f"line {line}: {key} and {instrument} are listed already on line {first}")
        if not _is_probability(relevance):
            problems.add(path.name, f"line {line}: relevance {relevance!r} is no number from 0 to 1")
    return tuple(sorted({key for key, _ in first_line}))


def check_partition(path: Path, keys: Sequence[str], problems: Problems) -> tuple[str, ...]:
    """Add what is wrong with each line; return the keys that it lists. Without `keys`, none of them is unknown."""
    if not lexists(path):
        problems.add(path.name, f"missing: {path}")
        return ()
    lines = problems.attempt(path.name, lambda: partition_lines(path))
    if lines is None:
        return ()
    known, first_line = set(keys), dict[str, int]()
    for line, key in enumerate(lines, 1):
        if key and (unfit := why_no_name(key)):
            problems.add(path.name, f"line {line}: {unfit}")
        if key and known and key not in known:
            problems.add(path.name, f"line {line}: key {key!r} has no labels in this data set")
        elif key and (first := first_line.setdefault(key, line)) != line:
            problems.add(path.name, f"line {line}: key {key} is listed already on line {first}")
    if not first_line:
        problems.add(path.name, "lists no key of this data set; a split must not be empty")
    return tuple(sorted(first_line))


def check_partitions(parts: Mapping[str, Sequence[str]], keys: Sequence[str], problems: Problems) -> None:
    """Add each key that is in both partitions or in neither."""
    train, test = parts.values()
    for key in sorted(set(train) & set(test)):
        problems.add("partitions", f"key {key} is in both {' and '.join(parts)}")
    for key in sorted(set(keys) - set(train) - set(test)):
        problems.add("partitions", f"key {key} is in neither {' nor '.join(parts)}")


def check_metadata(path: Path, problems: Problems) -> dict[str, str]:
    """Add what is wrong with each line; return the artists by key."""
    rows = _rows(path, ("sample_key", "artist_name"), problems)
    return {key: artist.strip() for _, (key, artist) in rows}


def _is_probability(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def _rows(path: Path, columns: Sequence[str], problems: Problems) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the line number and the named columns of each line that has them; add the others."""
    try:
        regular_size(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if missing := [name for name in columns if name not in header]:
                problems.add(path.name, f"no column {', '.join(missing)}; it has {', '.join(header) or 'none'}")
                return
            places = [header.index(name) for name in columns]
            for row in reader:
                if row and len(row) <= max(places):
                    problems.add(path.name, f"line {reader.line_num}: {len(row)} of {len(header)} columns")
                elif row:
                    yield reader.line_num, tuple(row[place] for place in places)
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        problems.add(path.name, f"not readable as CSV in UTF-8 ({error})")
