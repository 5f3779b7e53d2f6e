"""Log-mel of many audio files through the feature cache, by the threads of this process."""

import contextlib
import hashlib
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16
from rich import filesize

from harness.common.files import sha256_of, write_atomically
from harness.common.progress import Progress, quiet
from harness.features.audio import FRONT_END_VERSION, decode_bytes, mixes_to_silence, why_too_large, why_unopened
from harness.features.cache import ARRAY, REASON, SILENT, CachedRows, FeatureCache, Recipe
from harness.features.log_mel import FrontEnd, log_mel


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
        silent: Files with nothing audible in their mono mix.
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
        OSError: the cache cannot be written, or its disk has too little space.
    """
    shape = (front_end.n_frames, front_end.n_mels)
    store = FeatureCache(cache / "features", Recipe("log_mel", FRONT_END_VERSION, asdict(front_end), shape))
    requested = {position: path for position, path in enumerate(paths) if path is not None}
    outcomes = _fill(store, front_end, requested, workers=workers, progress=progress) if requested else {}
    digests = tuple(outcomes[i].digest if i in outcomes else "" for i in range(len(paths)))
    without, silent = store.stored(REASON), store.stored(SILENT)
    readable = ["" if digest in without else digest for digest in digests]
    return Extracted(
        rows=CachedRows(store, readable, partial(_restore, store, front_end, requested, digests)),
        digests=digests,
        unreadable={i: store.reason(digest) for i, digest in enumerate(digests) if digest in without},
        unopened={i: outcome.unopened for i, outcome in outcomes.items() if outcome.unopened},
        silent=tuple(i for i, digest in enumerate(readable) if digest in silent),
        n_computed=sum(outcome.is_computed for outcome in outcomes.values()),
        n_bytes=store.file_bytes * len(set(filter(None, readable))),
        place=store.place,
    )


def extract_log_mel(path: Path, front_end: FrontEnd) -> ExtractionResult:
    """Return one file's log-mel without the cache. The file is read once.

    Raises:
        OSError: the file cannot be opened or read to its end.
    """
    return _computed(path, *_read(path), front_end)


@dataclass(frozen=True)
class _Outcome:
    """The outcome for one file: its SHA-256, or the reason why it cannot be opened."""

    digest: str = ""
    is_computed: bool = False
    unopened: str = ""


def _fill(
    store: FeatureCache, front_end: FrontEnd, requested: dict[int, Path], *, workers: int, progress: Progress
) -> dict[int, _Outcome]:
    """Compute what the cache lacks of the requested files, and remember the digest of each file that is read."""
    fingerprints = Fingerprints(store.folder)
    stamps = {position: stamp_of(path) for position, path in requested.items()}
    stored = store.stored(ARRAY) | {digest for digest in store.stored(REASON) if store.reason(digest)}
    known = {i: fingerprints.get(path, stamps[i]) for i, path in requested.items()}
    outcomes = {i: _Outcome(digest) for i, digest in known.items() if digest in stored}
    missing = [i for i in requested if i not in outcomes]
    if not missing:
        return outcomes
    _make_room(store, [requested[i] for i in missing])
    random.Random().shuffle(missing)  # not the seeded generator of the process
    _keep_freed_memory()
    with _threads(workers) as pool:
        computed = pool.map(partial(_extract_one, store, front_end), [requested[i] for i in missing])
        try:
            for i, outcome in zip(missing, progress(computed, total=len(missing), label="features"), strict=True):
                outcomes[i] = outcome
                if outcome.digest and (stamp := stamps[i]):
                    fingerprints.put(requested[i], stamp, outcome.digest)
        finally:
            fingerprints.save()
    return outcomes


def _make_room(store: FeatureCache, paths: Sequence[Path]) -> None:
    """Make the cache's folder, and refuse to begin if there is too little space for what it lacks of these files.

    Where space is short, the files are hashed first, since the cache may have them under other paths.

    Raises:
        OSError: the message says how much is needed and how much is free.
    """
    store.prepare()
    free = shutil.disk_usage(store.place).free
    if len(paths) * store.file_bytes <= free:
        return
    n_arrays = len({digest for digest in map(_digest, paths) if digest and not store.has(digest)})
    needed = n_arrays * store.file_bytes
    if needed > free:
        raise OSError(
            f"{store.place}: the features of {n_arrays} clips need {filesize.decimal(needed)} and "
            f"{filesize.decimal(free)} are free there; free some space, or name another folder in the environment "
            "variable REPROGRAMMING_CACHE"
        )


def _extract_one(store: FeatureCache, front_end: FrontEnd, path: Path) -> _Outcome:
    """Put one file's log-mel, or the reason why it has none, into the cache, unless it is there."""
    try:
        content, digest = _read(path)
    except OSError as error:
        return _Outcome(unopened=why_unopened(path, error))
    if store.has(digest):
        return _Outcome(digest)
    found = _computed(path, content, digest, front_end)
    if found.is_silent:
        store.note(digest, SILENT)
    if found.log_mel is None:
        store.note(digest, REASON, found.reason)
    else:
        store.write(digest, found.log_mel)
    return _Outcome(digest, is_computed=True)


def _restore(
    store: FeatureCache, front_end: FrontEnd, paths: dict[int, Path], digests: Sequence[str], row: int
) -> np.ndarray:
    """Compute a row again that the cache has lost, and put it back if this process may."""
    path = paths[row]
    found = extract_log_mel(path, front_end)
    if found.digest != digests[row] or found.log_mel is None:
        raise OSError(
            f"{path}: changed since it was opened, and its earlier features are missing or damaged in {store.place}; "
            "run the same command again"
        )
    with contextlib.suppress(OSError):  # a cache that this process may only read stays damaged
        store.prepare()
        store.write(found.digest, found.log_mel)
    return found.log_mel


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex, "" if it cannot be opened."""
    with contextlib.suppress(OSError):
        return sha256_of(path)
    return ""


def _read(path: Path) -> tuple[bytes | str, str]:
    """Return a file's content, or why it is too large to be read whole; and its SHA-256 in hex."""
    if too_large := why_too_large(path.stat().st_size):
        return too_large, sha256_of(path)
    content = path.read_bytes()
    return content, hashlib.sha256(content).hexdigest()


def _computed(path: Path, content: bytes | str, digest: str, front_end: FrontEnd) -> ExtractionResult:
    if isinstance(content, str):
        return ExtractionResult(None, content, digest)
    try:
        samples, sample_rate = decode_bytes(content, source=str(path))
    except ValueError as error:
        return ExtractionResult(None, str(error).removeprefix(f"{path}: "), digest)
    halves = log_mel(samples, sample_rate, front_end).half()
    if not halves.isfinite().all():  # of samples far beyond [-1, 1]
        return ExtractionResult(None, "its log-mel overflows float16", digest)
    return ExtractionResult(halves.numpy(), "", digest, is_silent=mixes_to_silence(samples))


def _keep_freed_memory() -> None:
    """Let the C library keep up to 60 MB that a clip's arrays free for the next clip; it saves a tenth of the CPU time.

    By default it keeps twice the largest block that a program has freed. A trial of a large network on a CPU fixes that
    limit in `harness.models.checkpointing`, and this has no effect from then on.
    """
    np.empty(30 << 20, np.uint8)


@contextlib.contextmanager
def _threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Give a thread pool that drops its queue on an error or Ctrl-C instead of finishing it.

    Threads suffice: decoding, resampling and the filterbank release the interpreter's lock. Two spawned processes,
    which import torch first, took 27 % longer than two threads for 400 clips, and 7 % longer for 1,200. Each thread
    computes on one core; torch keeps that setting by thread, so a new one would wait for a team of its own.
    """
    n_torch_threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, "features", initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(n_torch_threads)


Stamp = tuple[int, int, int, int]
"""A file's inode, its size in bytes, and when its content and its entry last changed (mtime and ctime), in ns.

The system sets the last one, and nobody can set it back.
"""


def stamp_of(path: Path) -> Stamp | None:
    """Return a file's stamp, or None if there is no such file. Take it before reading, so that a change shows."""
    try:
        status = path.stat()
    except OSError:  # the reader of the file will report it
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class Fingerprints:
    """The SHA-256, in hex, of audio files, remembered until a file's inode, size or times change.

        CACHE/features/audio-0123456789abcdef.json    the files of one folder, by name and inode

    The inode distinguishes files of equal size and mtime whose folders swap names. Machines that share the cache
    may have each its own copy of the audio, hence one entry for each inode.

    Hashing OpenMIC-2018 takes seconds, and comparing sizes and times a tenth of one. Where this file is lost, such as
    by a kill before it is written, the audio is hashed again.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._known: dict[Path, dict[str, tuple[int, int, int, str]]] = {}
        self._new: dict[Path, dict[str, tuple[int, int, int, str]]] = {}

    def get(self, path: Path, stamp: Stamp | None) -> str:
        """Return the SHA-256 of a file, or "" if it is unknown or the file has changed.

        An older ctime is no change: copies on two machines may share an inode.
        """
        folder = path.parent.absolute()
        if folder not in self._known:
            self._known[folder] = self._load(folder)
        if stamp is None:
            return ""
        inode, *size_and_mtime, ctime = stamp
        *known, changed, digest = self._known[folder].get(_entry(path, inode), (0, 0, -1, ""))
        return digest if known == size_and_mtime and ctime <= changed else ""

    def put(self, path: Path, stamp: Stamp, digest: str) -> None:
        """Remember the SHA-256 of a file whose stamp was taken before it was read."""
        inode, size, modified, changed = stamp
        entry = _entry(path, inode)
        self._new.setdefault(path.parent.absolute(), {})[entry] = (size, modified, changed, digest)

    def save(self) -> None:
        """Add what is new to the files, unless this process may not write there."""
        for folder, new in self._new.items():
            content = {"folder": str(folder), "files": self._load(folder) | new}
            with contextlib.suppress(OSError):
                write_atomically(self._file(folder), json.dumps(content).encode())

    def _file(self, folder: Path) -> Path:
        return self._cache / f"audio-{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}.json"

    def _load(self, folder: Path) -> dict[str, tuple[int, int, int, str]]:
        try:
            files = json.loads(self._file(folder).read_text(encoding="utf-8"))["files"]
            return {name: (int(a), int(b), int(c), str(digest)) for name, (a, b, c, digest) in files.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # none yet, or damaged


def _entry(path: Path, inode: int) -> str:
    return f"{path.name}/{inode}"
