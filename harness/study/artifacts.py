"""Figures of a finished trial, drawn by its worker."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from harness.data.batches import StudyData
from harness.features.inputs import LogMel
from harness.models.reprogrammed import Reprogrammed
from harness.study.files import TrialFiles
from harness.study.records import EpochRecord, best_of
from harness.training.learner import Learner
from harness.training.metrics import METRICS
from harness.training.trainer import Trainer
from tracking import figures

FIGURES = ("f1_by_label.png", "learning_curves.png", "input_change.png")
"""A trial's figures; only a trial that rewrites its input has the last one."""


def write_artifacts(
    files: TrialFiles, *, learner: Learner, data: StudyData, records: Sequence[EpochRecord], device: torch.device
) -> None:
    """Draw F1 by label, the learning curves and the learned input change on the first validation clip."""
    best = best_of(records)
    title = f"trial {files.number}"
    with tempfile.TemporaryDirectory() as directory:
        f1, curves, change = (Path(directory) / name for name in FIGURES)
        figures.f1_by_label(f1, best.f1_by_label, title=f"{title}, epoch {best.epoch}: F1 on validation")
        figures.learning_curves(
            curves,
            losses={"train": [r.train_loss for r in records], "validation": [r.validation_loss for r in records]},
            scores={m.title: [r.figures[n] for r in records] for n, m in METRICS.items() if n in best.figures},
            title=title,
        )
        if isinstance(learner, Trainer) and isinstance(learner.model, Reprogrammed) and isinstance(data.inputs, LogMel):
            before, after = _example(learner.model, data, device)
            figures.input_change(
                change, before, after, hop_ms=data.inputs.front_end.hop_ms, title=f"{title}: the backbone's input"
            )
        for figure in (f1, curves, change):
            if figure.exists():
                files.write(figure.name, figure.read_bytes())


@torch.inference_mode()
def _example(model: Reprogrammed, data: StudyData, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Return a clip's normalised log-mel before and after the reprogrammer."""
    model.eval()
    log_mel, _, _ = data.validation.batch(np.array([0]), device)
    normalised = model.normalisation(log_mel)
    rewritten = model.reprogrammer(normalised)
    return normalised[0].cpu().numpy(), rewritten[0].cpu().numpy()
