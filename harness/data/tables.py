"""The small files of a data set: class map, labels (.npz or CSV), partitions, artists."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from harness.common.text import few
from harness.data.npz import read_array, read_strings
from harness.features.audio import regular_size

UNOBSERVED = 0.5
"""The target of a label that nobody annotated."""
_IN_NO_NAME = re.compile(r"[/\\\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, eq=False)
class LabelTable:
    """What is known of every clip, one row a clip, sorted by key, as read from `source`."""

    source: Path
    keys: tuple[str, ...]
    targets: Float[np.ndarray, "clip label"]
    observed: Bool[np.ndarray, "clip label"]


def read_class_map(path: Path) -> tuple[str, ...]:
    """Return the instruments in the order of their class indices.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a JSON object of name: index, or the indices are not 0 to n-1.
    """
    regular_size(path)
    try:
        index_of = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(index_of, dict) or not index_of:
        raise ValueError(f"{path}: must be an object that maps each instrument to its index")
    if {repr(index) for index in index_of.values()} != {repr(index) for index in range(len(index_of))}:
        raise ValueError(f"{path}: the indices are {[*index_of.values()]}; they must be 0 to {len(index_of) - 1}")
    return tuple(sorted(index_of, key=index_of.__getitem__))


def read_label_npz(path: Path, labels: tuple[str, ...]) -> LabelTable:
    """Read `sample_key`, `Y_true` and `Y_mask`; sort them by key.

    Raises:
        ValueError: shapes do not fit, targets are not numbers, the mask is not boolean, a key is no plain name or
            occurs twice.
    """
    keys = read_strings(path, "sample_key")
    for row, key in enumerate(keys):
        if unfit := why_no_name(key):
            raise ValueError(f"{path}: sample_key[{row}]: {unfit}")
    targets, observed = read_array(path, "Y_true"), read_array(path, "Y_mask")
    for name, array in (("Y_true", targets), ("Y_mask", observed)):
        if array.shape != (len(keys), len(labels)):
            raise ValueError(
                f"{path}: {name} has shape {array.shape}; {len(keys)} sample keys and {len(labels)} "
                f"instruments ask for {(len(keys), len(labels))}"
            )
    if not np.issubdtype(targets.dtype, np.floating) and not np.issubdtype(targets.dtype, np.integer):
        raise ValueError(f"{path}: Y_true has type {targets.dtype}; it must hold numbers")
    if observed.dtype != np.bool_:
        raise ValueError(f"{path}: Y_mask has type {observed.dtype}; it must be boolean")
    if repeated := find_repeated(keys):
        raise ValueError(f"{path}: sample_key lists {few(repeated)} more than once")
    order = key_order(keys)
    return LabelTable(path, tuple(keys[row] for row in order), targets[order], observed[order])


def read_label_csv(path: Path, labels: tuple[str, ...]) -> LabelTable:
    """Read the aggregated labels: `relevance` is the probability; a pair that is not listed is not observed.

    Raises:
        ValueError: a column is missing, a key is no plain name, an instrument is unknown, a relevance is not a number,
            a pair occurs twice.
    """
    index_of = {name: index for index, name in enumerate(labels)}
    listed: dict[tuple[str, int], float] = {}
    for line, (key, instrument, relevance) in _csv_rows(path, ("sample_key", "instrument", "relevance")):
        if unfit := why_no_name(key):
            raise ValueError(f"{path} line {line}: {unfit}")
        if instrument not in index_of:
            raise ValueError(f"{path} line {line}: unknown instrument {instrument!r}; it is one of {labels}")
        if (key, index_of[instrument]) in listed:
            raise ValueError(f"{path} line {line}: {key} and {instrument} are listed twice")
        try:
            listed[key, index_of[instrument]] = float(relevance)
        except ValueError:
            raise ValueError(f"{path} line {line}: relevance {relevance!r} is not a number") from None
    keys = tuple(sorted({key for key, _ in listed}))
    row_of = {key: row for row, key in enumerate(keys)}
    targets = np.full((len(keys), len(labels)), UNOBSERVED)
    observed = np.zeros(targets.shape, dtype=np.bool_)
    cells = [row_of[key] for key, _ in listed], [label for _, label in listed]
    targets[cells] = list(listed.values())
    observed[cells] = True
    return LabelTable(path, keys, targets, observed)


def read_partition(path: Path, keys: tuple[str, ...]) -> Int[np.ndarray, " row"]:
    """Return the sorted rows of the keys that a partition lists, one a line, without a header.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it lists nothing, a key twice, or a key that `keys` lacks.
    """
    row_of = {key: row for row, key in enumerate(keys)}
    rows: dict[int, int] = {}
    for line, key in enumerate(partition_lines(path), 1):
        if not key:
            continue
        if key not in row_of:
            raise ValueError(f"{path} line {line}: key {key!r} has no labels in this data set")
        if (first := rows.setdefault(row_of[key], line)) != line:
            raise ValueError(f"{path} line {line}: key {key} is listed twice, first on line {first}")
    if not rows:
        raise ValueError(f"{path}: lists no key; a split must not be empty")
    return np.array(sorted(rows), dtype=np.int64)


def partition_lines(path: Path) -> list[str]:
    """Return the key on each line of a partition, "" where there is none.

    Raises:
        OSError: it cannot be opened.
    """
    regular_size(path)
    return [line.strip() for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines()]


def read_artists(path: Path, keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return each key's artist by name, "" where the metadata names none.

    Artists are told apart by name, not by `artist_id`: who has two ids must not be on both sides of a split.

    Raises:
        ValueError: a column is missing.
    """
    artist_of = {key: name.strip() for _, (key, name) in _csv_rows(path, ("sample_key", "artist_name"))}
    return tuple(artist_of.get(key, "") for key in keys)


def _csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the line number and the named columns of each row of a CSV file with a header."""
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
                    raise ValueError(f"{path} line {reader.line_num}: {len(row)} of {len(header)} columns")
                if row:
                    yield reader.line_num, tuple(row[place] for place in places)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} after line {reader.line_num}: not CSV in UTF-8 ({error})") from error


def why_no_name(key: str) -> str:
    """Say what keeps a key from naming a clip's file, and no other place; "" if nothing does."""
    if key not in {"", ".", ".."} and _IN_NO_NAME.search(key) is None:
        return ""
    return (
        f"key {key!r} is no plain name; a key names the clip's file, so it must not be empty, . or .., and have no /, "
        "no \\ and no control character in it"
    )


def key_order(keys: tuple[str, ...]) -> Int[np.ndarray, " row"]:
    """Return the rows that put `keys` in order."""
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


def find_repeated(keys: Iterable[str]) -> list[str]:
    """Return the keys that occur more than once."""
    return [key for key, count in Counter(keys).items() if count > 1]
