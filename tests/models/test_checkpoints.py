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

from harness.models.backbones import backbone_digest, load_backbone, origin_of
from harness.models.backbones.ast import GEOMETRIES, AstGeometry
from harness.models.backbones.checkpoints import geometry_of, load_ast
from harness.models.backbones.huggingface import read_config
from harness.models.backbones.release import read_state
from tests.conftest import TINY
from tests.support.ast_files import SMALL, random_ast, released

PREFIX = "audio_spectrogram_transformer."
ATTENTION = f"{PREFIX}encoder.layer.0.attention.attention"
RELEASED = {**SMALL, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512, "num_mel_bins": 128}
RELEASED |= {"max_length": 1024, "frequency_stride": 16, "time_stride": 16}


@pytest.fixture
def file(tmp_path):
    """Return the weights of an AST in Hugging Face's format, beside its config."""
    random_ast(**SMALL).save_pretrained(tmp_path)
    return tmp_path / "model.safetensors"


@pytest.fixture
def tensors(tmp_path):
    """Return the tensors of an AST under the names of the release; its `config.json` is beside them."""
    random_ast(**RELEASED).save_pretrained(tmp_path)
    return released(load_file(tmp_path / "model.safetensors"))


# Formats


@pytest.mark.parametrize(("name", "is_zip"), [("a.pt", True), ("a.Bin", False), ("a", False), ("a.safetensors", True)])
def test_pytorchs_own_files_are_read_whatever_their_suffix(tmp_path, tensors, name, is_zip):
    torch.save(tensors, tmp_path / "audioset.pth")
    torch.save(tensors, tmp_path / name, _use_new_zipfile_serialization=is_zip)
    expected = load_ast(tmp_path / "audioset.pth")
    assert backbone_digest(load_ast(tmp_path / name)) == backbone_digest(expected)
    assert geometry_of(str(tmp_path / name)) == expected.geometry


@pytest.mark.parametrize("name", ["a.pth", "a.SAFETENSORS"])
def test_safetensors_are_read_whatever_their_suffix(tmp_path, file, name):
    expected = load_ast(tmp_path)
    file.rename(tmp_path / name)
    assert backbone_digest(load_ast(tmp_path / name)) == backbone_digest(expected)
    assert geometry_of(str(tmp_path / name)) == expected.geometry


@pytest.mark.parametrize("n", range(560, 760, 40))
def test_a_header_whose_length_begins_like_a_pickle_is_one_of_safetensors(tmp_path, n):
    save_file({"weight": torch.zeros(2)}, tmp_path / "a.safetensors", metadata={"note": " " * n})
    with pytest.raises(ValueError, match=r"a\.safetensors: neither Hugging Face's key names nor a `geometry`"):
        load_ast(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 346404948\n", "a Git LFS"),
        (b"<!DOCTYPE html>\n<html><body>Not found</body></html>" * 40, "a web page"),
        (b"", "empty"),
        (b'{"error": "Invalid username"}', r"neither .* begins with b'\{\"error"),
    ],
)
def test_a_file_without_weights_is_named(tmp_path, content, message):
    (tmp_path / "a.pth").write_bytes(content)
    for reads in (load_ast, lambda file: geometry_of(str(file))):
        with pytest.raises(ValueError, match=rf"a\.pth: {message}"):
            reads(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_anything_but_a_file_in_the_place_of_the_weights_is_refused(tmp_path, name, make):
    make(tmp_path / name)
    for reads in (load_ast, lambda place: geometry_of(str(place)), lambda place: origin_of(str(place))):
        with pytest.raises(ValueError, match=rf"{re.escape(name)}: must be a file"):
            reads(tmp_path)


def test_a_missing_config_is_named(file):
    file.with_name("config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json: a file of this name is needed"):
        load_ast(file)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_model_without_a_source_head_is_refused(file, name):
    bodies = {key.removeprefix(PREFIX): value for key, value in load_file(file).items() if key.startswith(PREFIX)}
    file.unlink()
    (save_file if name == file.name else torch.save)(bodies, file.with_name(name))
    for reads in (load_ast, lambda place: geometry_of(str(place))):
        with pytest.raises(ValueError, match=rf"{re.escape(name)}: an ASTModel, which has no source head"):
            reads(file.parent)


# Names of the source labels


def test_label_names_come_from_hugging_faces_config(file):
    config = file.with_name("config.json")
    names = {str(index): f"instrument {index}" for index in reversed(range(11))}
    config.write_text(json.dumps({**json.loads(config.read_text()), "id2label": names}))
    assert load_ast(file).source_labels == tuple(f"instrument {index}" for index in range(11))
    assert load_backbone(f"{file.parent}@128").source_labels[3] == "instrument 3"


def test_a_file_of_the_release_has_no_label_names_but_their_indices(tmp_path, tensors):
    torch.save(tensors, tmp_path / "audioset.pth")
    assert load_ast(tmp_path / "audioset.pth").source_labels == tuple(map(str, range(11)))


# Tensors that do not fit


@pytest.mark.parametrize(
    "name", [f"{PREFIX}embeddings.position_embeddings", f"{PREFIX}encoder.layer.2.output.dense.bias"]
)
def test_missing_unknown_and_misshapen_tensors_are_named_as_in_the_file(file, name):
    tensors = load_file(file)
    others = {key: tensor for key, tensor in tensors.items() if key != name}
    for changed, problem in [
        (others, f"missing {name}"),
        ({**tensors, f"{name}.extra": torch.zeros(1)}, f"unknown {name}.extra"),
        ({**others, name: torch.zeros(7)}, f"{name} is (7,), must be {tuple(tensors[name].shape)}"),
    ]:
        save_file(changed, file)
        with pytest.raises(ValueError, match=re.escape(f"1 tensors do not fit the geometry: {problem}") + "$"):
            load_ast(file)


def test_query_and_key_of_other_shapes_that_fit_once_fused_are_refused(file):
    odd = {f"{ATTENTION}.query.weight": torch.zeros(40, 48), f"{ATTENTION}.key.weight": torch.zeros(56, 48)}
    save_file({**load_file(file), **odd}, file)
    with pytest.raises(ValueError, match=r"2 tensors .*query\.weight is \(40, 48\), .*key\.weight is \(56, 48\)"):
        load_ast(file)


def test_of_many_tensors_that_do_not_fit_five_are_named_and_all_are_counted(file):
    save_file({key: tensor for key, tensor in load_file(file).items() if ".attention.attention." not in key}, file)
    with pytest.raises(ValueError, match=r"18 tensors do not fit the geometry: missing .*; and 13 more$") as raised:
        load_ast(file)
    assert str(raised.value).count("missing") == 5


def test_one_of_our_names_does_not_stand_for_hugging_faces(file):
    tensors = load_file(file)
    tensors["norm.weight"] = tensors.pop(f"{PREFIX}layernorm.weight")
    save_file(tensors, file)
    with pytest.raises(ValueError, match=rf"missing {PREFIX}layernorm\.weight; unknown norm\.weight$"):
        load_ast(file)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (torch.zeros(48, dtype=torch.int64), "holds int64"),
        (torch.full((48,), torch.nan), "holds NaN or infinity"),
        (torch.full((48,), 1e300, dtype=torch.float64), "holds NaN or infinity"),
    ],
)
def test_values_that_no_weights_have_are_refused(file, values, problem):
    save_file({**load_file(file), f"{PREFIX}layernorm.weight": values}, file)
    with pytest.raises(ValueError, match=rf"1 tensors do not fit the geometry: {PREFIX}layernorm\.weight {problem}"):
        load_ast(file)


# Numbers of a geometry: in a config, in our header, in code

NO_WHOLE = ["12.0", "null", "0", "true", "NaN", "10000000"]
NO_EPS = ["null", "0.0", "NaN", "Infinity", "true", "2"]
WHOLE = {
    "hidden_size": "embed_dim",
    "num_hidden_layers": "depth",
    "time_stride": "time_stride",
    "max_length": "n_frames",
}


def as_json(values, key, value):
    """Return the values as a JSON object in which the text `value` stands for the key's."""
    return json.dumps({**values, key: "HERE"}).replace('"HERE"', value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        *((key, value, f"{key}=.+: must be a whole number from") for key in WHOLE for value in NO_WHOLE),
        *(("layer_norm_eps", value, "layer_norm_eps=.+: must be a number above 0 and at most 1") for value in NO_EPS),
        ("num_labels", "0", "num_labels=0: must be a whole number"),
        ("num_attention_heads", "5", "num_attention_heads=5: must divide hidden_size=48"),
        ("intermediate_size", "191", "intermediate_size=191: must be 4 times hidden_size, 192"),
        ("model_type", '"vit"', "model_type='vit': must be 'audio-spectrogram-transformer'"),
        ("hidden_act", '"relu"', "hidden_act='relu': must be 'gelu'"),
        ("qkv_bias", "false", "qkv_bias=False: must be True"),
        ("patch_size", "[16, 8]", r"patch_size=\[16, 8\]: must be 16"),
        ("id2label", '["banjo"]', "id2label=.*: must be an object that names labels"),
        ("id2label", '{"0": "banjo", "2": "bass"}', "id2label=.*: must be an object that names labels"),
        ("id2label", '{"0": "banjo"}', "num_labels=11: must be 1"),
    ],
)
def test_a_wrong_value_in_a_config_is_refused_by_its_key(tmp_path, key, value, message):
    (tmp_path / "config.json").write_text(as_json(SMALL, key, value))
    with pytest.raises(ValueError, match=rf"config\.json: {message}"):
        read_config(tmp_path / "config.json")


@pytest.mark.parametrize("content", [b"", b'{"hidden_size": 48', b'{"hidden_act": "\xff\xfe"}', b"[]", b"[" * 100_000])
def test_a_config_that_is_no_json_object_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json: not a JSON object"):
        read_config(tmp_path / "config.json")


def test_missing_keys_take_the_defaults_of_transformers(tmp_path):
    default = ASTConfig()
    (tmp_path / "config.json").write_text("{}")
    found, labels = read_config(tmp_path / "config.json")
    assert {key: getattr(default, key) for key in WHOLE} == {key: getattr(found, ours) for key, ours in WHOLE.items()}
    assert (found.layer_norm_eps, found.head_eps) == (default.layer_norm_eps,) * 2
    assert (found.n_source_labels, labels) == (default.num_labels, ())
    default.save_pretrained(tmp_path)
    assert read_config(tmp_path / "config.json")[0] == found


@pytest.mark.parametrize("same", [{"patch_size": [16, 16]}, {"id2label": None}, {"hidden_dropout_prob": 0.5}])
def test_values_that_change_nothing_are_accepted(tmp_path, same):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(SMALL))
    expected = read_config(file)
    file.write_text(json.dumps({**SMALL, **same}))
    assert read_config(file) == expected


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ("[1]", "not a JSON object"),
        ('{"depth": 2, "colour": 3}', "colour: unknown"),
        ('{"window_ms": 0.01}', r"front end window_ms=0\.01"),
        *((as_json(asdict(TINY), "depth", value), "depth=.+: must be a whole number") for value in NO_WHOLE),
        *((as_json(asdict(TINY), "hop_ms", value), "hop_ms=.+: must be a number") for value in NO_EPS[:-1]),
    ],
)
def test_a_wrong_geometry_in_a_file_of_ours_is_refused(tmp_path, geometry, message):
    save_file({"weight": torch.zeros(2)}, tmp_path / "odd.safetensors", metadata={"geometry": geometry})
    for reads in (load_ast, lambda file: geometry_of(str(file))):
        with pytest.raises(ValueError, match=rf"odd\.safetensors: invalid `geometry` in its metadata \({message}"):
            reads(tmp_path / "odd.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 5}, "num_heads=5: must divide embed_dim=32"),
        ({"n_mels": 8}, "n_mels=8: must be a whole number from one patch, 16, to 4096"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps=nan: must be a number above 0"),
    ],
)
def test_an_impossible_geometry_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        AstGeometry(**{"embed_dim": 32, "num_heads": 2, **change})


def test_the_known_geometries_are_possible():
    assert all(AstGeometry(**asdict(geometry)) == geometry for geometry in GEOMETRIES.values())


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
    with pytest.raises(ValueError, match=rf"a\.pth: holds more than tensors, {re.escape(name)}") as raised:
        read_state(tmp_path / "a.pth")
    assert "weights_only" not in str(raised.value)
    assert raised.value.__suppress_context__
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"\x80\x02", b"\x80\x02a.", b"\x80\x04\x95", b"\x80\x02h\x05."])
def test_a_damaged_pickle_is_named_whatever_goes_wrong_in_it(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pth: not a whole checkpoint of tensors alone") as raised:
        read_state(tmp_path / "a.pth")
    assert "weights_only" not in str(raised.value)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1, 2], "but a list"),
        ({"weight": torch.zeros(2), 0: torch.zeros(2)}, "names of tensors must be strings, not 0"),
        ({"weight": torch.zeros(2), "epoch": 3}, "'epoch' no tensor"),
        ({"state_dict": {"weight": torch.zeros(2)}, "epoch": 3}, "save one of these alone: 'state_dict'"),
        ({"weight": torch.eye(3).to_sparse()}, "'weight' is sparse"),
        ({"weight": torch.zeros(3, device="meta")}, "'weight' is sparse, nested or without values"),
    ],
)
def test_a_pickle_of_anything_but_named_plain_tensors_is_refused(tmp_path, state, message):
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=rf"a\.pth: .*{message}"):
        read_state(tmp_path / "a.pth")
