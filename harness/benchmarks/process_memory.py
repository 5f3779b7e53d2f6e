"""A process that measures its own memory: reading a whole feature cache, or running a trial.

    python -m harness.benchmarks.process_memory read FOLDER FRAMES MELS np.memmap
    python -m harness.benchmarks.process_memory trial FOLDER FRAMES MELS ours BACKBONE unet 8

Prints, as JSON, the megabytes (10^6 bytes) that were resident at most at the end of each stage.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np

from harness.benchmarks.cached import open_rows
from harness.features.cache import Rows

_BATCH = 8
_STEPS = 2
_VALIDATED = 20


def peak_mb() -> float:
    """Return the most that this process has had resident, pages of files included."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def read_all(rows: Rows) -> dict[str, float]:
    """Read every row, a batch at a time."""
    stages = {"imports": peak_mb()}
    for first in range(0, rows.shape[0], _BATCH):
        np.array(rows[first : first + _BATCH])
    return {**stages, "reading": peak_mb()}


def run_trial(rows: Rows, *, backbone_name: str, reprogrammer: str, batch: int) -> dict[str, float]:
    """Do what a trial on the CPU does, for a few steps: load the backbone, train, validate."""
    import torch  # noqa: PLC0415

    import harness.study.worker  # noqa: F401, PLC0415 (for all that a worker imports)
    from harness.benchmarks.training import unread_data  # noqa: PLC0415
    from harness.config.trial import TrialConfig  # noqa: PLC0415
    from harness.models.backbones.checkpoints import backbone_digest, load_backbone  # noqa: PLC0415
    from harness.models.build import build_model  # noqa: PLC0415
    from harness.training.trainer import Trainer, evaluate  # noqa: PLC0415

    stages = {"imports": peak_mb()}
    backbone = load_backbone(backbone_name)
    backbone_digest(backbone)
    stages["backbone"] = peak_mb()
    clips = np.random.default_rng(0).choice(rows.shape[0], _STEPS * batch + _VALIDATED, replace=False)
    train, validation = (unread_data(backbone.geometry, rows, part) for part in np.split(clips, [_STEPS * batch]))
    config = TrialConfig.from_paths({"reprogrammer/kind": reprogrammer, "training/batch_size": batch})
    cpu = torch.device("cpu")
    model = build_model(config, backbone, data=train, seed=0, device=cpu)
    trainer = Trainer(model, backbone, data=train, config=config, epochs=1, seed=0, device=cpu)
    trainer._train_epoch()
    stages["training"] = peak_mb()
    evaluate(model, backbone, validation.validation, labels=train.labels, device=cpu)
    return {**stages, "validation": peak_mb()}


def main(task: str, folder: str, frames: str, mels: str, way: str, *trial: str) -> None:
    """Do the task and print its stages."""
    rows = open_rows(Path(folder), way, (int(frames), int(mels)))
    if task == "read":
        stages = read_all(rows)
    else:
        backbone, reprogrammer, batch = trial
        stages = run_trial(rows, backbone_name=backbone, reprogrammer=reprogrammer, batch=int(batch))
    print(json.dumps(stages))


if __name__ == "__main__":
    main(*sys.argv[1:])
