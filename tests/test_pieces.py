"""A large AST on a CPU takes a batch in pieces: the same embeddings and gradients, and less kept on the way."""

import pytest
import torch

from harness.models import pieces
from harness.models.ast import Ast, AstGeometry

GEOMETRY = AstGeometry(
    embed_dim=32,
    depth=6,
    num_heads=2,
    frequency_stride=16,
    time_stride=16,
    n_mels=32,
    n_frames=32,
    n_source_labels=24,
)


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


@pytest.mark.parametrize("clips", [1, 2, 4])
def test_in_pieces_of_any_size_embeddings_and_gradients_are_the_same(backbone, clips, monkeypatch):
    whole, (gradient,), _ = embedded(backbone)
    monkeypatch.setattr(pieces, "_PIECE_BYTES", clips * backbone.position.nbytes)
    apart, (again,), _ = embedded(backbone)
    torch.testing.assert_close(apart, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(again, gradient, rtol=1e-5, atol=1e-6)


def test_a_backbone_that_learns_gets_the_same_gradients_in_pieces(backbone, monkeypatch):
    model = Ast(GEOMETRY).requires_grad_(True)
    model.load_state_dict(backbone.state_dict())
    whole, gradients, _ = embedded(model, frozen_input=True)
    monkeypatch.setattr(pieces, "_PIECE_BYTES", 1)
    apart, again, _ = embedded(model, frozen_input=True)
    torch.testing.assert_close(apart, whole, rtol=1e-5, atol=1e-6)
    assert sum(gradient is not None for gradient in gradients) > 70
    for one, other in zip(gradients, again, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_in_pieces_little_is_kept_for_the_gradient(backbone, monkeypatch):
    weights = sum(tensor.nbytes for tensor in backbone.state_dict().values())
    whole = embedded(backbone)[2]
    monkeypatch.setattr(pieces, "_PIECE_BYTES", 1)
    assert whole - weights / 2 > 2 * embedded(backbone)[2]


def test_bfloat16_is_computed_again_in_bfloat16(backbone, monkeypatch):
    with torch.autocast("cpu", torch.bfloat16):
        whole, (gradient,), _ = embedded(backbone)
        monkeypatch.setattr(pieces, "_PIECE_BYTES", 1)
        apart, (again,), _ = embedded(backbone)
    torch.testing.assert_close(apart, whole, rtol=0.05, atol=0.05)
    torch.testing.assert_close(again, gradient, rtol=0.1, atol=0.05)


def test_a_small_backbone_takes_a_batch_whole(backbone):
    batch = torch.zeros(64, 32, 32)
    assert pieces.split_on_cpu(batch, bytes_per_clip=backbone.position.nbytes)[0].shape == batch.shape
    nano_bytes, base384_bytes = 130 * 128 * 4, 1214 * 768 * 4
    assert [len(pieces.split_on_cpu(batch, bytes_per_clip=size)) for size in (nano_bytes, base384_bytes)] == [1, 64]


def test_on_another_device_a_batch_stays_whole():
    assert len(pieces.split_on_cpu(torch.zeros(64, 2, device="meta"), bytes_per_clip=10**9)) == 1
