"""Memory: the most that is resident of a process that reads a whole feature cache, and of one that runs a trial.

    python -m harness.benchmarks.memory read FOLDER FRAMES MELS np.memmap
    python -m harness.benchmarks.memory trial FOLDER FRAMES MELS ours BACKBONE unet 8

Each command is a process of its own. It prints JSON: the megabytes (10^6 bytes) that were resident at most by the end
of each stage. The cache has 4,000 clips of 1024 x 128 in float16, 1.0 GB. A trial on the CPU has all imports of a
worker, loads the backbone from a file of true size, trains for two steps and validates.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.benchmarks.cached import MAPPED, OURS, open_rows, write_cache
from harness.benchmarks.timing import Measurement, Row
from harness.common.files import cache_dir
from harness.features.cache import Rows
from harness.training.fused import complete

BOUND_MB = 1500
STORED_CLIPS = 4_000
TRIALS = (("none", 8), ("unet", 1), ("unet", 8))
_BACKBONE = "ast-base384-random"
_BATCH = 8
_STEPS = 2
_VALIDATED = 20


def measure_memory(
    *, backbone: str = _BACKBONE, trials: Sequence[tuple[str, int]] = TRIALS, stored_clips: int = STORED_CLIPS
) -> Measurement:
    """Measure each process: readers by memory map and by ours, then trials by reprogrammer and batch."""
    stages: dict[str, dict[str, float]] = {}
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir()) as directory:
        weights, cache = Path(directory) / "backbone.safetensors", Path(directory) / "cache"
        shape = _write_backbone(weights, backbone)
        write_cache(cache, shape, n_clips=stored_clips)
        place = (str(cache), *map(str, shape))
        size = f"{2 * stored_clips * shape[0] * shape[1] / 1e9:.1f} GB"
        for way in (MAPPED, OURS):
            stages[f"reading {size}, {way}"] = _run("read", *place, way)
        for reprogrammer, batch in trials:
            process = f"trial of {backbone.removesuffix('-random')}, {reprogrammer}, batch {batch}"
            stages[process] = _run("trial", *place, OURS, str(weights), reprogrammer, str(batch))
    rows: list[Row] = [
        {"process": process, "peak_mb": max(most.values()), "by_the_end_of": most} for process, most in stages.items()
    ]
    return Measurement("Memory: resident at most", rows, f"a trial is to stay below {BOUND_MB:,} MB")


def _write_backbone(path: Path, name: str) -> tuple[int, int]:
    """Write a backbone in float32, as the published ones are; return the shape of its input."""
    # imported here, since the process that only reads must not hold torch
    from safetensors.torch import save_file  # noqa: PLC0415

    from harness.models.backbones import load_backbone  # noqa: PLC0415

    model = load_backbone(name)
    save_file(dict(model.state_dict()), path, metadata={"geometry": json.dumps(dict(model.settings))})
    return model.input_shape


def _run(*arguments: str) -> dict[str, float]:
    """Run this module as a process and return its stages.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "harness.benchmarks.memory", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    stages: dict[str, float] = json.loads(done.stdout)
    return stages


def peak_mb() -> float:
    """Return the most that this process has had resident, pages of files included."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def read_all(rows: Rows) -> dict[str, float]:
    """Read every row, a batch at a time."""
    stages = {"imports": peak_mb()}
    for first in range(0, rows.shape[0], _BATCH):
        np.array(rows[first : first + _BATCH])
    return {**stages, "reading": peak_mb()}


def run_trial(rows: Rows, *, backbone_name: str, reprogrammer: str, batch: int) -> dict[str, float]:
    """Run a few steps of a trial on the CPU: load the backbone, train, validate."""
    import torch  # noqa: PLC0415

    import harness.study.worker  # noqa: F401, PLC0415 (for all that a worker imports)
    from harness.benchmarks.training import one_epoch_trainer, unread_data  # noqa: PLC0415
    from harness.models.backbones import backbone_digest, load_backbone  # noqa: PLC0415
    from harness.training.trainer import evaluate  # noqa: PLC0415

    stages = {"imports": peak_mb()}
    backbone = load_backbone(backbone_name)
    backbone_digest(backbone)
    stages["backbone"] = peak_mb()
    clips = np.random.default_rng(0).choice(rows.shape[0], _STEPS * batch + _VALIDATED, replace=False)
    train, validation = (unread_data(backbone.front_end, rows, part) for part in np.split(clips, [_STEPS * batch]))
    cpu = torch.device("cpu")
    trainer = one_epoch_trainer(backbone, train, reprogrammer=reprogrammer, batch=batch, device=cpu)
    complete(trainer._train_epoch())
    stages["training"] = peak_mb()
    evaluate(trainer.model, backbone, validation.validation, labels=train.labels, device=cpu)
    return {**stages, "validation": peak_mb()}


def main(task: str, folder: str, frames: str, mels: str, way: str, *trial: str) -> None:
    """Run the task and print its stages."""
    rows = open_rows(Path(folder), way, (int(frames), int(mels)))
    if task == "read":
        stages = read_all(rows)
    else:
        backbone, reprogrammer, batch = trial
        stages = run_trial(rows, backbone_name=backbone, reprogrammer=reprogrammer, batch=int(batch))
    print(json.dumps(stages))


if __name__ == "__main__":
    main(*sys.argv[1:])
