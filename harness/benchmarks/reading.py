"""Reading from a store: clips a second in random order, and how long training waits for them.

The baseline is a memory map, indexed by the rows of a batch. Cold means that the system holds nothing of the file in
its page cache when a round begins; what the disk's own controller or a virtual machine's host may hold is not in our
hands.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from harness.benchmarks.timing import Ratio, interleaved, ratio, speed
from harness.benchmarks.training import unread_data
from harness.common.files import cache_dir
from harness.config.trial import TrialConfig
from harness.data.batches import Part, StudyData
from harness.data.rows import Rows, StoredRows
from harness.models.backbones.ast import GEOMETRIES
from harness.models.backbones.checkpoints import load_backbone
from harness.models.build import build_model
from harness.training.trainer import Trainer

MAPPED, OURS, AHEAD = "np.memmap", "ours", "ours, read ahead"
BATCH = 8
_CPU = torch.device("cpu")
_EPOCH_CLIPS = 400


@dataclass(frozen=True)
class ReadingSpeed:
    """One way to read all rows of a store in batches and in random order; the ratio is to the memory map."""

    way: str
    page_cache: str
    store_gb: float
    batch: int
    rounds: int
    clips_per_second: float
    batches_per_second: float
    ratio: Ratio


@dataclass(frozen=True)
class Waiting:
    """An epoch of training: the share of its time in which it waits for clips, beside reading each batch in its turn.

    The ratio is that of the whole epoch's speed to that of the same epoch without reading ahead.
    """

    backbone: str
    page_cache: str
    clips: int
    rounds: int
    clips_per_second: float
    share_waited: float
    ratio: Ratio


def measure_reading(*, store_gb: float, rounds: int = 5) -> list[ReadingSpeed]:
    """Read a store of AST's 1024 x 128 in float16, of `store_gb` times 10^9 bytes."""
    with tempfile.TemporaryDirectory(dir=_scratch()) as directory:
        file = write_store(Path(directory) / "features.npy", (1024, 128), n_bytes=round(store_gb * 1e9))
        n_clips = len(StoredRows(file))
        rows: list[ReadingSpeed] = []
        for page_cache, before_each in (("warm", lambda: None), ("cold", lambda: forget(file))):
            seconds = interleaved(_readers(file), rounds=rounds, before_each=before_each)
            rows += [
                ReadingSpeed(
                    way,
                    page_cache,
                    store_gb,
                    BATCH,
                    rounds,
                    speed(n_clips, taken),
                    speed(-(-n_clips // BATCH), taken),
                    ratio(taken, seconds[MAPPED]),
                )
                for way, taken in seconds.items()
            ]
    return rows


def measure_waiting(*, backbone: str = "ast-nano", n_clips: int = _EPOCH_CLIPS, rounds: int = 5) -> list[Waiting]:
    """Train epochs without a reprogrammer, the fastest there are, from a store that is warm and one that is cold."""
    geometry, waiting = GEOMETRIES[backbone], []
    with tempfile.TemporaryDirectory(dir=_scratch()) as directory:
        shape = (geometry.n_frames, geometry.n_mels)
        file = write_store(Path(directory) / "features.npy", shape, n_bytes=2 * n_clips * shape[0] * shape[1])
        trainer = _trainer(backbone, unread_data(geometry, StoredRows(file), np.arange(n_clips)))
        for page_cache, before_each in (("warm", lambda: None), ("cold", lambda: forget(file))):
            shares: list[float] = []
            seconds = interleaved(_epochs(trainer, shares), rounds=rounds, before_each=before_each)
            waiting.append(
                Waiting(
                    backbone=backbone,
                    page_cache=page_cache,
                    clips=n_clips,
                    rounds=rounds,
                    clips_per_second=speed(n_clips, seconds[AHEAD]),
                    share_waited=statistics.median(shares[1:]),  # the first round is not counted
                    ratio=ratio(seconds[AHEAD], seconds[OURS]),
                )
            )
    return waiting


def write_store(path: Path, shape: tuple[int, int], *, n_bytes: int) -> Path:
    """Write float16 rows of noise, not holes, so that reading them reads from the disk; at least a batch of them."""
    row_bytes = 2 * shape[0] * shape[1]
    n_clips = max(BATCH, n_bytes // row_bytes)
    noise = np.random.default_rng(0).normal(-6, 3, (64, *shape)).astype(np.float16).tobytes()
    with path.open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (n_clips, *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, n_clips, 64):
            file.write(noise[: min(64, n_clips - first) * row_bytes])
        file.flush()
        os.fsync(file.fileno())
    return path


def forget(path: Path) -> None:
    """Have the system drop a file from its page cache, as far as no process maps it."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _readers(file: Path) -> dict[str, Callable[[], object]]:
    n_clips = len(StoredRows(file))
    labels = np.zeros((n_clips, 1), np.float32)

    def part(features: Rows) -> Part:
        return Part(features, np.arange(n_clips), labels, labels == 0)

    def in_turn(features: Rows) -> None:
        clips = part(features)
        for batch in _batches(n_clips):
            clips.read(batch)

    def ahead() -> None:
        with part(StoredRows(file)).read_ahead(_batches(n_clips), _CPU) as batches:
            for _ in batches:
                pass

    return {
        MAPPED: lambda: in_turn(np.load(file, mmap_mode="r")),
        OURS: lambda: in_turn(StoredRows(file)),
        AHEAD: ahead,
    }


def _batches(n_clips: int) -> Iterator[np.ndarray]:
    order = np.random.default_rng(0).permutation(n_clips)
    for start in range(0, n_clips, BATCH):
        yield order[start : start + BATCH]


def _epochs(trainer: Trainer, shares: list[float]) -> dict[str, Callable[[], object]]:
    """Return an epoch without reading ahead, and one with it, which adds the share of its time that it waited."""

    def in_turn() -> None:
        trainer.model.train()
        for step, clips in enumerate(trainer._batches()):
            trainer._set_learning_rate(step)
            trainer._step(trainer.data.train.batch(clips, _CPU), step)

    def ahead() -> None:
        waited, started = trainer.seconds_waited, time.perf_counter()
        trainer._train_epoch()
        shares.append((trainer.seconds_waited - waited) / (time.perf_counter() - started))

    return {OURS: in_turn, AHEAD: ahead}


def _trainer(name: str, data: StudyData) -> Trainer:
    backbone = load_backbone(name)
    config = TrialConfig.from_paths({"reprogrammer/kind": "none", "training/batch_size": BATCH})
    model = build_model(config, backbone, data=data, seed=0, device=_CPU)
    return Trainer(model, backbone, data=data, config=config, epochs=1, seed=0, device=_CPU)


def _scratch() -> Path:
    """Return a folder on the disk that stores are kept on."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    return cache_dir()
