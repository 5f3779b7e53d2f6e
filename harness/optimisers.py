"""The optimiser of a trial: Adam, over one group of parameters for each pace of learning."""

import torch

from harness.build import Model
from harness.config import TrialConfig
from harness.models.finetuned import FineTuned
from harness.parts import FineTuning

_FACTOR = "lr_factor"


def build_optimiser(model: Model, config: TrialConfig) -> torch.optim.Adam:
    """Return the optimiser over all that learns.

    Raises:
        ValueError: nothing learns.
    """
    learned = list(model.learned())
    if not learned:
        raise ValueError("model: none of its parameters learns")
    groups = [{"params": learned, _FACTOR: 1.0}]
    if isinstance(model, FineTuned) and isinstance(config.system, FineTuning):
        backbone = set(model.backbone.parameters())
        groups = [
            {"params": [p for p in learned if p not in backbone], _FACTOR: 1.0},
            {"params": list(model.backbone.parameters()), _FACTOR: config.system.backbone_lr_factor},
        ]
    return torch.optim.Adam(
        groups,
        lr=config.optimiser.lr,
        betas=(config.optimiser.beta1, config.optimiser.beta2),
        weight_decay=config.optimiser.weight_decay,
    )


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of every group: its factor times `lr`."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group[_FACTOR]
