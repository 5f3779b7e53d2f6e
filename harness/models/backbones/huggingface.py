"""AST as Hugging Face's files hold it: other names, query, key and value apart, and a `config.json` beside the weights.

Source: the names that `transformers.ASTForAudioClassification` writes, and the defaults of its `ASTConfig`. Its one
`layer_norm_eps`, 1e-12 in the published files, holds for every LayerNorm, that of the head too.
"""

import json
import re
import reprlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.models.backbones.ast import PATCH, AstGeometry, check_geometry
from harness.models.backbones.weight_files import check_fit

_PREFIX = "audio_spectrogram_transformer."

_NAMES = {
    "class_token": f"{_PREFIX}embeddings.cls_token",
    "distillation_token": f"{_PREFIX}embeddings.distillation_token",
    "position": f"{_PREFIX}embeddings.position_embeddings",
    "patch": f"{_PREFIX}embeddings.patch_embeddings.projection",
    "norm": f"{_PREFIX}layernorm",
    "head_norm": "classifier.layernorm",
    "head": "classifier.dense",
}

_NAMES_IN_BLOCK = {
    "norm1": ("layernorm_before",),
    "attn.qkv": tuple(f"attention.attention.{part}" for part in ("query", "key", "value")),
    "attn.proj": ("attention.output.dense",),
    "norm2": ("layernorm_after",),
    "mlp.fc1": ("intermediate.dense",),
    "mlp.fc2": ("output.dense",),
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


def is_hugging_face(file: Path, names: Collection[str]) -> bool:
    """Return whether a file with tensors of these names is one of Hugging Face's.

    Raises:
        ValueError: it is, but of a network without a source head.
    """
    if _NAMES["distillation_token"].removeprefix(_PREFIX) in names:
        raise ValueError(
            f"{file}: an ASTModel, which has no source head; save an ASTForAudioClassification, since the mappers fc "
            "and many_to_one read that head's logits"
        )
    return any(name.startswith(_PREFIX) for name in names)


def read_config(config_file: Path) -> AstGeometry:
    """Return the geometry that a `config.json` tells of; what it does not say is as in `ASTConfig`.

    Dropout and how weights were initialised decide nothing here, and are not read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON object, or tells of a network that `Ast` cannot be; the message names the key.
    """
    if not config_file.is_file():
        raise FileNotFoundError(f"{config_file}: a file of this name is needed beside the weights, for the geometry")
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


def from_hugging_face(file: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under our names, with query, key and value fused; `expected` are those that an AST has.

    Raises:
        ValueError: tensors are missing, unknown or of another shape; they are named as the file does. Query, key and
            value of other shapes might fit all the same once they are fused, each in the place of another.
    """
    names = {ours: _names_of(ours) for ours in expected}
    parts = {
        theirs: part
        for ours, tensor in expected.items()
        for theirs, part in zip(names[ours], tensor.chunk(len(names[ours])), strict=True)
    }
    check_fit(file, tensors, parts)
    return {
        ours: tensors[first] if not others else torch.cat([tensors[key] for key in (first, *others)])
        for ours, (first, *others) in names.items()
    }


def _names_of(ours: str) -> list[str]:
    """Return what their files call one of our tensors; query, key and value, of ours one, are three of theirs."""
    if block := re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", ours):
        index, stem, kind = block.groups()
        return [f"{_PREFIX}encoder.layer.{index}.{name}.{kind}" for name in _NAMES_IN_BLOCK[stem]]
    stem, dot, kind = ours.partition(".")
    return [f"{_NAMES[stem]}{dot}{kind}"]


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object that a text, or its UTF-8 bytes, holds.

    Raises:
        ValueError: it holds none; the message says why.
    """
    try:
        found = json.loads(text if isinstance(text, str) else text.decode())
    except RecursionError as error:
        raise ValueError("not a JSON object (nested too deeply)") from error
    except ValueError as error:
        raise ValueError(f"not a JSON object ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"not a JSON object (a {type(found).__name__})")
    return found
