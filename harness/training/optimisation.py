"""The optimiser of a trial, Adam with a group of parameters for each learning rate, and the schedules."""

import math

import torch
from torch import nn

from harness.common.registry import resolve
from harness.config.components import FineTuning
from harness.config.recipe import SCHEDULES
from harness.config.trial import TrialConfig
from harness.models.systems import FineTuned

_FACTOR = "lr_factor"


def build_optimiser(model: nn.Module, config: TrialConfig) -> torch.optim.Adam:
    """Return the optimiser over all parameters that learn."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
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


def paper(progress: float) -> float:
    """Hold for the first fifth, then halve after each tenth.

    Source: Chen and Lerch, MMM 2023, section 4.2: 10 of 50 epochs held, then halved every 5.
    Differs: in fractions of the budget, which makes short trainings decay alike.
    """
    if progress < 0.2:
        return 1.0
    return 0.5 ** (1 + math.floor((progress - 0.2) / 0.1 + 1e-9))


def released(progress: float) -> float:
    """Hold for the first sixth, then fall by 0.85 after each thirtieth, 21 times.

    Source: the paper's released code: x 0.85 after each of epochs 5 to 25 of 30.
    Differs: in fractions of the budget, as above.
    """
    return 0.85 ** min(max(math.floor(progress * 30 + 1e-9) - 4, 0), 21)


def stepped(progress: float) -> float:
    """Halve after each three tenths.

    Source: Gururani and Lerch, "Semi-supervised audio classification with partially labeled data", 2021: halved every
    30 of 100 epochs.
    """
    return 0.5 ** math.floor(progress / 0.3 + 1e-9)


def cosine(progress: float) -> float:
    """Fall from 1 to 0 along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def one_cycle(progress: float) -> float:
    """Rise from 1/25 to 1 over the first three tenths, then fall to nearly 0, both along half a cosine.

    Source: Smith and Topin, "Super-convergence", 2019, with the usual constants.
    """
    rise, low, last = 0.3, 1 / 25, 1 / 25e4
    if progress < rise:
        return low + (1 - low) * (1 - cosine(progress / rise))
    return last + (1 - last) * cosine((progress - rise) / (1 - rise))


def constant(progress: float) -> float:  # noqa: ARG001
    """Stay at 1."""
    return 1.0


def learning_rate_factor(kind: str, *, step: int, n_steps: int, warmup: float) -> float:
    """Return the factor on the base learning rate at `step` of `n_steps`, counted from 0.

    The first `warmup` of the steps rise linearly; the schedule runs over all steps, beneath the rise.
    """
    progress = min(step / n_steps, 1.0)
    rise = min(1.0, (step + 1) / (warmup * n_steps)) if warmup > 0 else 1.0
    return rise * float(resolve(SCHEDULES[kind])(progress))
