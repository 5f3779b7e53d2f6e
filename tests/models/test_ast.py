"""The AST against transformers' own, through files in its format, and the frozen state."""

import math

import pytest
import torch

from harness.models.backbones import backbone_digest
from harness.models.backbones.ast import GEOMETRIES, Ast, AstGeometry
from harness.models.backbones.checkpoints import load_ast
from tests.conftest import TINY
from tests.support.ast_files import SMALL, check_equal, quiet, random_ast, set_eps


@pytest.mark.parametrize("strides", [(10, 10), (12, 12), (16, 16), (10, 16)])
def test_a_file_of_hugging_face_s_gives_what_transformers_gives(tmp_path, strides):
    theirs = random_ast(**{**SMALL, "frequency_stride": strides[0], "time_stride": strides[1]})
    theirs.save_pretrained(tmp_path)
    check_equal(load_ast(tmp_path).freeze(), theirs, torch.randn(3, 96, 64))


def test_tokens_are_patches_of_frequency_by_time_and_run_along_time_first():
    geometry = AstGeometry(
        embed_dim=2, depth=1, num_heads=1, frequency_stride=10, time_stride=7, n_mels=48, n_frames=64
    )
    model = Ast(geometry).freeze()
    model.patch.weight.zero_()
    model.patch.weight[0, 0, 3, 11] = model.patch.weight[1, 0, 15, 0] = 1.0  # mel 3 and frame 11 of a patch; 15 and 0
    model.patch.bias.zero_()
    model.position.zero_()
    spectrogram = torch.randn(1, 64, 48)
    rows, columns = geometry.grid
    expected = [
        [float(spectrogram[0, 7 * column + 11, 10 * row + 3]), float(spectrogram[0, 7 * column, 10 * row + 15])]
        for row in range(rows)
        for column in range(columns)
    ]
    assert (rows, columns) == (4, 7)
    assert torch.equal(model.tokens(spectrogram)[0, 2:], torch.tensor(expected))


@pytest.mark.parametrize(("eps", "other"), [(1e-12, 1e-6), (1e-6, 1e-12)])
def test_the_eps_of_hugging_face_s_config_holds_for_every_layer_norm(tmp_path, eps, other):
    theirs = quiet(random_ast(**SMALL, layer_norm_eps=eps))
    theirs.save_pretrained(tmp_path)
    ours = load_ast(tmp_path).freeze()
    assert {module.eps for module in ours.modules() if isinstance(module, torch.nn.LayerNorm)} == {eps}
    check_equal(ours, theirs, torch.randn(2, 96, 64))
    for changed in ({"blocks": other, "head": eps}, {"blocks": eps, "head": other}):
        set_eps(theirs, **changed)
        with pytest.raises(AssertionError, match="not close"):
            check_equal(ours, theirs, torch.randn(2, 96, 64))


def test_the_shortened_last_block_gives_what_the_whole_block_gives(tiny_backbone):
    spectrogram = torch.randn(2, TINY.n_frames, TINY.n_mels)
    hidden = tiny_backbone.tokens(spectrogram)
    for block in tiny_backbone.blocks:
        hidden = block(hidden)
    whole = tiny_backbone.norm(hidden)[:, :2].mean(dim=1)
    assert torch.allclose(tiny_backbone.embed(spectrogram), whole, atol=1e-6)


def test_base384_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = Ast(GEOMETRIES["ast-base384"])
    head = sum(p.numel() for p in (*model.head_norm.parameters(), *model.head.parameters()))
    assert sum(p.numel() for p in model.parameters()) - head == 86_187_264
    assert math.prod(GEOMETRIES["ast-base384"].grid) == 1212


def test_a_frozen_backbone_asks_for_no_gradient_and_stays_in_evaluation_mode(tiny_backbone):
    assert not tiny_backbone.training
    assert not any(p.requires_grad for p in tiny_backbone.parameters())
    spectrogram = torch.randn(2, TINY.n_frames, TINY.n_mels, requires_grad=True)
    tiny_backbone.source_logits(spectrogram).sum().backward()
    assert spectrogram.grad is not None
    assert all(p.grad is None for p in tiny_backbone.parameters())


def test_a_spectrogram_of_another_size_is_refused(tiny_backbone):
    with pytest.raises(ValueError, match=r"\(30, 32\): this AST takes \(32, 32\)"):
        tiny_backbone.embed(torch.zeros(1, 30, 32))


def test_the_digest_changes_with_one_weight_and_with_the_geometry(tiny_backbone):
    torch.manual_seed(0)
    twin = Ast(TINY)
    twin.load_state_dict(tiny_backbone.state_dict())
    assert backbone_digest(twin) == backbone_digest(tiny_backbone)
    with torch.no_grad():
        twin.position[0, 0, 0] += 1e-3
    assert backbone_digest(twin) != backbone_digest(tiny_backbone)
