"""Losses over labels of which most are unknown."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from harness.data.dataset import POSITIVE


def masked_bce(
    logits: Float[Tensor, "clip label"],
    targets: Float[Tensor, "clip label"],
    observed: Bool[Tensor, "clip label"],
) -> Float[Tensor, ""]:
    """Return the mean binary cross-entropy, in nats, over the labels someone annotated.

    OpenMIC leaves about nine labels in ten unannotated. They are unknown, not negative, so the mean excludes them from
    both its sum and its count.

    Raises:
        ValueError: `observed` is False everywhere, so the mean is over nothing.
    """
    if not observed.any():
        raise ValueError("observed: no label of this batch was annotated, so there is no loss to take the mean of")
    # selected, not multiplied by zero: 0 * nan is nan, and a hidden label must not reach the gradient
    return F.binary_cross_entropy_with_logits(logits[observed], targets[observed])


def consistency(student: Float[Tensor, "clip label"], teacher: Float[Tensor, "clip label"]) -> Float[Tensor, ""]:
    """Return the mean squared difference of two models' probabilities, over annotated and other labels alike."""
    return F.mse_loss(student.sigmoid(), teacher.sigmoid())


def binarised(targets: Float[Tensor, "clip label"]) -> Float[Tensor, "clip label"]:
    """Return 1 where the annotators' probability is at least 0.5, else 0."""
    return (targets >= POSITIVE).to(torch.float32)
