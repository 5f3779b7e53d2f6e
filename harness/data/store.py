"""The feature store: every clip's log-mel, computed once and memory-mapped by all trials of a machine.

    CACHE/features/DIGEST/features.npy   float16, (clip, frame, mel), one row per key of the data set
    CACHE/features/DIGEST/index.json     what shaped it, the keys, the clips that could not be read, the audio's digest

The digest in the name covers the front end and each audio file's key, size and time of change. A store is
built under another name and renamed when it is whole, so what bears the name is never half a store.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float16

from harness.data.extraction import audio_digest, extract_features
from harness.data.frontend import FRONT_END_VERSION, FrontEnd
from harness.data.openmic import ClipDataset
from harness.data.progress import Progress, quiet
from harness.data.tables import few

logger = logging.getLogger(__name__)

STORE_FORMAT = 2
_FEATURES, _INDEX = "features.npy", "index.json"
_INDEXED = {"inputs_digest", "front_end", "keys", "unreadable", "audio_digest"}
_N_NAMED = 10


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """Log-mel of every clip of a data set, not normalised, read-only; row i belongs to `keys[i]`.

    `available` is False, and the row 0, where the clip could not be read; `unreadable` says why, by key.
    `inputs_digest` knows the audio by size and time of change, which only this machine shares; `audio_digest` by its
    bytes, and is equal wherever the same files lie. Pickled by its path: who unpickles it maps the same file.
    """

    path: Path
    features: Float16[np.memmap, "clip frame mel"]
    keys: tuple[str, ...]
    available: Bool[np.ndarray, " clip"]
    unreadable: dict[str, str]
    front_end: FrontEnd
    inputs_digest: str
    audio_digest: str

    def __reduce__(self) -> tuple[Callable[[Path], "FeatureStore"], tuple[Path]]:
        return open_store, (self.path,)


def prepare_features(
    dataset: ClipDataset,
    front_end: FrontEnd,
    *,
    cache: Path,
    workers: int,
    skip_corrupt: bool = False,
    progress: Progress | None = None,
) -> FeatureStore:
    """Return the store of a data set's features, computing it first with `workers` threads if there is none.

    Clips that cannot be read are an error, raised once all have been tried; with `skip_corrupt` they are a
    warning, and False in `available`.

    Raises:
        FileNotFoundError: a clip's file is gone.
        ValueError: `workers` is below 1, clips cannot be read without `skip_corrupt`, or no clip can be read.
    """
    if workers < 1:
        raise ValueError(f"workers={workers}: at least one must do the work")
    digest = _inputs_digest(dataset, front_end)
    path = cache / "features" / digest
    store = _open_if_sound(path, dataset, front_end)
    if store is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(f"{digest}.lock")):
            store = _open_if_sound(path, dataset, front_end)  # built while this process waited for the lock
            if store is None:
                _build(path, dataset, front_end, workers=workers, progress=progress or quiet)
                store = open_store(path)
    _report_unreadable(store, skip_corrupt=skip_corrupt)
    return store


def open_store(path: Path) -> FeatureStore:
    """Map a finished store; reads its index, not its features.

    Raises:
        FileNotFoundError: there is no store.
        ValueError: its index or its features are damaged, or do not fit each other.
    """
    index = _read_index(path / _INDEX)
    try:
        keys, unreadable = tuple(index["keys"]), dict(index["unreadable"])
        front_end = FrontEnd(**index["front_end"])
        features = np.load(path / _FEATURES, mmap_mode="r", allow_pickle=False)
    except (TypeError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: damaged ({error})") from error
    expected = (len(keys), front_end.n_frames, front_end.n_mels)
    if features.dtype != np.float16 or features.shape != expected:
        raise ValueError(
            f"{path / _FEATURES}: holds {features.dtype} {features.shape}; its index says float16 {expected}"
        )
    return FeatureStore(
        path=path,
        features=features,
        keys=keys,
        available=np.array([key not in unreadable for key in keys], dtype=np.bool_),
        unreadable=unreadable,
        front_end=front_end,
        inputs_digest=index["inputs_digest"],
        audio_digest=index["audio_digest"],
    )


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        stamp = index["format"]
        missing = _INDEXED - set(index)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged ({error!r})") from error
    if stamp != STORE_FORMAT or missing:
        raise ValueError(f"{path}: has format {stamp!r} and lacks {sorted(missing)}; this is format {STORE_FORMAT}")
    return index


def _open_if_sound(path: Path, dataset: ClipDataset, front_end: FrontEnd) -> FeatureStore | None:
    """Return the store at `path` if it is one and holds what its name says; None calls for building it."""
    if not path.exists():
        return None
    try:
        store = open_store(path)
    except (ValueError, FileNotFoundError) as error:
        logger.warning("the feature store is rebuilt, since it is not whole: %s", error)
        return None
    if (store.inputs_digest, store.front_end, store.keys) != (path.name, front_end, dataset.keys):
        logger.warning("%s: the feature store is rebuilt, since its index describes another one", path)
        return None
    return store


def _report_unreadable(store: FeatureStore, *, skip_corrupt: bool) -> None:
    reasons = list(store.unreadable.values())
    if not reasons:
        return
    message = f"{len(reasons)} of {len(store.keys)} clips cannot be read: {few(reasons, limit=_N_NAMED)}"
    if not skip_corrupt or not store.available.any():
        raise ValueError(f"{message}; repair them, or leave them out on purpose with --skip-corrupt")
    logger.warning("%s; they are left out", message)


def _inputs_digest(dataset: ClipDataset, front_end: FrontEnd) -> str:
    files = []
    for row, key in enumerate(dataset.keys):
        status = dataset.audio_path(row).stat()
        files.append([key, status.st_size, status.st_mtime_ns])
    return _sha256([STORE_FORMAT, FRONT_END_VERSION, asdict(front_end), files])


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _build(path: Path, dataset: ClipDataset, front_end: FrontEnd, *, workers: int, progress: Progress) -> None:
    """Write a whole store beside `path`, then give it its name. The lock on `path` is held."""
    host = platform.node()  # some shared file systems keep no locks between hosts
    for leftover in [path, *path.parent.glob(f"{path.name}.{host}.*.partial")]:
        shutil.rmtree(leftover, ignore_errors=True)  # of a preparation that was killed
    partial = path.with_name(f"{path.name}.{host}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        unreadable = extract_features(dataset, front_end, path=partial / _FEATURES, workers=workers, progress=progress)
        index = {
            "format": STORE_FORMAT,
            "inputs_digest": path.name,
            "front_end_version": FRONT_END_VERSION,
            "front_end": asdict(front_end),
            "keys": dataset.keys,
            "unreadable": unreadable,
            "audio_digest": audio_digest(dataset, unreadable, workers=workers),
        }
        _write_index(partial / _INDEX, index)
        try:
            partial.rename(path)
        except OSError:
            if not path.is_dir():  # else another host was first, and its store is as good
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_index(path: Path, index: dict[str, object]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(index, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock among processes; the system releases it when its holder dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("%s: waiting for another process that prepares these features", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
