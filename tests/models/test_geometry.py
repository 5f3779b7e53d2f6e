"""Wrong numbers in a `config.json`, in the metadata of our own files or in code: each is refused by its name."""

import json
import re
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import save_file
from transformers import ASTConfig

from harness.models.backbones.ast import GEOMETRIES, AstGeometry
from harness.models.backbones.checkpoints import geometry_of, load_ast
from harness.models.backbones.huggingface import read_config
from tests.conftest import TINY
from tests.support.ast_files import SMALL

NO_WHOLE = ['"12"', "12.0", "null", "-1", "0", "true", "[12]", "{}", "NaN", "1e3", "10000000", "1" + "0" * 4000]
NO_EPS = ['"1e-12"', "null", "-1e-12", "0", "0.0", "NaN", "Infinity", "-Infinity", "1e400", "true", "[1e-12]", "2"]
WHOLE = {
    "hidden_size": "embed_dim",
    "num_hidden_layers": "depth",
    "num_attention_heads": "num_heads",
    "frequency_stride": "frequency_stride",
    "time_stride": "time_stride",
    "num_mel_bins": "n_mels",
    "max_length": "n_frames",
}


def as_json(values, key, value):
    """Return the values as a JSON object in which the text `value` stands for the key's."""
    return json.dumps({**values, key: "HERE"}).replace('"HERE"', value)


@pytest.fixture
def refused(tmp_path):
    """Return how `read_config` refuses a content."""

    def read(content):
        file = tmp_path / "config.json"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ValueError, match=r"config\.json: ") as caught:
            read_config(file)
        return str(caught.value).partition("config.json: ")[2]

    return read


@pytest.mark.parametrize("value", NO_WHOLE)
@pytest.mark.parametrize("key", WHOLE)
def test_what_is_no_whole_number_in_range_is_refused_by_its_key(refused, key, value):
    said = refused(as_json(SMALL, key, value))
    assert re.match(rf"{key}=.+: must be a whole number from (1|one patch, 16,) to \d+$", said)
    assert len(said) < 120


@pytest.mark.parametrize("value", [value for value in NO_WHOLE if value != "12.0"])
def test_a_number_of_labels_that_is_none_is_refused(refused, value):
    said = refused(as_json(SMALL, "num_labels", value))
    assert re.match(r"num_labels=.+: must be a whole number from 1 to 1000000$", said)


@pytest.mark.parametrize("value", NO_EPS)
def test_an_eps_that_no_layer_norm_can_have_is_refused(refused, value):
    said = refused(as_json(SMALL, "layer_norm_eps", value))
    assert re.match(r"layer_norm_eps=.+: must be a number above 0 and at most 1$", said)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_attention_heads", "5", "num_attention_heads=5: must divide hidden_size=48"),
        ("num_mel_bins", "15", "num_mel_bins=15: must be a whole number from one patch, 16, to 4096"),
        ("intermediate_size", "191", "intermediate_size=191: must be 4 times hidden_size, 192"),
        ("intermediate_size", '"192"', "intermediate_size='192': must be 4 times"),
        ("intermediate_size", "192.0", "intermediate_size=192.0: must be 4 times"),
        ("intermediate_size", "null", "intermediate_size=None: must be 4 times"),
        ("model_type", '"vit"', "model_type='vit': must be 'audio-spectrogram-transformer'; no other AST"),
        ("hidden_act", '"relu"', "hidden_act='relu': must be 'gelu'; no other AST"),
        ("hidden_act", "null", "hidden_act=None: must be 'gelu'"),
        ("qkv_bias", "false", "qkv_bias=False: must be True"),
        ("qkv_bias", "1", "qkv_bias=1: must be True"),
        ("patch_size", "14", "patch_size=14: must be 16 or [16, 16]"),
        ("patch_size", "16.0", "patch_size=16.0: must be 16"),
        ("patch_size", "[16, 8]", "patch_size=[16, 8]: must be 16"),
        ("id2label", '["banjo"]', "id2label=['banjo']: must be an object that names each label"),
        ("id2label", "{}", "id2label={}: must be an object"),
        ("id2label", '{"0": "banjo"}', "num_labels=11: must be 1, as many as id2label names"),
    ],
)
def test_what_cannot_be_built_is_refused(refused, key, value, message):
    assert refused(as_json(SMALL, key, value)).startswith(message)


def test_without_a_key_the_default_has_to_fit_too(refused):
    without = {key: value for key, value in SMALL.items() if key != "intermediate_size"}
    assert refused(json.dumps(without)) == "intermediate_size=3072: must be 4 times hidden_size, 192"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"not a JSON object \(Expecting value"),
        (b'{"hidden_size": 48', r"not a JSON object \(Expecting"),
        (b'{"hidden_act": "\xff\xfe"}', r"not a JSON object \(.*can't decode byte 0xff"),
        (b"[]", r"not a JSON object \(a list\)"),
        (b"null", r"not a JSON object \(a NoneType\)"),
        (b'{"id2label": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", r"not a JSON object \(nested too deeply\)"),
        (b'{"depth": ' + b"1" * 5000 + b"}", r"not a JSON object \(Exceeds the limit"),
    ],
    ids=["empty", "cut", "no UTF-8", "list", "null", "deep", "endless"],
)
def test_what_is_no_json_object_is_refused(refused, content, message):
    assert re.match(message, refused(content))


def test_missing_keys_take_the_defaults_of_transformers(tmp_path):
    default = ASTConfig()
    (tmp_path / "config.json").write_text("{}")
    found = read_config(tmp_path / "config.json")
    assert {key: getattr(default, key) for key in WHOLE} == {key: getattr(found, ours) for key, ours in WHOLE.items()}
    assert (found.layer_norm_eps, found.head_eps) == (default.layer_norm_eps,) * 2
    assert found.n_source_labels == default.num_labels
    default.save_pretrained(tmp_path)
    assert read_config(tmp_path / "config.json") == found


@pytest.mark.parametrize(
    "same", [{"patch_size": [16, 16]}, {"id2label": None}, {"hidden_dropout_prob": 0.5}, {"something_new": [1]}]
)
def test_what_changes_nothing_is_accepted(tmp_path, same):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(SMALL))
    expected = read_config(file)
    file.write_text(json.dumps({**SMALL, **same}))
    assert read_config(file) == expected


# The same numbers in a file of ours, and in code


def write_own(tmp_path, geometry):
    save_file({"weight": torch.zeros(2)}, tmp_path / "odd.safetensors", metadata={"geometry": geometry})
    return tmp_path / "odd.safetensors"


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        *((key, value, "a whole number") for key in (*WHOLE.values(), "n_source_labels") for value in NO_WHOLE),
        *((key, value, "a number above 0") for key in ("layer_norm_eps", "head_eps") for value in NO_EPS),
        *((key, value, "a number above 0") for key in ("window_ms", "hop_ms") for value in (*NO_EPS[:-1], "1e9")),
    ],
)
def test_a_wrong_number_in_a_file_of_ours_is_refused_by_its_name(tmp_path, key, value, rule):
    file = write_own(tmp_path, as_json(asdict(TINY), key, value))
    with pytest.raises(
        ValueError, match=rf"odd\.safetensors: the `geometry` in its metadata is none \({key}=.+: must be {rule}"
    ):
        geometry_of(str(file))


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ("{", r"not a JSON object \(Expecting"),
        ("[1]", r"not a JSON object \(a list\)"),
        ("[" * 100_000, r"not a JSON object \(nested too deeply\)"),
        ('{"depth": 2, "colour": 3}', "colour: no such number; there are embed_dim, depth, .*head_eps"),
        ('{"depth": 0}', "depth=0: must be a whole number from 1 to 1000"),
        ('{"num_heads": 7}', "num_heads=7: must divide embed_dim=768"),
        ('{"window_ms": 0.01}', r"front end window_ms=0\.01, hop_ms=10\.0: at 16000 Hz"),
    ],
)
def test_a_geometry_that_is_none_is_refused(tmp_path, geometry, message):
    with pytest.raises(ValueError, match=rf"odd\.safetensors: the `geometry` in its metadata is none \({message}"):
        load_ast(write_own(tmp_path, geometry))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 5}, "num_heads=5: must divide embed_dim=32"),
        ({"n_mels": 8}, "n_mels=8: must be a whole number from one patch, 16, to 4096"),
        ({"time_stride": 0}, "time_stride=0: must be a whole number from 1"),
        ({"depth": 2.0}, r"depth=2\.0: must be a whole number from 1 to 1000"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps=nan: must be a number above 0"),
        ({"hop_ms": 0.01}, r"hop_ms=0\.01: at 16000 Hz the window must span 2 samples or more"),
    ],
)
def test_an_impossible_geometry_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        AstGeometry(**{"embed_dim": 32, "num_heads": 2, **change})


def test_the_known_geometries_are_possible():
    assert all(AstGeometry(**asdict(geometry)) == geometry for geometry in GEOMETRIES.values())
