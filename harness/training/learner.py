"""Learners of a trial: networks that a `Trainer` trains, and forests."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float

from harness.config.trial import SYSTEMS, TrialConfig
from harness.data.batches import Split, StudyData
from harness.models.backbones import Backbone
from harness.models.build import Target, build_model
from harness.training.trainer import EpochResult, Trainer


class Learner(Protocol):
    """Learns from the training clips of one study in epochs, is scored on the validation clips, and predicts."""

    def run(self) -> Iterator[EpochResult]:
        """Yield the epochs that are left."""
        ...

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs to go on: tensors, numbers and strings only."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same configuration."""
        ...

    def weights(self) -> dict[str, Any]:
        """Return the weights of what predicts, to be kept if they are the best so far."""
        ...

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Let these weights predict; learning cannot go on from them."""
        ...

    def predict(self, part: Split) -> Float[np.ndarray, "clip label"]:
        """Return the labels' probabilities for the clips of a part."""
        ...

    def parameter_counts(self) -> Mapping[str, int]:
        """Return the number of learned values of each part."""
        ...


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
    """Return what learns a configuration, at its start; `backbone` is None for a system on VGGish features.

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
