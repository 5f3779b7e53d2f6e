"""Batches of features and labels for training and validation; test clips are not among them."""

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from harness.data.dataset import ClipDataset
from harness.data.openmic import read_vggish
from harness.data.splits import SplitRows
from harness.features.cache import Rows
from harness.features.extract import Extracted
from harness.features.inputs import Input, LogMel, Vggish
from harness.features.log_mel import FrontEnd

T = TypeVar("T")
Request = TypeVar("Request")


class ReadAhead(Generic[T]):
    """Yields `read(x)` for each `x` of `requests`, in order, while a thread reads up to `depth` of the next ones.

        with ReadAhead(read, requests) as batches:
            for batch in batches: ...

    An error of `read` is raised in the place of its batch. Leaving `with` ends the thread, and drops all reads that
    have not begun. `seconds_waited` is the time that the loop has waited for batches.
    """

    def __init__(self, read: Callable[[Request], T], requests: Iterable[Request], *, depth: int = 2) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reading ahead")
        self._reads: Iterator[Future[T]] = (self._thread.submit(read, request) for request in requests)
        self._begun: deque[Future[T]] = deque()
        self._depth = depth
        self.seconds_waited = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[T]:
        """Yield the batches."""
        self._begin()
        while self._begun:
            before = time.perf_counter()
            found = self._begun.popleft().result()
            self.seconds_waited += time.perf_counter() - before
            self._begin()
            yield found

    def _begin(self) -> None:
        """Have as many reads under way as there may be."""
        while len(self._begun) < self._depth and (read := next(self._reads, None)) is not None:
            self._begun.append(read)


@dataclass(frozen=True, eq=False)
class Features:
    """One row of `values` for each key of the data set; rows where `available` is False mean nothing.

    `digest` identifies labels, partition and sound on any machine; front ends share it.
    """

    values: Rows
    available: Bool[np.ndarray, " clip"]
    inputs: Input
    digest: str


def log_mel_features(
    dataset: ClipDataset,
    extracted: Extracted,
    front_end: FrontEnd,
    *,
    rows: Int[np.ndarray, " row"] | None = None,
    sound_digest: str | None = None,
) -> Features:
    """Return the log-mel of some rows of a data set (None: all); clips that cannot be read are not available.

    `sound_digest` identifies the sound of all clips, if the data set has a better one than its audio files give.
    """
    unreadable = sorted(dataset.keys[row] for row in extracted.unreadable)
    if sound_digest is None:
        files = [[key, digest] for key, digest in zip(dataset.keys, extracted.digests, strict=True) if digest]
        sound_digest = _sha256([files, unreadable])
    digest = _sha256(["log_mel", dataset.digest, sound_digest, unreadable, *_some_keys(dataset, rows)])
    return Features(extracted.rows, extracted.available, LogMel(front_end), digest)


def vggish_features(
    dataset: ClipDataset, *, rows: Int[np.ndarray, " row"] | None = None, sound_digest: str | None = None
) -> Features:
    """Return the data set's VGGish features, as `log_mel_features` does; those of clips with damaged audio, too.

    Raises:
        ValueError: the data set has none, or they do not fit its keys.
    """
    values = read_vggish(dataset)
    values.setflags(write=False)
    content = sound_digest or hashlib.sha256(values.astype("<f4", copy=False).tobytes()).hexdigest()
    digest = _sha256(["vggish", dataset.digest, content, *_some_keys(dataset, rows)])
    return Features(values, np.ones(len(values), np.bool_), Vggish(), digest)


def _some_keys(dataset: ClipDataset, rows: Int[np.ndarray, " row"] | None) -> list[list[str]]:
    """Return the keys of some rows as the only item, or nothing if these are all rows."""
    chosen = np.arange(len(dataset.keys)) if rows is None else np.unique(rows)
    return [[dataset.keys[row] for row in chosen]] if len(chosen) < len(dataset.keys) else []


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


Clips = Int[np.ndarray, " batch"]
Batch = tuple[Float[Tensor, "batch time feature"], Float[Tensor, "batch label"], Bool[Tensor, "batch label"]]
"""Inputs, targets and mask of some clips."""


@dataclass(frozen=True)
class Split:
    """The clips of one split: rows of all clips' features, with their labels.

    `features` is log-mel, (stored, frame, mel) in float16, whose batches are read from files, or VGGish, (stored,
    second, feature) in float32 from 0 to 255. `digest` covers all features that were opened with them; it is "" for
    clips made in memory.
    """

    features: Rows
    rows: Int[np.ndarray, " clip"]
    targets: Float[np.ndarray, "clip label"]
    observed: Bool[np.ndarray, "clip label"]
    digest: str = ""

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.rows)

    def batch(self, clips: Clips, device: torch.device) -> Batch:
        """Return float32 inputs, targets and mask of the clips at these positions of the split."""
        return to_device(self.read(clips), device)

    def read(self, clips: Clips, *, is_pinned: bool = False) -> Batch:
        """Return a batch for `to_device`: on the CPU, with inputs as they are stored.

        Pinned memory lets the copy to a GPU run in the background.
        """
        arrays = (self.features[self.rows[clips]], self.targets[clips], self.observed[clips])
        inputs, targets, observed = map(torch.from_numpy, arrays)
        if is_pinned:
            return inputs.pin_memory(), targets.pin_memory(), observed.pin_memory()
        return inputs, targets, observed

    def read_ahead(self, batches: Iterable[Clips], device: torch.device) -> ReadAhead[Batch]:
        """Read batches of clips in the background, each for `to_device`."""
        is_pinned = device.type == "cuda"
        return ReadAhead(lambda clips: self.read(clips, is_pinned=is_pinned), batches)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch on the device; the inputs become float32 only there, twice as large as log-mel is stored."""
    inputs, targets, observed = (tensor.to(device, non_blocking=True) for tensor in batch)
    return inputs.float(), targets, observed


@dataclass(frozen=True)
class StudyData:
    """Training and validation clips, and the statistics of the training clips' features.

    `digest` identifies labels, partition and audio (or VGGish) on any machine; front ends share it. It is "" for clips
    that were made in memory.
    """

    labels: tuple[str, ...]
    train: Split
    validation: Split
    mean: float
    std: float
    inputs: Input
    digest: str = ""


def study_data(dataset: ClipDataset, features: Features, split: SplitRows) -> StudyData:
    """Return the training and validation clips that have features.

    Raises:
        ValueError: a split is empty, or has a label without any annotation, once clips without features are left out.
    """
    train = select_split(dataset, features, split.train, name="train")
    validation = select_split(dataset, features, split.validation, name="validation")
    mean, std = _statistics(train)
    return StudyData(dataset.labels, train, validation, mean, std, features.inputs, features.digest)


def select_split(dataset: ClipDataset, features: Features, rows: Int[np.ndarray, " row"], *, name: str) -> Split:
    """Return those of the rows that have features and an annotation.

    Raises:
        ValueError: no clip among them is annotated for some label.
    """
    kept = rows[features.available[rows]]
    # a clip without any annotation carries no gradient and no metric
    kept = kept[dataset.observed[kept].any(axis=1)]
    observed = dataset.observed[kept]
    bare = [label for column, label in enumerate(dataset.labels) if not observed[:, column].any()]
    if bare:
        raise ValueError(f"{name} split of {dataset.name}: no clip is annotated for {', '.join(bare)}")
    return Split(features.values, kept, dataset.targets[kept], observed, features.digest)


def _statistics(part: Split) -> tuple[float, float]:
    """Return mean and standard deviation over 500 evenly spaced training clips, padding included."""
    chosen = np.unique(np.linspace(0, len(part) - 1, min(500, len(part))).astype(np.int64))
    count, total, squares = 0, 0.0, 0.0
    for position in chosen:
        values = part.features[part.rows[position]].astype(np.float64)
        count, total, squares = count + values.size, total + values.sum(), squares + (values**2).sum()
    mean = total / count
    return float(mean), float(np.sqrt(max(squares / count - mean**2, 0.0)))
