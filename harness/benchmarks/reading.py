"""Reading from the feature cache: clips a second in random order, and how long training waits for them.

The baseline is a memory map of one packed file, indexed by the rows of a batch. Cold means that the page cache holds
nothing of the files when a round begins; a disk controller or a virtual machine's host may still hold them.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from harness.benchmarks.cached import MAPPED, OURS, forget, open_rows, write_cache
from harness.benchmarks.timing import Measurement, Row, interleaved, ratio, speed
from harness.benchmarks.training import one_epoch_trainer, unread_data
from harness.common.files import cache_dir
from harness.data.batches import Split
from harness.features.cache import Rows
from harness.models.backbones import load_backbone
from harness.training.fused import complete
from harness.training.trainer import Trainer

AHEAD = "ours, read ahead"
BATCH = 8
_CPU = torch.device("cpu")
_SHAPE = (1024, 128)
_EPOCH_CLIPS = 400


def measure_reading(*, store_gb: float, rounds: int = 5) -> Measurement:
    """Read a cache of AST's 1024 x 128 in float16, of `store_gb` times 10^9 bytes and at least a batch."""
    n_clips = max(BATCH, round(store_gb * 1e9) // (2 * _SHAPE[0] * _SHAPE[1]))
    rows: list[Row] = []
    with _noise_cache(_SHAPE, n_clips=n_clips) as place:
        for page_cache, before_each in _page_caches(place):
            seconds = interleaved(_readers(place, n_clips), rounds=rounds, before_each=before_each)
            rows += [
                {
                    "way": way,
                    "page_cache": page_cache,
                    "clips_per_second": speed(n_clips, taken),
                    "ratio": ratio(taken, seconds[MAPPED]),
                }
                for way, taken in seconds.items()
            ]
    title = f"Reading {store_gb:g} GB in batches of {BATCH} and in random order"
    return Measurement(title, rows, "ratio: times the memory map's speed")


def measure_waiting(*, backbone: str = "ast-nano", n_clips: int = _EPOCH_CLIPS, rounds: int = 5) -> Measurement:
    """Train epochs without a reprogrammer, the fastest there are, from a cache that is warm and one that is cold."""
    rows: list[Row] = []
    model = load_backbone(backbone)
    front_end = model.front_end
    shape = (front_end.n_frames, front_end.n_mels)
    with _noise_cache(shape, n_clips=n_clips) as place:
        data = unread_data(front_end, open_rows(place, OURS, shape), np.arange(n_clips))
        trainer = one_epoch_trainer(model, data, reprogrammer="none", batch=BATCH, device=_CPU)
        for page_cache, before_each in _page_caches(place):
            shares: list[float] = []
            seconds = interleaved(_epochs(trainer, shares), rounds=rounds, before_each=before_each)
            rows.append(
                {
                    "page_cache": page_cache,
                    "clips_per_second": speed(n_clips, seconds[AHEAD]),
                    "percent_waited": 100 * statistics.median(shares[1:]),  # the first round is not counted
                    "ratio": ratio(seconds[AHEAD], seconds[OURS]),
                }
            )
    title = f"Training {backbone}: the share of an epoch that waits for clips"
    return Measurement(title, rows, "ratio: times the speed without reading ahead")


@contextmanager
def _noise_cache(shape: tuple[int, int], *, n_clips: int) -> Iterator[Path]:
    """Write a cache of noise on the disk of the real cache, and remove it afterwards."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir()) as place:
        write_cache(Path(place), shape, n_clips=n_clips)
        yield Path(place)


def _page_caches(place: Path) -> tuple[tuple[str, Callable[[], None]], ...]:
    """Return each state of the page cache, with the function that makes it before a round."""
    return ("warm", lambda: None), ("cold", lambda: forget(place))


def _readers(place: Path, n_clips: int) -> dict[str, Callable[[], object]]:
    labels = np.zeros((n_clips, 1), np.float32)

    def split(features: Rows) -> Split:
        return Split(features, np.arange(n_clips), labels, labels == 0)

    def in_turn(features: Rows) -> None:
        clips = split(features)
        for batch in _batches(n_clips):
            clips.read(batch)

    ours = open_rows(place, OURS, _SHAPE)

    def ahead() -> None:
        with split(ours).read_ahead(_batches(n_clips), _CPU) as batches:
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
    """Return an epoch without reading ahead, and one with it, which adds to `shares` the share that it waited."""

    def in_turn() -> None:
        trainer.model.train()
        for step, clips in enumerate(trainer._batches()):
            trainer._set_learning_rate(step)
            complete(trainer._step(trainer.data.train.batch(clips, _CPU), step))

    def ahead() -> None:
        waited, started = trainer.seconds_waited, time.perf_counter()
        complete(trainer._train_epoch())
        shares.append((trainer.seconds_waited - waited) / (time.perf_counter() - started))

    return {OURS: in_turn, AHEAD: ahead}
