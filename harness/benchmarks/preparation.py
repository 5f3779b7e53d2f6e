"""Preparing a data set: clips a second of whole preparations, beside the released code's way on one core.

The clock is wall time: it shows how soon the clips are there, and whether twice the cores take half as long.
`front_end` measures the time of a core on a busy machine.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.benchmarks.front_end import RELEASED, released_front_end, synthetic_clips
from harness.benchmarks.timing import Ratio, interleaved, ratio, speed, torch_threads
from harness.features.extract import extract
from harness.features.log_mel import FrontEnd

ONE, THREADS = "ours, 1 thread", "ours, {} threads"


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


def measure_preparation(*, clips: int = 96, clip_seconds: float = 10.0, rounds: int = 5) -> list[PreparationSpeed]:
    """Compare the released code's front end, and whole preparations by one core and by all."""
    cores = len(os.sched_getaffinity(0))
    n_cores = {RELEASED: 1, ONE: 1, THREADS.format(cores): cores}
    with tempfile.TemporaryDirectory() as directory, torch_threads(1):
        seconds = interleaved(_ways(Path(directory), cores, clips=clips, clip_seconds=clip_seconds), rounds=rounds)
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


def _ways(root: Path, cores: int, *, clips: int, clip_seconds: float) -> dict[str, Callable[[], object]]:
    dataset = synthetic_clips(root, clips=clips, seconds=clip_seconds)
    paths = list(dataset.paths[:clips])

    def prepare(workers: int) -> None:
        shutil.rmtree(root / "cache", ignore_errors=True)
        extract(paths, FrontEnd(), cache=root / "cache", workers=workers)

    return {
        RELEASED: lambda: [released_front_end(path) for path in paths],
        ONE: partial(prepare, 1),
        THREADS.format(cores): partial(prepare, cores),
    }
