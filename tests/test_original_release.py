"""Checkpoints of the original release, built with its key names from a random AST of transformers."""

import re

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import ASTConfig, ASTForAudioClassification

from harness.models.ast import AstGeometry
from harness.models.checkpoints import load_ast, load_backbone

NAMES = {
    "embeddings.cls_token": "v.cls_token",
    "embeddings.distillation_token": "v.dist_token",
    "embeddings.position_embeddings": "v.pos_embed",
    "embeddings.patch_embeddings.projection": "v.patch_embed.proj",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "layernorm": "v.norm",
}


def transformers_ast(tmp_path, *, dim=128, stride=16, n_frames=1024):
    torch.manual_seed(3)
    model = ASTForAudioClassification(
        ASTConfig(
            hidden_size=dim,
            num_hidden_layers=2,
            num_attention_heads=dim // 64,
            intermediate_size=4 * dim,
            max_length=n_frames,
            frequency_stride=stride,
            time_stride=stride,
            num_labels=11,
            layer_norm_eps=1e-6,
        )
    ).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(tmp_path)
    return model, load_file(tmp_path / "model.safetensors")


def released(tensors):
    """Return the tensors of a file of transformers' under the release's names, with DeiT's unused heads."""
    state = {
        f"module.mlp_head.{index}.{kind}": tensors[f"classifier.{name}.{kind}"]
        for index, name in enumerate(("layernorm", "dense"))
        for kind in ("weight", "bias")
    }
    for key, tensor in tensors.items():
        inner = key.removeprefix("audio_spectrogram_transformer.")
        if inner == key or ".attention.attention." in key:
            continue
        block = re.match(r"encoder\.layer\.(\d+)\.(.*)", inner)
        prefix, rest = (f"v.blocks.{block[1]}.", block[2]) if block else ("", inner)
        stem = next(stem for stem in NAMES if rest == stem or rest.startswith(f"{stem}."))
        state[f"module.{prefix}{rest.replace(stem, NAMES[stem], 1)}"] = tensor
    for index in range(2):
        parts = f"audio_spectrogram_transformer.encoder.layer.{index}.attention.attention."
        for kind in ("weight", "bias"):
            fused = torch.cat([tensors[f"{parts}{part}.{kind}"] for part in ("query", "key", "value")])
            state[f"module.v.blocks.{index}.attn.qkv.{kind}"] = fused
    dim = tensors["classifier.layernorm.weight"].shape[0]
    for head in ("head", "head_dist"):
        state |= {f"module.v.{head}.weight": torch.zeros(1000, dim), f"module.v.{head}.bias": torch.zeros(1000)}
    return state


@pytest.fixture
def file(tmp_path):
    _, tensors = transformers_ast(tmp_path)
    torch.save(released(tensors), tmp_path / "audioset.pth")
    return tmp_path / "audioset.pth"


@pytest.mark.parametrize(("stride", "n_frames"), [(16, 1024), (10, 1024), (10, 128)])
def test_it_gives_what_transformers_gives(tmp_path, stride, n_frames):
    theirs, tensors = transformers_ast(tmp_path, stride=stride, n_frames=n_frames)
    torch.save(released(tensors), tmp_path / "audioset.pth")
    ours = load_backbone(str(tmp_path / "audioset.pth"))
    spectrogram = torch.randn(2, n_frames, 128)
    with torch.inference_mode():
        expected = theirs(spectrogram, output_hidden_states=True)
        hidden = ours.tokens(spectrogram)
        torch.testing.assert_close(hidden, expected.hidden_states[0], atol=1e-4, rtol=0)
        for block, theirs_after in zip(ours.blocks, expected.hidden_states[1:], strict=True):
            hidden = block(hidden)
            torch.testing.assert_close(hidden, theirs_after, atol=1e-4, rtol=0)
        pooled = theirs.base_model(spectrogram).pooler_output
        torch.testing.assert_close(ours.embed(spectrogram), pooled, atol=1e-4, rtol=0)
        torch.testing.assert_close(ours.source_logits(spectrogram), expected.logits, atol=1e-4, rtol=0)


def test_its_layer_norms_have_the_releases_own_eps(file):
    geometry = load_ast(file).geometry
    assert geometry == AstGeometry(
        embed_dim=128, depth=2, num_heads=2, frequency_stride=16, time_stride=16, n_source_labels=11
    )
    assert (geometry.layer_norm_eps, geometry.head_eps) == (1e-6, 1e-5)


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
    with pytest.raises(ValueError, match=r"evil\.pth: not a whole checkpoint of tensors alone"):
        load_ast(tmp_path / "evil.pth")
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("kept", [0, 100, 5000])
def test_a_cut_file_is_named(file, kept):
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"audioset\.pth: not a whole checkpoint"):
        load_ast(file)
