"""Checkpoints of the original release, built with its key names from a random AST of transformers."""

import pytest
import torch
from safetensors.torch import load_file

from harness.models.backbones import backbone_digest, load_backbone
from harness.models.backbones.ast import AstGeometry
from harness.models.backbones.checkpoints import load_ast
from tests.support.ast_files import check_equal, quiet, random_ast, released, set_eps


def write(tmp_path, *, change=lambda model: model, **changes):
    """Write a small AST in the release's format; return it as transformers', with the release's eps, and the file."""
    settings = {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512}
    settings |= {"num_hidden_layers": 2, "frequency_stride": 16, "time_stride": 16, "num_labels": 11}
    model = change(random_ast(seed=3, **{**settings, **changes}))
    set_eps(model, blocks=1e-6, head=1e-5)
    model.save_pretrained(tmp_path)
    torch.save(released(load_file(tmp_path / "model.safetensors")), tmp_path / "audioset.pth")
    return model, tmp_path / "audioset.pth"


@pytest.fixture
def file(tmp_path):
    return write(tmp_path)[1]


@pytest.mark.parametrize(
    ("frequency_stride", "time_stride", "n_frames", "suffix"),
    [
        (16, 16, 1024, ""),
        (10, 10, 128, ""),
        (14, 14, 128, "@stride=14"),
        (16, 16, 128, "@frames=128,stride=16x16"),
        (10, 10, 998, "@998"),
        (16, 16, 256, "@frames=256,stride=16"),
        (12, 16, 512, "@stride=12x16"),
    ],
)
def test_it_gives_what_transformers_gives(tmp_path, frequency_stride, time_stride, n_frames, suffix):
    strides = {"frequency_stride": frequency_stride, "time_stride": time_stride}
    theirs, file = write(tmp_path, max_length=n_frames, **strides)
    ours = load_backbone(f"{file}{suffix}")
    assert ours.geometry == AstGeometry(
        embed_dim=128, depth=2, num_heads=2, n_frames=n_frames, n_source_labels=11, **strides
    )
    assert ours.source_labels == tuple(map(str, range(11)))
    check_equal(ours, theirs, torch.randn(2, n_frames, 128))


@pytest.mark.parametrize("stride", [13, 14, 15, 16])
@pytest.mark.parametrize("suffix", ["", "@128", "@256"])
def test_positions_that_fit_several_strides_are_refused_and_the_candidates_named(tmp_path, stride, suffix):
    _, file = write(tmp_path, max_length=128, frequency_stride=stride, time_stride=stride)
    lower = stride - (stride + 1) % 2
    with pytest.raises(ValueError, match=rf"frames=128,stride={lower}x{lower} and @.*=128,stride={lower + 1}x"):
        load_backbone(f"{file}{suffix}")


def test_a_geometry_that_its_positions_do_not_fit_is_reached_by_refitting(tmp_path, file):
    found = load_backbone(f"{file}@frames=512,stride=10x12")
    assert (found.geometry.n_frames, found.geometry.grid) == (512, (12, 42))
    assert load_backbone(f"{file}@512").geometry.grid == (8, 32)
    assert backbone_digest(load_backbone(f"{file}@1024")) == backbone_digest(load_backbone(str(file)))


@pytest.mark.parametrize("suffix", ["@x", "@512x10", "@stride=", "@frames=12x3", "@512,frames=512"])
def test_a_malformed_geometry_is_refused(file, suffix):
    with pytest.raises(ValueError, match="must be @FRAMES"):
        load_backbone(f"{file}{suffix}")


def test_its_layer_norms_have_the_releases_own_eps(tmp_path):
    theirs, file = write(tmp_path, change=quiet, max_length=128, frequency_stride=10, time_stride=10)
    ours, spectrogram = load_ast(file).freeze(), torch.randn(1, 128, 128)
    assert (ours.geometry.layer_norm_eps, ours.geometry.head_eps) == (1e-6, 1e-5)
    check_equal(ours, theirs, spectrogram)
    for blocks, head in ((1e-12, 1e-5), (1e-6, 1e-6)):
        set_eps(theirs, blocks=blocks, head=head)
        with pytest.raises(AssertionError, match="not close"):
            check_equal(ours, theirs, spectrogram)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if "qkv.bias" not in k}, r"missing blocks\.0\.attn\.qkv\.bias"),
        (lambda s: {**s, "module.v.extra": torch.zeros(1)}, r"unknown v\.extra"),
        (lambda s: {**s, "module.v.norm.weight": torch.zeros(7)}, r"norm\.weight is \(7,\), must be \(128,\)"),
        (lambda s: {**s, "module.v.pos_embed": torch.zeros(1, 9, 128)}, "7 position embeddings fit no geometry"),
        (lambda s: {"module.v.cls_token": s["module.v.cls_token"]}, "missing position, head.weight"),
        (lambda s: {"epoch": 3}, "holds no mapping of names to tensors"),
    ],
)
def test_a_file_of_something_else_says_what_does_not_fit(file, edit, message):
    torch.save(edit(torch.load(file, weights_only=True)), file)
    with pytest.raises(ValueError, match=rf"audioset\.pth: .*{message}"):
        load_ast(file)


@pytest.mark.parametrize("kept", [4, 5000])
def test_a_cut_file_is_named(file, kept):
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"audioset\.pth: (damaged|neither)"):
        load_ast(file)


def test_a_file_that_lacks_its_last_blocks_is_no_shallower_network(tmp_path):
    _, file = write(tmp_path, hidden_size=192, num_attention_heads=3, intermediate_size=768)
    with pytest.raises(ValueError, match="2 blocks; the release's network of width 192 has 12"):
        load_ast(file)
