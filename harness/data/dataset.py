"""A data set in memory, whatever its format on disk, and the rules that hold for every format.

Conventions: row i of every array is `keys[i]`; keys are sorted. A target is the probability that the label applies,
positive from 0.5. Where `observed` is False nobody annotated the label, and the target means nothing.
"""

import hashlib
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from harness.common.text import summarise

T = TypeVar("T")
U = TypeVar("U")
POSITIVE = 0.5
"""From this probability on, a label counts as positive."""
UNOBSERVED = 0.5
"""The target of a label that nobody annotated."""
N_OBSERVED = 2
"""Each label must be observed for this many train clips: one to learn from and one to validate on."""
_DAMAGE = (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class ClipDataset:
    """The clips of a data set: keys, audio files, labels and the official split. The audio stays on disk.

    `paths` holds each clip's audio file. `artists` is "" where the metadata names none, and None without metadata.
    `vggish` is the file of VGGish features, None without them. `digest` is the SHA-256 of labels, keys, targets,
    observed, train and test.
    """

    name: str
    root: Path
    labels: tuple[str, ...]
    keys: tuple[str, ...]
    paths: tuple[Path, ...]
    targets: Float[np.ndarray, "clip label"]
    observed: Bool[np.ndarray, "clip label"]
    train: Int[np.ndarray, " row"]
    test: Int[np.ndarray, " row"]
    artists: tuple[str, ...] | None
    vggish: Path | None
    digest: str


@dataclass(frozen=True, eq=False)
class LabelTable:
    """The annotations of every clip, one row a clip, as read from `source`."""

    source: Path
    keys: tuple[str, ...]
    targets: Float[np.ndarray, "clip label"]
    observed: Bool[np.ndarray, "clip label"]


@dataclass(frozen=True)
class Problems:
    """The broken rules of a data set, by the file or folder they concern.

    A study reads with `raises`, and stops at the first problem. A check collects all of them.
    """

    raises: bool = False
    by_place: dict[Path, list[str]] = field(default_factory=dict)

    def add(self, place: Path, *texts: str) -> None:
        """Add problems of one kind, if there are any.

        Raises:
            ValueError: there are, and `raises` is set; the message names the place and the first few.
        """
        if texts and self.raises:
            raise ValueError(f"{place}: {summarise(texts)}")
        if texts:
            self.by_place.setdefault(place, []).extend(texts)

    def attempt(self, place: Path, read: Callable[[], T], default: U) -> T | U:
        """Return the result of `read`; if the file is missing or damaged, add that and return the default."""
        if self.raises:
            return read()
        try:
            return read()
        except _DAMAGE as error:
            reason = str(error) if not isinstance(error, OSError) else error.strerror or str(error)
            self.add(place, reason.removeprefix(f"{place}: ") or repr(error))
            return default

    def __len__(self) -> int:
        return sum(map(len, self.by_place.values()))


def make_dataset(
    root: Path,
    labels: Sequence[str],
    table: LabelTable,
    *,
    paths: Sequence[Path],
    train: Collection[str],
    test: Collection[str],
    artists: Sequence[str] | None = None,
    vggish: Path | None = None,
    problems: Problems = Problems(raises=True),
) -> ClipDataset:
    """Check the rules for every format and return the data set, sorted by key.

    `paths` and `artists` have an entry a row of the table; `train` and `test` list keys. A format's reader calls this
    last. If problems are collected, the result may not be fit for a study.

    Raises:
        ValueError: a key is listed twice, a target is no probability, a clip is not in exactly one split, or a label
            has too few annotations.
    """
    shape = (len(table.keys), len(labels))
    if not (table.targets.shape == table.observed.shape == shape and len(paths) == len(table.keys)):
        raise ValueError(
            f"{table.source}: targets, observed and paths do not fit {shape[0]} keys and {shape[1]} labels"
        )
    repeated = [key for key, count in Counter(table.keys).items() if count > 1]
    problems.add(table.source, *(f"lists {key} more than once" for key in repeated))
    problems.add(table.source, *_out_of_range(table, labels))
    order = sorted(range(len(table.keys)), key=table.keys.__getitem__)
    keys = tuple(table.keys[row] for row in order)
    targets, observed = _as_float32(table.targets[order]), table.observed[order]
    train_rows, test_rows = (_rows_of(listed, keys, root, problems) for listed in (train, test))
    if len(train_rows) and len(test_rows):
        problems.add(root, *_wrongly_split(keys, train_rows, test_rows))
        problems.add(table.source, *_too_rare(observed[train_rows], labels))
    for array in (targets, observed, train_rows, test_rows):
        array.setflags(write=False)
    return ClipDataset(
        name=root.name,
        root=root,
        labels=tuple(labels),
        keys=keys,
        paths=tuple(paths[row] for row in order),
        targets=targets,
        observed=observed,
        train=train_rows,
        test=test_rows,
        artists=None if artists is None else tuple(artists[row] for row in order),
        vggish=vggish,
        digest=_digest([*labels, "", *keys], arrays=[targets, observed, train_rows, test_rows]),
    )


def normalised(name: str) -> str:
    """Return a name in Unicode's NFC, since macOS writes file names in NFD and tables often have NFC."""
    return unicodedata.normalize("NFC", name)


def _rows_of(listed: Collection[str], keys: Sequence[str], root: Path, problems: Problems) -> Int[np.ndarray, " row"]:
    row_of = {key: row for row, key in enumerate(keys)}
    unknown = sorted(set(listed) - row_of.keys())
    problems.add(root, *(f"key {key} is in a split, but has no labels" for key in unknown))
    return np.array(sorted(row_of[key] for key in listed if key in row_of), np.int64)


def _out_of_range(table: LabelTable, labels: Sequence[str]) -> Iterator[str]:
    for row, label in np.argwhere(~((table.targets >= 0) & (table.targets <= 1))):
        value = table.targets[row, label]
        yield f"key {table.keys[row]}, {labels[label]}: label {value} is not a probability, 0 to 1"


def _wrongly_split(keys: Sequence[str], train: Int[np.ndarray, " row"], test: Int[np.ndarray, " row"]) -> Iterator[str]:
    yield from (f"key {keys[row]} is in both the train and the test split" for row in np.intersect1d(train, test))
    neither = np.setdiff1d(np.arange(len(keys)), np.union1d(train, test))
    yield from (f"key {keys[row]} is in neither the train nor the test split" for row in neither)


def _too_rare(observed: Bool[np.ndarray, "clip label"], labels: Sequence[str]) -> Iterator[str]:
    for label, count in zip(labels, observed.sum(axis=0).tolist(), strict=True):
        if count < N_OBSERVED:
            yield f"{label} is observed for {count} of the train clips; it needs {N_OBSERVED}, one to validate on"


def _as_float32(targets: Float[np.ndarray, "clip label"]) -> Float[np.ndarray, "clip label"]:
    """Return the targets as float32, each on the same side of 0.5."""
    rounded = targets.astype(np.float32)
    rounded[(rounded >= POSITIVE) & (targets < POSITIVE)] = np.nextafter(np.float32(POSITIVE), np.float32(0))
    return rounded


def _digest(names: list[str], *, arrays: list[np.ndarray]) -> str:
    digest = hashlib.sha256("\n".join(names).encode())
    for array in arrays:
        digest.update(f"\n{array.shape}".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()
