"""Checkpoints of the original release, built with its key names from a random AST of transformers."""

import pytest
import torch
from safetensors.torch import load_file

from harness.models.backbones.ast import AstGeometry
from harness.models.backbones.checkpoints import geometry_of, load_ast, load_backbone
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


@pytest.mark.parametrize(("stride", "n_frames"), [(16, 1024), (10, 1024), (10, 128)])
def test_it_gives_what_transformers_gives(tmp_path, stride, n_frames):
    theirs, file = write(tmp_path, max_length=n_frames, frequency_stride=stride, time_stride=stride)
    check_equal(load_backbone(str(file)), theirs, torch.randn(2, n_frames, 128))


def test_its_layer_norms_have_the_releases_own_eps(file):
    geometry = load_ast(file).geometry
    assert geometry == AstGeometry(
        embed_dim=128, depth=2, num_heads=2, frequency_stride=16, time_stride=16, n_source_labels=11
    )
    assert (geometry.layer_norm_eps, geometry.head_eps) == (1e-6, 1e-5)
    assert geometry_of(str(file)) == geometry


def test_that_eps_is_the_one_that_counts(tmp_path):
    theirs, file = write(tmp_path, change=quiet, max_length=128, frequency_stride=10, time_stride=10)
    ours, spectrogram = load_ast(file).freeze(), torch.randn(1, 128, 128)
    check_equal(ours, theirs, spectrogram)
    for blocks, head in ((1e-12, 1e-5), (1e-6, 1e-6), (1e-5, 1e-5), (1e-12, 1e-12)):
        set_eps(theirs, blocks=blocks, head=head)
        with pytest.raises(AssertionError, match="not close"):
            check_equal(ours, theirs, spectrogram)


def change(file, edit):
    state = torch.load(file, weights_only=True)
    torch.save(edit(state), file)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda s: {k: v for k, v in s.items() if "qkv.bias" not in k},
            r"2 tensors .*missing blocks\.0\.attn\.qkv\.bias",
        ),
        (lambda s: {**s, "module.v.extra": torch.zeros(1)}, r"unknown v\.extra"),
        (lambda s: {**s, "module.v.norm.weight": torch.zeros(7)}, r"norm\.weight is \(7,\), must be \(128,\)"),
        (lambda s: {**s, "module.v.pos_embed": torch.zeros(1, 9, 128)}, r"7 position embeddings fit no stride"),
        (lambda s: {"module.v.cls_token": s["module.v.cls_token"]}, r"missing position, head\.weight, so it is not"),
        (lambda s: {**s, "module.v.cls_token": torch.zeros(())}, r"audioset\.pth: class_token is \(\), so it is not"),
        (lambda s: {**s, "module.v.blocks.99999999.x": torch.zeros(1)}, r"audioset\.pth: depth=100000000: must be"),
        (
            lambda s: {**s, "v.norm.bias": s["module.v.norm.bias"]},
            r"audioset\.pth: module\.v\.norm\.bias and v\.norm\.bias name the same tensor",
        ),
        (
            lambda s: {"norm.bias": s["module.v.norm.bias"], **s},
            r"audioset\.pth: norm\.bias and module\.v\.norm\.bias name the same tensor",
        ),
        (lambda s: {"epoch": 3}, r"holds no mapping of names to tensors"),
        (lambda s: [1, 2], r"holds no mapping of names to tensors"),
    ],
)
def test_a_file_of_something_else_says_what_does_not_fit(file, edit, message):
    change(file, edit)
    with pytest.raises(ValueError, match=message):
        load_ast(file)


class Payload:
    """What unpickling would run."""

    def __reduce__(self):
        return print, ("unpickled",)


def test_nothing_but_tensors_is_unpickled(tmp_path, capsys):
    torch.save({"module.v.cls_token": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth: holds more than tensors, 'print'"):
        load_ast(tmp_path / "evil.pth")
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("kept", [4, 100, 5000])
def test_a_cut_file_is_named(file, kept):
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"audioset\.pth: not a whole checkpoint"):
        load_ast(file)


def test_a_file_that_lacks_its_last_blocks_is_no_shallower_network(tmp_path):
    _, file = write(tmp_path, hidden_size=192, num_attention_heads=3, intermediate_size=768)
    with pytest.raises(ValueError, match=r"audioset\.pth: 2 blocks; the release's network of width 192 has 12"):
        load_ast(file)
