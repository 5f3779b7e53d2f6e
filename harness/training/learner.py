"""Learners of a trial: networks that a `Trainer` trains, and forests."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from harness.config.trial import SYSTEMS, TrialConfig
from harness.data.batches import Split, StudyData
from harness.models.backbones import Backbone
from harness.models.build import Target, build_model
from harness.training.fused import Training
from harness.training.trainer import EpochResult, Trainer, predict

Predictor = Callable[[Split], Float[np.ndarray, "clip label"]]
"""Returns the labels' probabilities for the clips of a split."""


class Learner(Protocol):
    """Learns from the training clips of one study in epochs, is scored on the validation clips, and predicts.

    A learner of a package also has a static method `predictor(weights)`, which returns a `Predictor`.
    """

    def train(self) -> Training[EpochResult]:
        """Train and yield the remaining epochs; the caller answers the passes through the frozen backbone."""

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs: tensors, numbers and strings only."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of the same configuration."""

    def weights(self) -> dict[str, Any]:
        """Return the weights that predict, as tensors by name."""

    def predict(self, part: Split) -> Float[np.ndarray, "clip label"]:
        """Return the labels' probabilities for the clips of a split."""

    def parameter_counts(self) -> Mapping[str, int]:
        """Return the number of learned values of each part."""


def make_learner(
    config: TrialConfig,
    *,
    backbone: Backbone | None,
    data: StudyData,
    epochs: int,
    seed: int,
    device: torch.device,
    precision: str,
) -> Learner:
    """Return the learner of a configuration, at its start; `backbone` is None for a system on VGGish features.

    Raises:
        ValueError: the configuration does not fit the backbone's sizes.
    """
    system = SYSTEMS[config.system.kind]
    if system.learner:
        learner: Learner = system.builder(config, data=data, epochs=epochs, seed=seed)
        return learner
    return Trainer(
        build_model(config, backbone, Target.of(data), seed=seed, device=device),
        backbone,
        data=data,
        config=config,
        epochs=epochs,
        seed=seed,
        device=device,
        precision=precision,
    )


def make_predictor(
    config: TrialConfig,
    weights: Mapping[str, Tensor],
    *,
    backbone: Backbone | None,
    target: Target,
    device: torch.device,
) -> Predictor:
    """Return the predictor of a configuration with the `weights` of a learner.

    Raises:
        RuntimeError: the weights are not those of this configuration, backbone and target.
    """
    system = SYSTEMS[config.system.kind]
    if system.learner:
        predictor: Predictor = system.builder.predictor(weights)  # type: ignore[attr-defined]
        return predictor
    model = build_model(config, backbone, target, seed=0, device=device)
    model.load_state_dict(weights)
    return partial(predict, model, backbone, device=device)
