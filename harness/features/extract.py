"""Log-mel of many audio files through the feature cache, by the threads of this process."""

import contextlib
import hashlib
import logging
import random
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float16
from rich import filesize
from torch import Tensor

from harness.common.progress import Progress, quiet
from harness.common.text import summarise
from harness.features.audio import (
    FRONT_END_VERSION,
    decode_bytes,
    mixes_to_silence,
    regular_size,
    why_too_large,
    why_unopened,
)
from harness.features.cache import CachedRows, FeatureCache, Recipe
from harness.features.fingerprints import Fingerprints, stamp_of
from harness.features.log_mel import FrontEnd, log_mel

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")
_LARGEST = float(np.finfo(np.float16).max)
_MOST_FAILED_AT_FIRST, _MOST_FAILED_IN_A_ROW = 100, 1000
_N_NAMED = 10


@dataclass(frozen=True, eq=False)
class ExtractionResult:
    """One file's log-mel, or None and the reason why it cannot be read as audio; and the file's SHA-256 in hex.

    `is_silent`: nothing is audible in the mono mix.
    """

    log_mel: Float16[np.ndarray, "frame mel"] | None
    reason: str
    digest: str
    is_silent: bool = False


@dataclass(frozen=True, eq=False)
class Extracted:
    """The cached log-mel of some audio files; each field is by the position of the file's path.

    Attributes:
        rows: The log-mel; reading a row without one is an error.
        digests: SHA-256 of each file that was requested and opened, in hex, else "".
        unreadable: Why files cannot be read as audio.
        unopened: Why files cannot be opened, whatever they hold.
        silent: Files that were computed now and have nothing audible in their mono mix.
        n_computed: How many files were computed now, and not found in the cache.
        n_bytes: Space that the requested arrays take.
    """

    rows: CachedRows
    digests: tuple[str, ...]
    unreadable: dict[int, str]
    unopened: dict[int, str]
    silent: tuple[int, ...]
    n_computed: int
    n_bytes: int
    place: Path

    @property
    def available(self) -> np.ndarray:
        """Return which files have a log-mel."""
        return np.array([bool(digest) and i not in self.unreadable for i, digest in enumerate(self.digests)], np.bool_)


def extract(
    paths: Sequence[Path | None], front_end: FrontEnd, *, cache: Path, workers: int = 1, progress: Progress = quiet
) -> Extracted:
    """Return the log-mel of audio files, computing first what the cache lacks; None leaves a position without one.

    Files are taken in random order, and each is looked up once more before it is computed. So processes and machines
    that share a cache share the work, too.

    Raises:
        OSError: the cache cannot be written or its disk has too little space, or a hundred files cannot be opened: so
            the disk is gone, and no single file wrong.
        ValueError: `workers` is below 1.
    """
    store = log_mel_cache(cache, front_end)
    requested = {position: path for position, path in enumerate(paths) if path is not None}
    filling = _Filling(store, _Extractor(store, front_end), requested)
    filling.run(workers=workers, progress=progress)
    _, without = store.stored()
    unreadable = {i: store.reason(digest) for i, digest in filling.digests.items() if digest in without}
    digests = tuple(filling.digests.get(position, "") for position in range(len(paths)))
    readable = ["" if position in unreadable else digest for position, digest in enumerate(digests)]
    return Extracted(
        rows=CachedRows(store, readable, _Restore(store, front_end, requested, digests)),
        digests=digests,
        unreadable=unreadable,
        unopened=filling.unopened,
        silent=tuple(sorted(filling.silent)),
        n_computed=filling.n_computed,
        n_bytes=store.file_bytes * len(set(filter(None, readable))),
        place=store.place,
    )


def log_mel_cache(cache: Path, front_end: FrontEnd) -> FeatureCache:
    """Return the cache of a front end's log-mel below the cache root."""
    shape = (front_end.n_frames, front_end.n_mels)
    return FeatureCache(cache / "features", Recipe("log_mel", FRONT_END_VERSION, asdict(front_end), shape))


def extract_log_mel(path: Path, front_end: FrontEnd) -> ExtractionResult:
    """Return one file's log-mel without the cache. The file is read once.

    Raises:
        OSError: the file cannot be opened or read to its end.
    """
    content, digest = _read(path)
    return _computed(path, content, digest, front_end)


def file_digest(path: Path) -> str:
    """Return a regular file's SHA-256 in hex, however large it is, with little memory.

    Raises:
        OSError: the file cannot be opened or read to its end.
    """
    regular_size(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Filling:
    """One pass over the requested files, after which the cache holds all that can be opened."""

    def __init__(self, store: FeatureCache, extractor: "_Extractor", requested: dict[int, Path]) -> None:
        self._store, self._extractor, self._requested = store, extractor, requested
        self.digests: dict[int, str] = {}
        self.unopened: dict[int, str] = {}
        self.silent: list[int] = []
        self.n_computed = 0
        self._n_failed_in_a_row, self._most_failed = 0, _MOST_FAILED_AT_FIRST

    def run(self, *, workers: int, progress: Progress) -> None:
        """Compute what is missing, and remember the digest of each file that was read."""
        if not self._requested:
            return
        fingerprints = Fingerprints(self._store.folder)
        stamps = {position: stamp_of(path) for position, path in self._requested.items()}
        known = {i: fingerprints.get(path, stamps[i]) for i, path in self._requested.items()}
        arrays, reasons = self._store.stored()
        stored = arrays | {digest for digest in reasons if self._store.reason(digest)}
        self.digests = {i: digest for i, digest in known.items() if digest in stored}
        missing = [i for i in self._requested if i not in self.digests]
        if not missing:
            return
        self._check_space(len(self._requested) - len(stored))
        random.Random().shuffle(missing)  # not the seeded generator of the process
        with one_torch_thread(), threads(workers) as pool:
            keep_freed_memory()
            outcomes = pool.map(self._extractor, [self._requested[i] for i in missing])
            try:
                for i, outcome in zip(missing, progress(outcomes, total=len(missing), label="features"), strict=True):
                    stamp = stamps[i]
                    if self._add(i, outcome) and stamp is not None:
                        fingerprints.put(self._requested[i], stamp, outcome.digest)
            finally:
                fingerprints.save()

    def _add(self, position: int, outcome: "_Outcome") -> bool:
        """Count an outcome; return whether the file could be opened.

        Raises:
            OSError: so many could not be opened that the rest are not worth trying.
        """
        if not outcome.unopened:
            self._n_failed_in_a_row, self._most_failed = 0, _MOST_FAILED_IN_A_ROW
            self.digests[position] = outcome.digest
            self.n_computed += outcome.is_computed
            self.silent += [position] * outcome.is_silent
            return True
        self.unopened[position] = outcome.unopened
        self._n_failed_in_a_row += 1
        if self._n_failed_in_a_row == self._most_failed:
            named = summarise((f"{self._requested[i]}: {why}" for i, why in self.unopened.items()), limit=_N_NAMED)
            raise OSError(
                f"{self._most_failed} audio files in a row cannot be opened, so the others were not tried: {named}; "
                "what was computed is cached; mend this and run the same command again"
            )
        return False

    def _check_space(self, n_arrays: int) -> None:
        """Refuse to begin if there is too little space for so many arrays.

        Raises:
            OSError: the message says how much is needed and how much is free.
        """
        self._store.prepare()
        needed, free = n_arrays * self._store.file_bytes, shutil.disk_usage(self._store.place).free
        if needed > free:
            raise OSError(
                f"{self._store.place}: the features of {n_arrays} clips need {filesize.decimal(needed)} and "
                f"{filesize.decimal(free)} are free there; free some space, or name another folder in the environment "
                "variable REPROGRAMMING_CACHE"
            )


@dataclass(frozen=True)
class _Outcome:
    """The outcome for one file: its SHA-256, or the reason why it cannot be opened."""

    digest: str = ""
    is_computed: bool = False
    is_silent: bool = False
    unopened: str = ""


@dataclass(frozen=True, eq=False)
class _Extractor:
    """Puts one file's log-mel, or the reason why it has none, into the cache, unless it is there."""

    store: FeatureCache
    front_end: FrontEnd

    def __call__(self, path: Path) -> _Outcome:
        try:
            content, digest = _read(path)
        except OSError as error:
            return _Outcome(unopened=why_unopened(path, error))
        if self.store.has(digest):
            return _Outcome(digest)
        found = _computed(path, content, digest, self.front_end)
        if found.log_mel is None:
            self.store.write_reason(digest, found.reason)
        else:
            self.store.write(digest, found.log_mel)
        return _Outcome(digest, is_computed=True, is_silent=found.is_silent)


@dataclass(frozen=True, eq=False)
class _Restore:
    """Computes a row again that the cache has lost, and puts it back if it may."""

    store: FeatureCache
    front_end: FrontEnd
    paths: dict[int, Path]
    digests: tuple[str, ...]

    def __call__(self, row: int) -> np.ndarray:
        path = self.paths[row]
        found = extract_log_mel(path, self.front_end)
        if found.digest != self.digests[row] or found.log_mel is None:
            raise OSError(
                f"{path}: changed since it was opened, and its earlier features are missing or damaged in "
                f"{self.store.place}; run the same command again"
            )
        with contextlib.suppress(OSError):  # a cache that this process may only read stays damaged
            self.store.prepare()
            self.store.write(found.digest, found.log_mel)
        return found.log_mel


def _read(path: Path) -> tuple[bytes | str, str]:
    """Return a file's content, or why it is too large to be read whole; and its SHA-256 in hex."""
    if too_large := why_too_large(regular_size(path)):
        return too_large, file_digest(path)
    content = path.read_bytes()
    return content, hashlib.sha256(content).hexdigest()


def _computed(path: Path, content: bytes | str, digest: str, front_end: FrontEnd) -> ExtractionResult:
    if isinstance(content, str):
        return ExtractionResult(None, content, digest)
    try:
        samples, sample_rate = decode_bytes(content, source=str(path))
        halves = _to_float16(log_mel(samples, sample_rate, front_end), source=str(path))
    except ValueError as error:
        return ExtractionResult(None, str(error).removeprefix(f"{path}: "), digest)
    return ExtractionResult(halves, "", digest, is_silent=mixes_to_silence(samples))


def _to_float16(features: Tensor, *, source: str) -> Float16[np.ndarray, "frame mel"]:
    largest = max(-float(features.min()), float(features.max()))
    if not largest <= _LARGEST:
        raise ValueError(f"{source}: its log-mel overflows float16 (largest: {largest})")
    halves: np.ndarray = features.half().numpy()
    return halves


def keep_freed_memory() -> None:
    """Keep the memory that a clip's arrays free for the next clip, instead of returning it to the system.

    The C library of Linux keeps up to twice the largest block that it has ever taken for one array, here 60 MB. With
    its default a clip of 10 s costs 1,700 page faults, 3.5 ms of its 26 ms of CPU time.
    """
    np.empty(30 << 20, np.uint8)


@contextlib.contextmanager
def threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Give a thread pool that drops its queue on an error or Ctrl-C instead of finishing it.

    Threads suffice: decoding, resampling and the filterbank release the interpreter's lock. Two spawned processes,
    which import torch first, took 27 % longer than two threads for 400 clips, and 7 % longer for 1,200.

    Raises:
        ValueError: `workers` is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers={workers}: must be at least 1")
    pool = ThreadPoolExecutor(workers, thread_name_prefix="features")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let each of our threads compute on one core instead of on all of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
