"""The small files of OpenMIC-2018's layout: class map, labels (.npz or CSV), partitions, artists.

Each reader gives its `Problems` every broken rule it finds, with line or row. It returns the rest, which is of use only
to a check that collects problems: for a study the first one has raised.
"""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from harness.data.dataset import UNOBSERVED, LabelTable, Problems, normalised
from harness.data.npz import read_array, read_strings
from harness.features.audio import regular_size

_NOT_IN_A_NAME = re.compile(r"[/\\\x00-\x1f\x7f-\x9f]")


def read_class_map(path: Path) -> tuple[str, ...]:
    """Return the labels in the order of their class indices.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a JSON object of name: index, or the indices are not 0 to n-1.
    """
    regular_size(path)
    try:
        index_of = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(index_of, dict) or not index_of:
        raise ValueError(f"{path}: must be an object that maps each label to its index")
    if {repr(index) for index in index_of.values()} != {repr(index) for index in range(len(index_of))}:
        raise ValueError(f"{path}: the indices are {[*index_of.values()]}; they must be 0 to {len(index_of) - 1}")
    return tuple(normalised(label) for label in sorted(index_of, key=index_of.__getitem__))


def read_label_npz(path: Path, labels: Sequence[str], problems: Problems) -> LabelTable:
    """Read `sample_key`, `Y_true` and `Y_mask`."""
    keys = problems.attempt(path, lambda: read_npz_keys(path), ())
    problems.add(path, *(f"sample_key[{row}]: {unfit}" for row, key in enumerate(keys) if (unfit := why_no_name(key))))
    shape = (len(keys), len(labels))
    targets, observed = np.full(shape, UNOBSERVED), np.zeros(shape, np.bool_)
    if keys and labels:
        targets = problems.attempt(path, lambda: _read_cells(path, "Y_true", shape, kinds="fiu"), targets)
        observed = problems.attempt(path, lambda: _read_cells(path, "Y_mask", shape, kinds="b"), observed)
    return LabelTable(path, keys, targets, observed)


def read_npz_keys(path: Path) -> tuple[str, ...]:
    """Return `sample_key` in the file's order.

    Raises:
        ValueError: the array is missing, damaged, or holds something other than strings.
    """
    return tuple(map(normalised, read_strings(path, "sample_key")))


def read_label_csv(path: Path, labels: Sequence[str], problems: Problems) -> LabelTable:
    """Read the aggregated labels: `relevance` is the probability; a pair that is not listed is not observed."""
    column_of = {label: column for column, label in enumerate(labels)}
    listed: dict[tuple[str, str], tuple[int, float]] = {}
    for line, (key, label, relevance) in _read_csv(path, ("sample_key", "instrument", "relevance"), problems):
        value, unfit = _number(relevance), why_no_name(key)
        if unfit:
            problems.add(path, f"line {line}: {unfit}")
        elif labels and label not in column_of:
            problems.add(path, f"line {line}: unknown instrument {label!r}; it is one of {', '.join(labels)}")
        elif value is None:
            problems.add(path, f"line {line}: relevance {relevance!r} is not a number")
        elif (key, label) in listed:
            first, _ = listed[key, label]
            problems.add(path, f"line {line}: {key} and {label} are listed twice, first on line {first}")
        else:
            listed[key, label] = line, value
    keys = tuple(dict.fromkeys(key for key, _ in listed))
    row_of = {key: row for row, key in enumerate(keys)}
    targets = np.full((len(keys), len(labels)), UNOBSERVED)
    observed = np.zeros(targets.shape, dtype=np.bool_)
    for (key, label), (_, value) in listed.items():
        if labels:
            targets[row_of[key], column_of[label]] = value
            observed[row_of[key], column_of[label]] = True
    return LabelTable(path, keys, targets, observed)


def read_partition(path: Path, keys: Sequence[str], problems: Problems) -> tuple[str, ...]:
    """Return the keys that a partition lists, one a line, without a header."""

    def lines() -> list[str]:
        regular_size(path)
        return path.read_text(encoding="utf-8-sig", errors="replace").splitlines()

    known, listed = set(keys), dict[str, int]()
    texts = problems.attempt(path, lines, None)
    for line, key in enumerate(map(normalised, map(str.strip, texts or [])), 1):
        if not key:
            continue
        if known and key not in known:
            problems.add(path, f"line {line}: key {key!r} has no labels in this data set")
        elif (first := listed.setdefault(key, line)) != line:
            problems.add(path, f"line {line}: key {key} is listed twice, first on line {first}")
    if texts is not None and not listed:
        problems.add(path, "lists no key; a split must not be empty")
    return tuple(key for key in listed if key in known)


def read_artists(path: Path, keys: Sequence[str], problems: Problems) -> tuple[str, ...]:
    """Return each key's artist by name, "" where the metadata names none.

    The name decides, not `artist_id`: an artist with two ids must not be on both sides of a split.
    """
    artist_of = {key: name.strip() for _, (key, name) in _read_csv(path, ("sample_key", "artist_name"), problems)}
    return tuple(artist_of.get(key, "") for key in keys)


def why_no_name(key: str) -> str:
    """Return the reason why a key cannot name a clip's file, "" if it can."""
    if key not in {"", ".", ".."} and _NOT_IN_A_NAME.search(key) is None:
        return ""
    return (
        f"key {key!r} is no plain name; a key names the clip's file, so it must not be empty, . or .., nor contain /, "
        "\\ or a control character"
    )


def _read_cells(path: Path, name: str, shape: tuple[int, int], *, kinds: str) -> Shaped[np.ndarray, "clip label"]:
    """Return an array with a row a key and a column a label; `kinds` are NumPy's letters of the types allowed."""
    array = read_array(path, name)
    if array.shape != shape:
        raise ValueError(
            f"{path}: {name} has shape {array.shape}; {shape[0]} sample keys and {shape[1]} instruments need {shape}"
        )
    if array.dtype.kind not in kinds:
        needed = "be boolean" if kinds == "b" else "hold numbers"
        raise ValueError(f"{path}: {name} has type {array.dtype}; it must {needed}")
    return array


def _read_csv(path: Path, columns: Sequence[str], problems: Problems) -> list[tuple[int, tuple[str, ...]]]:
    """Return the line number and the named columns of each row of a CSV file with a header."""
    return problems.attempt(path, lambda: list(_csv_rows(path, columns, problems)), [])


def _csv_rows(path: Path, columns: Sequence[str], problems: Problems) -> Iterator[tuple[int, tuple[str, ...]]]:
    regular_size(path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        try:
            header = next(reader, [])
            if missing := [name for name in columns if name not in header]:
                raise ValueError(f"{path}: no column {', '.join(missing)}; it has {', '.join(header) or 'none'}")
            places = [header.index(name) for name in columns]
            for row in reader:
                if row and len(row) <= max(places):
                    problems.add(path, f"line {reader.line_num}: {len(row)} of {len(header)} columns")
                elif row:
                    yield reader.line_num, tuple(normalised(row[place]) for place in places)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not CSV in UTF-8 after line {reader.line_num} ({error})") from error


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
