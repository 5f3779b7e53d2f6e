"""AST as Hugging Face's files hold it: other names, query, key and value apart, and a `config.json` beside the weights.

Source: the names that `transformers.ASTForAudioClassification` writes, and the defaults of its `ASTConfig`. Its one
`layer_norm_eps`, 1e-12 in the published files, holds for every LayerNorm, that of the head too.
"""

import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.models.ast import AstGeometry
from harness.models.geometry_rules import PATCH, check_geometry
from harness.models.json_object import parse_object

_PREFIX = "audio_spectrogram_transformer."
_NAMES = {
    "embeddings.cls_token": "class_token",
    "embeddings.distillation_token": "distillation_token",
    "embeddings.position_embeddings": "position",
    "embeddings.patch_embeddings.projection": "patch",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "layernorm": "norm",
}
_HEAD = {
    "classifier.layernorm.weight": "head_norm.weight",
    "classifier.layernorm.bias": "head_norm.bias",
    "classifier.dense.weight": "head.weight",
    "classifier.dense.bias": "head.bias",
}
_GEOMETRY = {
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "frequency_stride": "frequency_stride",
    "time_stride": "time_stride",
    "n_mels": "num_mel_bins",
    "n_frames": "max_length",
    "layer_norm_eps": "layer_norm_eps",
    "head_eps": "layer_norm_eps",
}
_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "frequency_stride": 10,
    "time_stride": 10,
    "num_mel_bins": 128,
    "max_length": 1024,
    "layer_norm_eps": 1e-12,
    "num_labels": 2,
}
_FIXED: dict[str, tuple[Any, ...]] = {
    "model_type": ("audio-spectrogram-transformer",),
    "hidden_act": ("gelu",),
    "patch_size": (PATCH, [PATCH, PATCH]),
    "qkv_bias": (True,),
}
"""What `Ast` builds and no other: a file that says otherwise means another network."""


def is_hugging_face(names: Iterable[str]) -> bool:
    """Return whether a file with tensors of these names is one of Hugging Face's."""
    return any(name.startswith(_PREFIX) for name in names)


def read_config(config_file: Path) -> AstGeometry:
    """Return the geometry that a `config.json` tells of; what it does not say is as in `ASTConfig`.

    Dropout and how weights were initialised decide nothing here, and are not read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON object, or tells of a network that `Ast` cannot be; the message names the key.
    """
    if not config_file.exists():
        raise FileNotFoundError(f"{config_file}: needed beside the weights, for the geometry")
    try:
        return _geometry(parse_object(config_file.read_bytes()))
    except ValueError as error:
        raise ValueError(f"{config_file}: {error}") from error


def _geometry(config: Mapping[str, Any]) -> AstGeometry:
    for key, valid in _FIXED.items():
        found = config.get(key, valid[0])
        if not any(type(found) is type(value) and found == value for value in valid):
            rule = " or ".join(map(repr, valid))
            raise ValueError(f"{key}={reprlib.repr(found)}: must be {rule}; no other AST can be built here")
    told = {**_DEFAULTS, **config}
    values = {field: told[key] for field, key in _GEOMETRY.items()}
    values["n_source_labels"] = _n_labels(config)
    check_geometry(values, called={**_GEOMETRY, "n_source_labels": "num_labels"})
    inner, wanted = told["intermediate_size"], 4 * told["hidden_size"]
    if type(inner) is not int or inner != wanted:
        raise ValueError(f"intermediate_size={reprlib.repr(inner)}: must be 4 times hidden_size, {wanted}")
    return AstGeometry(**values)


def _n_labels(config: Mapping[str, Any]) -> Any:
    """Return how many labels there are: as many as `id2label` names, else what `num_labels` says, right or wrong."""
    names, number = config.get("id2label"), config.get("num_labels", _DEFAULTS["num_labels"])
    if names is None:
        return number
    if not isinstance(names, dict) or not names:
        raise ValueError(f"id2label={reprlib.repr(names)}: must be an object that names each label")
    if "num_labels" in config and (type(number) is not int or number != len(names)):
        raise ValueError(f"num_labels={reprlib.repr(number)}: must be {len(names)}, as many as id2label names")
    return len(names)


def from_hugging_face(file: Path, tensors: Mapping[str, Tensor], geometry: AstGeometry) -> dict[str, Tensor]:
    """Return the tensors under our names, with query, key and value fused; those of unknown names are refused later.

    Raises:
        ValueError: one that has to be fused is missing or of another shape, or one of the head's is missing.
    """
    fused = _fused(geometry.depth)
    parts = [key for keys in fused.values() for key in keys]
    if missing := [key for key in [*_HEAD, *parts] if key not in tensors]:
        raise ValueError(f"{file}: missing {missing[0]}{_and_more(missing)}")
    shapes = {"weight": (geometry.embed_dim, geometry.embed_dim), "bias": (geometry.embed_dim,)}
    # of other shapes they might fit all the same once they are fused, each in the place of another
    if odd := [key for key in parts if tensors[key].shape != shapes[key.rpartition(".")[2]]]:
        found, expected = tuple(tensors[odd[0]].shape), shapes[odd[0].rpartition(".")[2]]
        raise ValueError(f"{file}: {odd[0]} is {found}, must be {expected}{_and_more(odd)}")
    taken = set(parts)
    renamed = {_our_name(key): tensor for key, tensor in tensors.items() if key not in taken}
    return renamed | {ours: torch.cat([tensors[key] for key in keys]) for ours, keys in fused.items()}


def _our_name(key: str) -> str:
    """Return our name of a tensor that is not one of those to be fused; of an unknown one, its own or one like it."""
    inner = key.removeprefix(_PREFIX)
    if inner == key:
        return _HEAD.get(key, key)
    prefix, rest = "", inner
    if block := re.match(r"encoder\.layer\.(\d+)\.(.*)", inner):
        prefix, rest = f"blocks.{block[1]}.", block[2]
    stem = next((stem for stem in _NAMES if rest == stem or rest.startswith(f"{stem}.")), None)
    return prefix + (rest if stem is None else rest.replace(stem, _NAMES[stem], 1))


def _and_more(keys: Sequence[str]) -> str:
    return f" and {len(keys) - 1} more" if keys[1:] else ""


def _fused(depth: int) -> dict[str, list[str]]:
    """Return by our name those of the tensors that are one of ours."""
    return {
        f"blocks.{index}.attn.qkv.{kind}": [
            f"{_PREFIX}encoder.layer.{index}.attention.attention.{part}.{kind}" for part in ("query", "key", "value")
        ]
        for index in range(depth)
        for kind in ("weight", "bias")
    }
