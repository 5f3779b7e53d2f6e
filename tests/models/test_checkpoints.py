"""Files of AST weights: their formats by content, tensors and numbers that do not fit, label names, pickles."""

import json
import os
import re
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ASTConfig

from harness.common.cli import absolute_place
from harness.models.backbones import backbone_digest, load_backbone
from harness.models.backbones.ast import GEOMETRIES, AstGeometry
from harness.models.backbones.checkpoints import load_ast, save_ast
from harness.models.backbones.formats import read_config, read_state
from harness.models.backbones.hub import CHECKPOINTS
from tests.conftest import TINY
from tests.support.ast_files import SMALL, metadata_of, random_ast

PREFIX = "audio_spectrogram_transformer."


@pytest.fixture(scope="session")
def small():
    """Return an AST of transformers'."""
    return random_ast(**SMALL)


@pytest.fixture
def file(tmp_path, small):
    """Return the weights of an AST in Hugging Face's format, beside its config."""
    small.save_pretrained(tmp_path)
    return tmp_path / "model.safetensors"


def write_config(file, **changes):
    config = file.with_name("config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))


# Formats


def test_our_own_file_keeps_geometry_weights_and_provenance(tmp_path, tiny_backbone):
    file = tmp_path / "tiny.safetensors"
    save_ast(file, tiny_backbone, {"seed": "0"})
    loaded = load_backbone(str(file))
    assert loaded.geometry == TINY
    assert metadata_of(file)["seed"] == "0"
    for key, tensor in tiny_backbone.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor.half().float()), key


@pytest.mark.parametrize(("name", "is_zip"), [("a.pt", True), ("a", False), ("a.safetensors", True)])
def test_pytorchs_own_files_are_read_whatever_their_suffix(tmp_path, file, name, is_zip):
    expected = load_ast(tmp_path)
    torch.save(load_file(file), tmp_path / name, _use_new_zipfile_serialization=is_zip)
    assert backbone_digest(load_ast(tmp_path / name)) == backbone_digest(expected)


@pytest.mark.parametrize("name", ["a.pth", "a.SAFETENSORS"])
def test_safetensors_are_read_whatever_their_suffix(tmp_path, file, name):
    expected = load_ast(tmp_path)
    file.rename(tmp_path / name)
    assert backbone_digest(load_ast(tmp_path / name)) == backbone_digest(expected)


@pytest.mark.parametrize("n", range(560, 760, 40))
def test_a_header_whose_length_begins_like_a_pickle_is_one_of_safetensors(tmp_path, n):
    save_file({"weight": torch.zeros(2)}, tmp_path / "a.safetensors", metadata={"note": " " * n})
    with pytest.raises(ValueError, match=r"a\.safetensors: not an AST"):
        load_ast(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "content", [b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\n", b"<!DOCTYPE html>", b""]
)
def test_a_file_without_weights_is_named(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.pth: neither .* begins with {re.escape(repr(content[:16]))}"):
        load_ast(tmp_path / "a.pth")


@pytest.mark.parametrize("kept", [9, 100, -3])
def test_a_damaged_file_is_named(tmp_path, tiny_backbone, kept):
    file = tmp_path / "tiny.safetensors"
    save_ast(file, tiny_backbone, {})
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"tiny\.safetensors: not a whole safetensors file"):
        load_backbone(str(file))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("ast-huge", ValueError, r"backbone='ast-huge': must be one of ast-nano, ast-base384, .* or pytorch_model"),
        ("ast-huge@512", ValueError, "backbone='ast-huge': must be one of"),
        ("", ValueError, "backbone='': must be one of"),
        ("no/such.safetensors", FileNotFoundError, r"backbone no/such\.safetensors: does not exist"),
        (".", FileNotFoundError, r"backbone \.: .*neither model\.safetensors nor pytorch_model\.bin"),
    ],
)
def test_a_name_without_weights_is_refused(tmp_path, monkeypatch, name, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        load_backbone(name)


def test_a_command_refuses_an_empty_name():
    with pytest.raises(ValueError, match=r"backbone='': must not be empty"):
        absolute_place("", flag="backbone")


def test_a_missing_or_broken_config_is_named(file):
    config = file.with_name("config.json")
    for content in ('{"hidden_size": 48', "[]"):
        config.write_text(content)
        with pytest.raises(ValueError, match=r"config\.json: "):
            load_ast(file)
    config.unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json: a file of this name is needed"):
        load_ast(file)


def test_a_model_without_a_source_head_is_refused(file):
    tensors = load_file(file)
    save_file({key.removeprefix(PREFIX): value for key, value in tensors.items() if key.startswith(PREFIX)}, file)
    with pytest.raises(ValueError, match=r"model\.safetensors: not an AST.* lacks the source head"):
        load_ast(file)


def test_known_checkpoints_are_pinned_and_the_others_follow_their_branch():
    checkpoint = CHECKPOINTS["ast-base384"]
    assert checkpoint.repo == "MIT/ast-finetuned-audioset-10-10-0.4593"
    assert checkpoint.sha256 is not None
    for name, published in CHECKPOINTS.items():
        assert published.revision == "main" or re.fullmatch("[0-9a-f]{40}", published.revision), name
        assert published.sha256 is None or re.fullmatch("[0-9a-f]{64}", published.sha256), name
    assert set(GEOMETRIES) - {"ast-nano"} <= set(CHECKPOINTS)


# Names of the source labels


def test_label_names_come_from_hugging_faces_config(file):
    write_config(file, id2label={str(index): f"instrument {index}" for index in reversed(range(11))})
    assert load_ast(file).source_labels == tuple(f"instrument {index}" for index in range(11))
    assert load_backbone(f"{file.parent}@128").source_labels[3] == "instrument 3"


# Tensors that do not fit


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        (f"{PREFIX}layernorm.bias", None, "missing norm.bias"),
        (f"{PREFIX}encoder.layer.2.attention.attention.key.bias", None, "blocks.2.attn.qkv.bias is (96,)"),
        ("classifier.extra", torch.zeros(1), "unknown classifier.extra"),
        ("classifier.dense.bias", torch.zeros(7), "head.bias is (7,), must be (11,)"),
        ("classifier.dense.bias", torch.zeros(11, dtype=torch.int64), "head.bias holds int64"),
        ("classifier.dense.bias", torch.full((11,), torch.nan), "head.bias holds float32"),
        ("classifier.dense.bias", torch.full((11,), 1e300, dtype=torch.float64), "head.bias holds float64"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(file, name, value, problem):
    tensors = {key: tensor for key, tensor in {**load_file(file), name: value}.items() if tensor is not None}
    save_file(tensors, file)
    with pytest.raises(ValueError, match=re.escape(f"1 tensors do not fit the geometry: {problem}")):
        load_ast(file)


def test_all_tensors_that_do_not_fit_are_counted_and_five_are_named(file):
    save_file({key: tensor for key, tensor in load_file(file).items() if ".attention." not in key}, file)
    with pytest.raises(ValueError, match=r"12 tensors do not fit the geometry: missing .* and 7 more$") as raised:
        load_ast(file)
    assert str(raised.value).count("missing") == 5


# Numbers of a geometry: in a config, in our header, in code


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hidden_size", 12.0, "hidden_size=12.0: must be a whole number"),
        ("num_hidden_layers", None, "num_hidden_layers=None: must be a whole number"),
        ("time_stride", 0, "time_stride=0: must be above 0"),
        ("max_length", True, "max_length=True: must be a whole number"),
        ("layer_norm_eps", 0.0, "layer_norm_eps=0.0: must be above 0"),
        ("layer_norm_eps", float("nan"), "layer_norm_eps=nan: must be above 0"),
        ("num_attention_heads", 5, "num_attention_heads=5: must divide"),
        ("model_type", "vit", "model_type='vit': must be 'audio-spectrogram-transformer'"),
        ("hidden_act", "relu", "hidden_act='relu': must be 'gelu'"),
        ("qkv_bias", False, "qkv_bias=False: must be True"),
        ("patch_size", [16, 8], r"patch_size=\[16, 8\]: must be 16"),
    ],
)
def test_a_wrong_value_in_a_config_is_refused_by_its_key(file, key, value, message):
    write_config(file, **{key: value})
    with pytest.raises(ValueError, match=rf"config\.json: {message}"):
        load_ast(file)


def test_missing_keys_take_the_defaults_of_transformers(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    found, labels = read_config(tmp_path / "config.json")
    assert labels == ()
    ASTConfig().save_pretrained(tmp_path)
    assert read_config(tmp_path / "config.json")[0] == found


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ("[1]", ""),
        ('{"depth": 2, "colour": 3}', ".*colour"),
        ('{"window_ms": 0.01}', r"front end window_ms=0\.01"),
        (json.dumps({**asdict(TINY), "depth": 1.5}), r"depth=1\.5: must be a whole number"),
    ],
)
def test_a_wrong_geometry_in_a_file_of_ours_is_refused(tmp_path, geometry, message):
    save_file({"weight": torch.zeros(2)}, tmp_path / "odd.safetensors", metadata={"geometry": geometry})
    with pytest.raises(ValueError, match=rf"odd\.safetensors: invalid `geometry` in its metadata \({message}"):
        load_ast(tmp_path / "odd.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 5}, "num_heads=5: must divide embed_dim=32"),
        ({"n_mels": 8}, "n_mels=8: must be at least 16"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps=nan: must be above 0"),
    ],
)
def test_an_impossible_geometry_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        AstGeometry(**{"embed_dim": 32, "num_heads": 2, **change})


def test_the_built_in_backbone_is_small_and_of_its_geometry():
    backbone = load_backbone("ast-nano")
    assert backbone.geometry == GEOMETRIES["ast-nano"]
    assert sum(p.numel() for p in backbone.parameters()) < 1_000_000


# Pickles


class Payload:
    """A pickle that would print."""

    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (np.zeros(3), "'numpy._core.multiarray._reconstruct'"),
        (torch.nn.Linear(2, 2), "'torch.nn.modules.linear.Linear'"),
        (Payload(), "'print'"),
        (os.system, "'posix.system'"),
    ],
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_nothing_but_tensors_is_unpickled_and_nobody_is_advised_to(tmp_path, capsys, more, name, is_zip):
    torch.save({"weight": torch.zeros(2), "more": more}, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ValueError, match=rf"a\.pth: holds {re.escape(name)}") as raised:
        read_state(tmp_path / "a.pth")
    assert "weights_only" not in str(raised.value)
    assert raised.value.__suppress_context__
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"\x80\x02", b"\x80\x02a.", b"\x80\x04\x95", b"\x80\x02h\x05."])
def test_a_damaged_pickle_is_named_whatever_goes_wrong_in_it(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pth: damaged") as raised:
        read_state(tmp_path / "a.pth")
    assert "weights_only" not in str(raised.value)


@pytest.mark.parametrize("state", [[1, 2], {"weight": torch.zeros(2), "epoch": 3}, {"state_dict": {}, "epoch": 3}])
def test_a_pickle_of_anything_but_named_tensors_is_refused(tmp_path, state):
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: holds no mapping of names to tensors"):
        read_state(tmp_path / "a.pth")
