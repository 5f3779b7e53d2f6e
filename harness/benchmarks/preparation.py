"""Preparing a data set: clips a second of whole preparations, beside the released code's way on one core.

The clock is wall time: what is asked here is how soon the clips are there, and whether twice the cores take half as
long. `front_end` tells what a core does on a busy machine.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ray

from harness.benchmarks.front_end import RELEASED, released_front_end, synthetic_clips
from harness.benchmarks.timing import Ratio, interleaved, ratio, speed, torch_threads
from harness.common.ray_start import start_ray
from harness.data.extraction import Extraction, in_threads
from harness.data.store import prepare_features
from harness.features.log_mel import FrontEnd
from harness.features.ray_extraction import RayExtraction

ONE, THREADS, RAY = "ours, 1 thread", "ours, {} threads", "ours, {} Ray workers"


@dataclass(frozen=True)
class PreparationSpeed:
    """One way to prepare clips: `ratio` is to the released code on a core, `scaling` to our own on one."""

    way: str
    cores: int
    clips: int
    rounds: int
    clips_per_second: float
    ratio: Ratio
    scaling: Ratio


def measure_preparation(
    *, clips: int = 96, clip_seconds: float = 10.0, rounds: int = 5, with_ray: bool = True
) -> list[PreparationSpeed]:
    """Compare the released code's front end, and whole preparations by one core and by all, as threads and by Ray."""
    cores = len(os.sched_getaffinity(0))
    n_cores = {RELEASED: 1, ONE: 1, THREADS.format(cores): cores}
    extractions: dict[str, Extraction] = {ONE: in_threads(1), THREADS.format(cores): in_threads(cores)}
    if with_ray:
        start_ray(None, cpus=cores)
        n_cores[RAY.format(cores)], extractions[RAY.format(cores)] = cores, RayExtraction()
    try:
        with tempfile.TemporaryDirectory() as directory, torch_threads(1):
            ways = _ways(Path(directory), extractions, clips=clips, clip_seconds=clip_seconds)
            seconds = interleaved(ways, rounds=rounds)
    finally:
        if with_ray:
            ray.shutdown()
    return [
        PreparationSpeed(
            way=way,
            cores=n_cores[way],
            clips=clips,
            rounds=rounds,
            clips_per_second=speed(clips, taken),
            ratio=ratio(taken, seconds[RELEASED]),
            scaling=ratio(taken, seconds[ONE]),
        )
        for way, taken in seconds.items()
    ]


def _ways(
    root: Path, extractions: dict[str, Extraction], *, clips: int, clip_seconds: float
) -> dict[str, Callable[[], object]]:
    dataset = synthetic_clips(root, clips=clips, seconds=clip_seconds)
    paths = [dataset.audio_path(row) for row in range(clips)]

    def prepare(compute: Extraction) -> None:
        shutil.rmtree(root / "cache", ignore_errors=True)
        prepare_features(dataset, FrontEnd(), cache=root / "cache", compute=compute)

    ways: dict[str, Callable[[], object]] = {RELEASED: lambda: [released_front_end(path) for path in paths]}
    for way, compute in extractions.items():
        ways[way] = partial(prepare, compute)
    return ways
