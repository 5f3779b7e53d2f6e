"""Reading from the feature cache: clips a second in random order, and how long training waits for them.

The baseline is a memory map of one packed file, indexed by the rows of a batch. Cold means that the page cache holds
nothing of the files when a round begins; a disk controller or a virtual machine's host may still hold them.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from harness.benchmarks.cached import MAPPED, OURS, forget, open_rows, write_cache
from harness.benchmarks.timing import Ratio, interleaved, ratio, speed
from harness.benchmarks.training import unread_data
from harness.common.files import cache_dir
from harness.config.trial import TrialConfig
from harness.data.batches import Split, StudyData
from harness.features.cache import Rows
from harness.models.backbones import load_backbone
from harness.models.build import Target, build_model
from harness.training.trainer import Trainer

AHEAD = "ours, read ahead"
BATCH = 8
_CPU = torch.device("cpu")
_SHAPE = (1024, 128)
_EPOCH_CLIPS = 400


@dataclass(frozen=True)
class ReadingSpeed:
    """One way to read all clips in batches and in random order; the ratio is to the memory map."""

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
    """Read a cache of AST's 1024 x 128 in float16, of `store_gb` times 10^9 bytes and at least a batch."""
    n_clips = max(BATCH, round(store_gb * 1e9) // (2 * _SHAPE[0] * _SHAPE[1]))
    with tempfile.TemporaryDirectory(dir=_scratch()) as directory:
        place = Path(directory)
        write_cache(place, _SHAPE, n_clips=n_clips)
        rows: list[ReadingSpeed] = []
        for page_cache, before_each in (("warm", lambda: None), ("cold", lambda: forget(place))):
            seconds = interleaved(_readers(place, n_clips), rounds=rounds, before_each=before_each)
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
    """Train epochs without a reprogrammer, the fastest there are, from a cache that is warm and one that is cold."""
    front_end, waiting = load_backbone(backbone).front_end, []
    with tempfile.TemporaryDirectory(dir=_scratch()) as directory:
        shape = (front_end.n_frames, front_end.n_mels)
        place = Path(directory)
        write_cache(place, shape, n_clips=n_clips)
        trainer = _trainer(backbone, unread_data(front_end, open_rows(place, OURS, shape), np.arange(n_clips)))
        for page_cache, before_each in (("warm", lambda: None), ("cold", lambda: forget(place))):
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


def _readers(place: Path, n_clips: int) -> dict[str, Callable[[], object]]:
    labels = np.zeros((n_clips, 1), np.float32)

    def part(features: Rows) -> Split:
        return Split(features, np.arange(n_clips), labels, labels == 0)

    def in_turn(features: Rows) -> None:
        clips = part(features)
        for batch in _batches(n_clips):
            clips.read(batch)

    ours = open_rows(place, OURS, _SHAPE)

    def ahead() -> None:
        with part(ours).read_ahead(_batches(n_clips), _CPU) as batches:
            for _ in batches:
                pass

    return {
        MAPPED: lambda: in_turn(open_rows(place, MAPPED, _SHAPE)),  # mapped pages cannot be dropped between rounds
        OURS: lambda: in_turn(ours),
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
    model = build_model(config, backbone, Target.of(data), seed=0, device=_CPU)
    return Trainer(model, backbone, data=data, config=config, epochs=1, seed=0, device=_CPU)


def _scratch() -> Path:
    """Return a folder on the disk that holds the cache."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    return cache_dir()
