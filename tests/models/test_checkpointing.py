"""A large AST on a CPU takes a batch in pieces: the same embeddings and gradients, and less kept on the way."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from harness.models import checkpointing as pieces
from harness.models.backbones.ast import Ast
from harness.models.mappers import Linear
from harness.models.reprogrammers import UNet
from harness.models.systems import Reprogrammed
from tests.conftest import TINY

GEOMETRY = replace(TINY, depth=6)


@pytest.fixture(autouse=True)
def _allocator_as_it_was(monkeypatch):
    """Leave the C library's allocator alone: its setting would slow down all later tests of this process."""
    monkeypatch.setattr(pieces, "_return_freed_memory", lambda: None)


@pytest.fixture(scope="module")
def backbone():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Ast(GEOMETRY).freeze()


def embedded(model, *, frozen_input=False):
    """Return embeddings of 5 clips, the gradients of their squares, and the bytes that were kept for them."""
    spectrogram = torch.randn(5, 32, 32, generator=torch.Generator().manual_seed(1)).requires_grad_(not frozen_input)
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        embedding = model.embed(spectrogram)
    learned = [p for p in (spectrogram, *model.parameters()) if p.requires_grad]
    gradients = torch.autograd.grad(embedding.square().sum(), learned, allow_unused=True) if learned else []
    return embedding.detach(), gradients, sum(kept.values())


@pytest.fixture
def all_is_large(monkeypatch):
    """Return what lets this test's AST count as a large one from then on."""
    return lambda: monkeypatch.setattr(pieces, "_LARGE_CLIP_BYTES", 0)


def test_in_pieces_embeddings_and_gradients_are_the_same(backbone, all_is_large):
    whole, (gradient,), _ = embedded(backbone)
    all_is_large()
    apart, (again,), _ = embedded(backbone)
    torch.testing.assert_close(apart, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(again, gradient, rtol=1e-5, atol=1e-6)


def test_a_backbone_that_learns_gets_the_same_gradients_in_pieces(backbone, all_is_large):
    model = Ast(GEOMETRY).requires_grad_(True)
    model.load_state_dict(backbone.state_dict())
    whole, gradients, _ = embedded(model, frozen_input=True)
    all_is_large()
    apart, again, _ = embedded(model, frozen_input=True)
    torch.testing.assert_close(apart, whole, rtol=1e-5, atol=1e-6)
    assert sum(gradient is not None for gradient in gradients) > 70
    for one, other in zip(gradients, again, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_in_pieces_little_is_kept_for_the_gradient(backbone, all_is_large):
    weights = sum(tensor.nbytes for tensor in backbone.state_dict().values())
    whole = embedded(backbone)[2]
    all_is_large()
    assert whole - weights / 2 > 2 * embedded(backbone)[2]


def test_bfloat16_is_computed_again_in_bfloat16(backbone, all_is_large):
    with torch.autocast("cpu", torch.bfloat16):
        whole, (gradient,), _ = embedded(backbone)
        all_is_large()
        apart, (again,), _ = embedded(backbone)
    torch.testing.assert_close(apart, whole, rtol=0.05, atol=0.05)
    torch.testing.assert_close(again, gradient, rtol=0.1, atol=0.05)


def reprogrammed():
    """Return a U-Net with BatchNorm around the backbone, at the same weights each time."""
    torch.manual_seed(2)
    settings = {
        "kernel": 3,
        "norm": "batch",
        "output_activation": "none",
        "has_input_skip": True,
        "align_corners": True,
    }
    unet = UNet(32, 32, depth=2, width=2, is_residual=False, init_scale=1.0, **settings)
    return Reprogrammed(nn.Identity(), unet, Linear(embed_dim=GEOMETRY.embed_dim, n_labels=3)).train()


def trained_once(model, backbone):
    """Return logits, gradients, buffers after a step's forward and backward pass, and the bytes kept in between."""
    model, kept = copy.deepcopy(model), {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    clips = torch.randn(5, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(clips, backbone)
    logits.square().sum().backward()
    return logits.detach(), [p.grad for p in model.parameters()], list(model.buffers()), sum(kept.values())


def test_a_reprogrammer_with_batch_norm_trains_the_same_in_pieces(backbone, all_is_large):
    model = reprogrammed()
    logits, gradients, buffers, kept_whole = trained_once(model, backbone)
    all_is_large()
    again, gradients_again, buffers_again, kept_apart = trained_once(model, backbone)
    torch.testing.assert_close(again, logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients_again, gradients, rtol=1e-4, atol=1e-5)
    assert all(gradient.any() for gradient in gradients_again[-3:])
    assert any(buffer.any() for buffer in buffers)
    torch.testing.assert_close(buffers_again, buffers, rtol=0, atol=0)
    assert kept_apart < kept_whole / 10


def test_only_a_large_ast_on_a_cpu_goes_in_pieces():
    nano_bytes, base384_stride16_bytes = 130 * 128 * 4, 514 * 768 * 4
    on_cpu, elsewhere = torch.zeros(64, 2), torch.zeros(64, 2, device="meta")
    assert not pieces.is_large_on_cpu(on_cpu, bytes_per_clip=nano_bytes)
    assert pieces.is_large_on_cpu(on_cpu, bytes_per_clip=base384_stride16_bytes)
    assert not pieces.is_large_on_cpu(elsewhere, bytes_per_clip=10**9)
