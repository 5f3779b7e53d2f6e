"""The AST against transformers' own, through files in its format, and the frozen state."""

import math

import pytest
import torch
from safetensors.torch import save_file

from harness.common.cli import absolute_place
from harness.models.backbones import backbone_digest, load_backbone
from harness.models.backbones.ast import GEOMETRIES, Ast, AstGeometry
from harness.models.backbones.checkpoints import load_ast, metadata_of, save_ast
from tests.conftest import TINY
from tests.support.ast_files import SMALL, check_equal, quiet, random_ast, set_eps


def reference(tmp_path, **changes):
    """Save a random transformers AST in its own format; return it and the directory."""
    model = random_ast(**{**SMALL, **changes})
    model.save_pretrained(tmp_path)
    return model, tmp_path


@pytest.mark.parametrize("strides", [(10, 10), (12, 12), (16, 16), (10, 16)])
def test_a_file_of_hugging_face_s_gives_what_transformers_gives(tmp_path, strides):
    theirs, directory = reference(tmp_path, frequency_stride=strides[0], time_stride=strides[1])
    check_equal(load_ast(directory).freeze(), theirs, torch.randn(3, 96, 64))


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


def test_our_own_file_keeps_geometry_weights_and_provenance(tmp_path, tiny_backbone):
    file = tmp_path / "tiny.safetensors"
    save_ast(file, tiny_backbone, {"seed": "0"})
    loaded = load_backbone(str(file))
    assert loaded.geometry == TINY
    assert metadata_of(file)["seed"] == "0"
    for key, tensor in tiny_backbone.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor.half().float()), key


def test_the_digest_changes_with_one_weight_and_with_the_geometry(tiny_backbone):
    torch.manual_seed(0)
    twin = Ast(TINY)
    twin.load_state_dict(tiny_backbone.state_dict())
    assert backbone_digest(twin) == backbone_digest(tiny_backbone)
    with torch.no_grad():
        twin.position[0, 0, 0] += 1e-3
    assert backbone_digest(twin) != backbone_digest(tiny_backbone)


@pytest.mark.parametrize("kept", [9, 100, -3])
def test_a_damaged_file_is_named(tmp_path, tiny_backbone, kept):
    file = tmp_path / "tiny.safetensors"
    save_ast(file, tiny_backbone, {})
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"tiny\.safetensors: not a whole safetensors file"):
        load_backbone(str(file))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-5], "not a JSON object"),
        (lambda text: "[]", "not a JSON object"),
        (lambda text: text.replace('"num_attention_heads": 4', '"num_attention_heads": 5'), "num_attention_heads=5"),
    ],
)
def test_a_broken_config_beside_the_weights_is_named(tmp_path, change, message):
    _, directory = reference(tmp_path)
    file = directory / "config.json"
    file.write_text(change(file.read_text()))
    with pytest.raises(ValueError, match=rf"config\.json: {message}"):
        load_ast(directory)


def test_a_file_of_something_else_is_refused(tmp_path):
    file = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, file)
    with pytest.raises(ValueError, match="not an AST"):
        load_ast(file)


def test_an_unknown_backbone_names_the_known_ones():
    with pytest.raises(
        ValueError,
        match=r"backbone='ast-huge': must be one of ast-nano, ast-base384, .* or pytorch_model\.bin",
    ):
        load_backbone("ast-huge")


def test_an_empty_name_is_not_the_current_directory():
    with pytest.raises(ValueError, match="backbone='': must be one of"):
        load_backbone("")
    with pytest.raises(ValueError, match=r"backbone='': must not be empty"):
        absolute_place("", flag="backbone")


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"backbone no/such\.safetensors: does not exist"):
        load_backbone("no/such.safetensors")


def test_a_directory_without_weights_says_which_files_it_may_have(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds neither model\.safetensors nor pytorch_model\.bin"):
        load_backbone(str(tmp_path))


def test_the_built_in_backbone_is_small_and_says_where_it_comes_from():
    backbone = load_backbone("ast-nano")
    assert backbone.geometry == GEOMETRIES["ast-nano"]
    assert sum(p.numel() for p in backbone.parameters()) < 1_000_000
