"""The attention model: its size, its pooling, and that its logits are as good as its probabilities."""

import pytest
import torch
from torch.nn import functional as F

from harness.models.systems import AttentionModel, AttentionPooling
from harness.training.losses import masked_bce


def model(*, dropout=0.0, depth=3, n_labels=20):
    torch.manual_seed(0)
    return AttentionModel(n_labels, depth=depth, dropout=dropout)


def vggish(n_clips=6):
    return torch.randint(0, 256, (n_clips, 10, 128), generator=torch.Generator().manual_seed(1)).float()


def test_the_papers_model_has_55_336_parameters():
    made = model(dropout=0.8)
    assert sum(p.numel() for p in made.parameters()) == 55_336


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_it_gives_one_logit_a_label_at_any_depth(depth):
    assert model(depth=depth, n_labels=5)(vggish(), None).shape == (6, 5)


def test_the_input_is_scaled_by_255_and_added_behind_the_blocks():
    made = model().eval()
    for block in made.blocks:
        torch.nn.init.zeros_(block[0].weight)  # so that nothing but the skip reaches the pooling
    features = (vggish() / 255).transpose(1, 2)
    assert torch.equal(made(vggish(), None), made.pooling(features))


def test_a_label_is_the_mean_of_its_seconds_weighted_by_their_attention():
    torch.manual_seed(0)
    pooling = AttentionPooling(8, 3)
    features = torch.randn(2, 8, 10)
    attention, classes = pooling.attention(features).sigmoid(), pooling.classes(features).sigmoid()
    expected = (attention * classes).sum(-1) / attention.sum(-1)
    assert torch.allclose(pooling(features).sigmoid(), expected, atol=1e-6)


def test_cross_entropy_on_its_logits_is_that_on_its_probabilities_and_so_is_the_gradient():
    inputs, targets = vggish(32), (torch.rand(32, 20, generator=torch.Generator().manual_seed(2)) < 0.5).float()
    by_logits, by_probabilities = model(), model()
    losses = (
        masked_bce(by_logits(inputs, None), targets, torch.ones(32, 20, dtype=torch.bool)),
        F.binary_cross_entropy(probabilities_of(by_probabilities, inputs), targets),
    )
    for loss in losses:
        loss.backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    for one, other in zip(by_logits.parameters(), by_probabilities.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-7)


def probabilities_of(made, inputs):
    """Return the model's probabilities without any logit on the way."""
    features = (inputs / 255).transpose(1, 2)
    hidden = made.blocks(made.norm(features)) + features
    attention = made.pooling.attention(hidden).sigmoid().clamp(1e-7, 1 - 1e-7)
    classes = made.pooling.classes(hidden).sigmoid()
    return (attention / attention.sum(-1, keepdim=True) * classes).sum(-1).clamp(0, 1)


@pytest.mark.parametrize("certainty", [-200.0, 200.0])
def test_a_certain_answer_is_finite_also_in_bfloat16(certainty):
    pooling = AttentionPooling(4, 2)
    torch.nn.init.constant_(pooling.classes.bias, certainty)
    torch.nn.init.constant_(pooling.attention.bias, -certainty)
    with torch.autocast("cpu", torch.bfloat16):
        logits = pooling(torch.zeros(3, 4, 10))
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    assert torch.allclose(logits.abs(), torch.tensor(15.7), atol=0.5)


def test_bfloat16_training_tells_a_probability_of_0_999_from_1():
    pooling = AttentionPooling(4, 2)
    torch.nn.init.constant_(pooling.classes.bias, 7.0)
    with torch.autocast("cpu", torch.bfloat16):
        logits = pooling(torch.zeros(3, 4, 10))
    assert torch.allclose(logits, torch.tensor(7.0), atol=1e-2)


def test_dropout_works_in_training_alone():
    made = model(dropout=0.8)
    assert not torch.equal(made(vggish(), None), made(vggish(), None))
    made.eval()
    assert torch.equal(made(vggish(), None), made(vggish(), None))
