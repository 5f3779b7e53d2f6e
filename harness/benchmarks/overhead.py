"""The harness's overhead: the wall time of real studies beyond the training that their trials report.

A short and a long study take turns, each through the command line in its own process, with one trial of one core at a
time. The cost of the additional trials is the additional wall time from the first training step on, less the additional
training. The times of a trial's files show its stages: the trial writes its best weights right after its only epoch,
and its last checkpoint at its end.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.benchmarks.timing import Measurement, Row
from harness.common.progress import track
from harness.common.ray_start import cpu_count
from harness.config.study import DataSpec
from harness.features.inputs import LogMel
from harness.models.backbones import load_backbone
from harness.study.files import BEST, LAST, TrialFiles
from harness.study.sources import open_dataset, open_study_data

STUDY = (sys.executable, "-m", "harness.study")
_BACKBONE = "ast-nano"
_FLAGS = (
    *("--space", "none", "--epochs", "1", "--scheduler", "none", "--backbone", _BACKBONE),
    *("--concurrent", "1", "--cpus-per-trial", "1"),
)
_WORKER_TITLE = "ray::ImplicitFunc"  # as Tune calls the actor that runs a function
_POLL_SECONDS = 0.2
_FIRST_TRIALS = 2  # a worker's first trials import and load modules and data for the later ones


@dataclass(frozen=True)
class StudyTimes:
    """Times of one study, in seconds; the lists hold a value for each trial after the first two.

    `before_training` is from the end of the trial before to the first step, `after_training` from the last step's
    validation to the end: figures and checkpoints.
    """

    trials: int
    wall: float
    training: float
    to_first_training: float
    before_training: Sequence[float]
    after_training: Sequence[float]
    worker_processes: int

    @property
    def beyond_training(self) -> float:
        """Return the seconds from the first training step to the end in which no trial trained."""
        return self.wall - self.to_first_training - self.training


def measure_overhead(
    *, trials: tuple[int, int] = (3, 13), rounds: int = 3, demo_clips: int = 400, study: Sequence[str] = STUDY
) -> Measurement:
    """Run `rounds` times a study of each size on a small demo set, which `prepare_demo` makes before.

    A first study, uncounted, makes the MLflow store that all share, as a user's first study does.

    Raises:
        RuntimeError: a study failed.
    """
    command = [*study, "--demo-clips", str(demo_clips), *_FLAGS]
    with tempfile.TemporaryDirectory() as directory:
        storage = Path(directory)
        run_study(command, storage=storage, name="first", trials=1)
        rows = [
            [run_study(command, storage=storage, name=f"{n}-{round_}", trials=n) for n in trials]
            for round_ in range(rounds)
        ]
    return _compare([short for short, _ in rows], [long for _, long in rows])


def prepare_demo(demo_clips: int) -> None:
    """Render the demo set and compute its features for the built-in backbone, unless the cache holds them."""
    spec, workers = DataSpec(demo_clips=demo_clips), cpu_count()
    dataset = open_dataset(spec, workers=workers, progress=track)
    open_study_data(spec, dataset, inputs=LogMel(load_backbone(_BACKBONE).front_end), workers=workers, progress=track)


def run_study(command: Sequence[str], *, storage: Path, name: str, trials: int) -> StudyTimes:
    """Run one study to its end, watching which processes train.

    Raises:
        RuntimeError: it failed.
    """
    full = [*command, "--trials", str(trials), "--storage", str(storage), "--name", name]
    workers: set[int] = set()
    with tempfile.TemporaryFile("w+") as output:
        started, began = time.perf_counter(), time.time()
        with subprocess.Popen(full, stdout=output, stderr=subprocess.STDOUT) as process:
            while process.poll() is None:
                workers |= _training_processes(process.pid)
                time.sleep(_POLL_SECONDS)
        wall = time.perf_counter() - started
        if process.returncode != 0:
            output.seek(0)
            raise RuntimeError(f"{' '.join(full)}: exit code {process.returncode}\n{output.read()[-2000:]}")
    return read_times(storage / name, wall=wall, began=began, worker_processes=len(workers))


def read_times(home: Path, *, wall: float, began: float, worker_processes: int) -> StudyTimes:
    """Return a study's times by the files in its directory; `began` is its start as a file's time."""
    rows = sorted(json.loads((home / "results.json").read_text()), key=lambda row: row["number"])
    training = [row["seconds"] for row in rows]
    after_epoch, ends = ([_written(home, row["number"], name) for row in rows] for name in (BEST, LAST))
    starts = [written - seconds for written, seconds in zip(after_epoch, training, strict=True)]
    return StudyTimes(
        trials=len(rows),
        wall=wall,
        training=sum(training),
        to_first_training=starts[0] - began,
        before_training=[starts[i] - ends[i - 1] for i in range(_FIRST_TRIALS, len(rows))],
        after_training=[ends[i] - after_epoch[i] for i in range(_FIRST_TRIALS, len(rows))],
        worker_processes=worker_processes,
    )


def _compare(short: Sequence[StudyTimes], long: Sequence[StudyTimes]) -> Measurement:
    """Return the cost of a trial, from studies of two sizes in the order they ran."""
    n_short, n_long = short[0].trials, long[0].trials
    beyond = [b.beyond_training - a.beyond_training for a, b in zip(short, long, strict=True)]
    stages = {
        "a trial's cost beyond its training": [seconds / (n_long - n_short) for seconds in beyond],
        "between the end of a trial and the training of the next": [s for times in long for s in times.before_training],
        "between the training of a trial and its end": [s for times in long for s in times.after_training],
        "training of a trial": [times.training / times.trials for times in long],
        "start of the command to first training step": [times.to_first_training for times in (*short, *long)],
        f"whole study of {n_short} trials": [times.wall for times in short],
        f"whole study of {n_long} trials": [times.wall for times in long],
    }
    rows: list[Row] = [{"stage": name, "seconds": statistics.median(s)} for name, s in stages.items()]
    workers = max(times.worker_processes for times in long)
    title = f"Harness overhead, from studies of {n_short} and {n_long} trials, one at a time"
    return Measurement(title, rows, f"{workers} worker process(es) ran {n_long} trials, 1 if workers are reused")


def _written(home: Path, number: int, name: str) -> float:
    return Path(TrialFiles(str(home), number).path(name)).stat().st_mtime


def _training_processes(root: int) -> set[int]:
    """Return the processes below `root` that run trials; Ray writes a process's task into its title."""
    found = set()
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(root).children(recursive=True):
            with suppress(psutil.Error):  # it ended meanwhile
                if "".join(child.cmdline()).startswith(_WORKER_TITLE):
                    found.add(child.pid)
    return found
