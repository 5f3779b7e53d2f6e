"""The training step: samples a second of each reprogrammer, beside transformers' AST in the place of ours.

Both columns are one epoch of the same `Trainer`, with the same reprogrammer, mapper, optimiser and clips, and differ
in the backbone alone. Both backbones have the same geometry and frozen weights; how fast they are does not depend on
the values of the weights. A test of the AST holds that both compute the same.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from harness.benchmarks.timing import Ratio, interleaved, ratio, speed
from harness.config.study import PRECISIONS
from harness.config.trial import REPROGRAMMERS, TrialConfig
from harness.data.batches import Split, StudyData
from harness.features.cache import Rows
from harness.features.inputs import LogMel
from harness.features.log_mel import FrontEnd
from harness.models.backbones import Backbone, load_backbone
from harness.models.build import Target, build_model
from harness.training.trainer import Trainer

OURS, THEIRS = "ours", "transformers"
BACKBONES = ("ast-nano", "ast-base384-random")
_LABELS = tuple(f"label {index}" for index in range(20))
_STEPS = 8
_CASE_SECONDS = 60.0


@dataclass(frozen=True)
class TrainingPlan:
    """The combinations to measure: each backbone with each precision and reprogrammer.

    `batch` is chosen by the backbone and the device if None: the paper's 8, but 1 for a large backbone on a CPU.
    """

    backbones: Sequence[str] = BACKBONES
    precisions: Sequence[str] = tuple(PRECISIONS)
    reprogrammers: Sequence[str] = tuple(REPROGRAMMERS)
    rounds: int = 5
    batch: int | None = None
    steps: int | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class TrainingSpeed:
    """One combination. `transformers_samples_per_second` and `ratio` are None where transformers is not installed."""

    backbone: str
    precision: str
    reprogrammer: str
    device: str
    batch: int
    steps_per_round: int
    rounds: int
    samples_per_second: float
    transformers_samples_per_second: float | None
    ratio: Ratio | None


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
        """Return a copy, all of whose parameters learn."""
        return copy.deepcopy(self).requires_grad_(True)


def measure_training(plan: TrainingPlan) -> Iterator[TrainingSpeed]:
    """Yield the speed of each combination, as soon as it is known."""
    for name in plan.backbones:
        device = torch.device(plan.device)
        ours = load_backbone(name).to(device)
        backbones: dict[str, Backbone] = {OURS: ours}
        if find_spec("transformers") is not None:
            backbones[THEIRS] = TransformersAst(ours).to(device)
        for precision in plan.precisions:
            for reprogrammer in plan.reprogrammers:
                yield _compare(plan, name, backbones, precision=precision, reprogrammer=reprogrammer)


def _compare(
    plan: TrainingPlan, name: str, backbones: dict[str, Backbone], *, precision: str, reprogrammer: str
) -> TrainingSpeed:
    ours, device = backbones[OURS], torch.device(plan.device)
    is_slow = ours.saves_memory(torch.empty(1, *ours.input_shape, device=device))
    batch = plan.batch or (1 if is_slow else 8)
    steps = plan.steps or (1 if is_slow else _STEPS)
    data = random_data(ours.front_end, n_clips=batch * steps)
    config = TrialConfig.from_paths({"reprogrammer/kind": reprogrammer, "training/batch_size": batch})
    ways = {
        way: _epoch(backbone, data, config, precision=precision, device=device) for way, backbone in backbones.items()
    }
    seconds = interleaved(ways, rounds=plan.rounds, limit_seconds=_CASE_SECONDS)
    return TrainingSpeed(
        backbone=name,
        precision=precision,
        reprogrammer=reprogrammer,
        device=device.type,
        batch=batch,
        steps_per_round=steps,
        rounds=len(seconds[OURS]),
        samples_per_second=speed(batch * steps, seconds[OURS]),
        transformers_samples_per_second=speed(batch * steps, seconds[THEIRS]) if THEIRS in seconds else None,
        ratio=ratio(seconds[OURS], seconds[THEIRS]) if THEIRS in seconds else None,
    )


def _epoch(
    backbone: Backbone, data: StudyData, config: TrialConfig, *, precision: str, device: torch.device
) -> Callable[[], None]:
    """Return a function that trains for one epoch, without validation, and waits for the device."""
    trainer = Trainer(
        build_model(config, backbone, Target.of(data), seed=0, device=device),
        backbone,
        data=data,
        config=config,
        epochs=1,
        seed=0,
        device=device,
        precision=precision,
    )

    def train() -> None:
        trainer._train_epoch()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return train


def random_data(front_end: FrontEnd, *, n_clips: int) -> StudyData:
    """Return clips of noise in memory, with random labels."""
    rng = np.random.default_rng(0)
    features = rng.normal(-6, 3, (n_clips, front_end.n_frames, front_end.n_mels)).astype(np.float16)
    return unread_data(front_end, features, np.arange(n_clips))


def unread_data(front_end: FrontEnd, features: Rows, rows: Int[np.ndarray, " clip"]) -> StudyData:
    """Return clips of any features, with random labels of which one in ten, and one a clip, is observed."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, (len(rows), len(_LABELS))).astype(np.float32)
    observed = rng.random(targets.shape) < 0.1
    observed[np.arange(len(rows)), np.arange(len(rows)) % len(_LABELS)] = True
    part = Split(features, rows, targets, observed)
    return StudyData(_LABELS, part, part, -6.0, 3.0, LogMel(front_end))
