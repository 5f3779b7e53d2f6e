"""The masked loss: hidden labels are unknown, not negative."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from harness.training.losses import binarised, masked_bce


def batch():
    torch.manual_seed(0)
    logits = torch.randn(6, 4, requires_grad=True)
    return logits, torch.rand(6, 4), torch.rand(6, 4) < 0.5


def test_the_loss_is_the_mean_over_the_observed_labels():
    logits, targets, observed = batch()
    each = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    assert torch.allclose(masked_bce(logits, targets, observed), each[observed].sum() / observed.sum())


def test_hidden_labels_carry_no_gradient_whatever_they_hold():
    logits, targets, observed = batch()
    masked_bce(logits, torch.where(observed, targets, torch.nan), observed).backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[~observed] == 0).all()
    assert (logits.grad[observed] != 0).all()


def test_a_nan_logit_of_a_hidden_label_does_not_reach_the_loss():
    logits, targets, observed = batch()
    spoilt = torch.where(observed, logits, torch.nan)
    assert torch.equal(masked_bce(spoilt, targets, observed), masked_bce(logits, targets, observed))


def test_a_batch_without_any_annotation_is_refused():
    logits, targets, _ = batch()
    with pytest.raises(ValueError, match="no label of this batch was annotated"):
        masked_bce(logits, targets, torch.zeros(6, 4, dtype=torch.bool))


def test_a_probability_of_one_half_counts_as_positive():
    assert binarised(torch.tensor([[0.0, 0.49, 0.5, 1.0]])).tolist() == [[0.0, 0.0, 1.0, 1.0]]
