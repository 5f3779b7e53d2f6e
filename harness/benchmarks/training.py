"""The training step: samples a second of each reprogrammer, beside transformers' AST in the place of ours.

Both columns are one epoch of the same `Trainer`, with the same reprogrammer, mapper, optimiser and clips. Only the
backbones differ; they have the same geometry, and their speed does not depend on the values of their weights. A test
of the AST holds that both compute the same.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from harness.benchmarks.timing import Measurement, Row, interleaved, ratio, speed
from harness.common.progress import track
from harness.config.trial import TrialConfig
from harness.data.batches import Split, StudyData
from harness.features.cache import Rows
from harness.features.inputs import LogMel
from harness.features.log_mel import FrontEnd
from harness.models.backbones import Backbone, load_backbone
from harness.models.build import Target, build_model
from harness.training.fused import complete
from harness.training.trainer import Trainer

OURS, THEIRS = "ours", "transformers"
_LABELS = tuple(f"label {index}" for index in range(20))
_CASE_SECONDS = 60.0


@dataclass(frozen=True)
class TrainingPlan:
    """The combinations to measure: each backbone with each precision and reprogrammer.

    `batch` is the paper's, except that a large backbone on a CPU takes one clip, and one step a round.
    """

    backbones: Sequence[str]
    precisions: Sequence[str]
    reprogrammers: Sequence[str]
    rounds: int = 5
    batch: int = 8
    steps: int = 8
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


class TransformersAst(nn.Module):
    """transformers' AST with random weights, frozen, in the geometry of a backbone of ours."""

    def __init__(self, ours: Backbone) -> None:
        super().__init__()
        transformers: Any = import_module("transformers")  # a test dependency
        self.settings, self.source_labels = ours.settings, ours.source_labels
        self.input_shape, self.front_end, self.embed_dim = ours.input_shape, ours.front_end, ours.embed_dim
        geometry = SimpleNamespace(**ours.settings)
        config = transformers.ASTConfig(
            hidden_size=geometry.embed_dim,
            num_hidden_layers=geometry.depth,
            num_attention_heads=geometry.num_heads,
            intermediate_size=4 * geometry.embed_dim,
            layer_norm_eps=geometry.layer_norm_eps,
            frequency_stride=geometry.frequency_stride,
            time_stride=geometry.time_stride,
            max_length=geometry.n_frames,
            num_mel_bins=geometry.n_mels,
            num_labels=geometry.n_source_labels,
        )
        self.model = transformers.ASTForAudioClassification(config).eval().requires_grad_(False)

    def embed(self, spectrogram: Float[Tensor, "clip frame mel"]) -> Float[Tensor, "clip dim"]:
        """Return the mean of the class and distillation tokens after the last LayerNorm."""
        embedding: Tensor = self.model.base_model(spectrogram).pooler_output
        return embedding

    def saves_memory(self, spectrogram: Float[Tensor, "clip frame mel"]) -> bool:  # noqa: ARG002
        """Return False: it keeps all activations."""
        return False

    def logits(self, embedding: Float[Tensor, "clip dim"]) -> Float[Tensor, "clip source"]:
        """Return the source head's logits of an embedding."""
        logits: Tensor = self.model.classifier(embedding)
        return logits

    def freeze(self) -> Self:
        """Return itself, which is frozen."""
        return self

    def trainable_copy(self) -> Self:
        """Return a copy with parameters that learn."""
        return copy.deepcopy(self).requires_grad_(True)


def measure_training(plan: TrainingPlan) -> Measurement:
    """Measure each combination."""
    total = len(plan.backbones) * len(plan.precisions) * len(plan.reprogrammers)
    rows = list(track(_rows(plan), total=total, label="training"))
    return Measurement("Training step: samples a second", rows, "ratio: times transformers' speed")


def _rows(plan: TrainingPlan) -> Iterator[Row]:
    for name in plan.backbones:
        device = torch.device(plan.device)
        ours = load_backbone(name).to(device)
        backbones: dict[str, Backbone] = {OURS: ours}
        if find_spec("transformers") is not None:
            backbones[THEIRS] = TransformersAst(ours).to(device)
        for precision in plan.precisions:
            for reprogrammer in plan.reprogrammers:
                yield {
                    "backbone": f"{Path(name).name} on {plan.device}",
                    "precision": precision,
                    "reprogrammer": reprogrammer,
                    **_compare(plan, backbones, precision=precision, reprogrammer=reprogrammer),
                }


def _compare(plan: TrainingPlan, backbones: Mapping[str, Backbone], *, precision: str, reprogrammer: str) -> Row:
    """Return the samples a second of each backbone."""
    ours, device = backbones[OURS], torch.device(plan.device)
    is_slow = ours.saves_memory(torch.empty(1, *ours.input_shape, device=device))
    batch, steps = (1, 1) if is_slow else (plan.batch, plan.steps)
    features = np.random.default_rng(0).normal(-6, 3, (batch * steps, *ours.input_shape)).astype(np.float16)
    data = unread_data(ours.front_end, features, np.arange(batch * steps))
    options: dict[str, Any] = {"reprogrammer": reprogrammer, "batch": batch, "device": device, "precision": precision}
    ways = {way: _epoch(one_epoch_trainer(backbone, data, **options)) for way, backbone in backbones.items()}
    seconds = interleaved(ways, rounds=plan.rounds, limit_seconds=_CASE_SECONDS)
    return {
        "batch": batch,
        **{way: speed(batch * steps, seconds[way]) if way in seconds else None for way in (OURS, THEIRS)},
        "ratio": ratio(seconds[OURS], seconds[THEIRS]) if THEIRS in seconds else None,
    }


def _epoch(trainer: Trainer) -> Callable[[], None]:
    """Return a function that trains for one epoch, without validation, and waits for the device."""

    def train() -> None:
        complete(trainer._train_epoch())
        if trainer.device.type == "cuda":
            torch.cuda.synchronize(trainer.device)

    return train


def one_epoch_trainer(
    backbone: Backbone,
    data: StudyData,
    *,
    reprogrammer: str,
    batch: int,
    device: torch.device,
    precision: str = "fp32",
) -> Trainer:
    """Return the trainer of an otherwise default configuration."""
    config = TrialConfig.from_paths({"reprogrammer/kind": reprogrammer, "training/batch_size": batch})
    model = build_model(config, backbone, Target.of(data), seed=0, device=device)
    return Trainer(model, backbone, data=data, config=config, epochs=1, seed=0, device=device, precision=precision)


def unread_data(front_end: FrontEnd, features: Rows, rows: Int[np.ndarray, " clip"]) -> StudyData:
    """Return clips of any features, with random labels of which one in ten, and one a clip, is observed."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, (len(rows), len(_LABELS))).astype(np.float32)
    observed = rng.random(targets.shape) < 0.1
    observed[np.arange(len(rows)), np.arange(len(rows)) % len(_LABELS)] = True
    part = Split(features, rows, targets, observed)
    return StudyData(_LABELS, part, part, -6.0, 3.0, LogMel(front_end))
