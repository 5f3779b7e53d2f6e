"""AST in Hugging Face's files: other names, separate query, key and value, and a `config.json` beside the weights.

Source: the names that `transformers.ASTForAudioClassification` writes, and the defaults of its `ASTConfig`. Its one
`layer_norm_eps`, 1e-12 in the published files, holds for every LayerNorm, that of the head too.
"""

import json
import re
import reprlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.models.backbones.ast import PATCH, AstGeometry, check_geometry

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
"""`Ast` builds these values only: a file with others holds another network."""


def is_hugging_face(file: Path, names: Collection[str]) -> bool:
    """Return whether a file with tensors of these names is one of Hugging Face's.

    Raises:
        ValueError: it is one, of a network without a source head.
    """
    if _NAMES["distillation_token"].removeprefix(_PREFIX) in names:
        raise ValueError(
            f"{file}: an ASTModel, which has no source head; save an ASTForAudioClassification, since the mappers fc "
            "and many_to_one read that head's logits"
        )
    return any(name.startswith(_PREFIX) for name in names)


def read_config(config_file: Path) -> tuple[AstGeometry, tuple[str, ...]]:
    """Return the geometry in a `config.json` and the names of its labels; missing keys take `ASTConfig`'s defaults.

    Dropout and initialisation are not read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON object, or describes a network that `Ast` cannot build; the message names the key.
    """
    if not config_file.is_file():
        raise FileNotFoundError(f"{config_file}: a file of this name is needed beside the weights, for the geometry")
    try:
        config = parse_object(config_file.read_bytes())
        return _geometry(config), _labels(config)
    except ValueError as error:
        raise ValueError(f"{config_file}: {error}") from error


def _geometry(config: Mapping[str, Any]) -> AstGeometry:
    for key, valid in _FIXED.items():
        found = config.get(key, valid[0])
        if not any(type(found) is type(value) and found == value for value in valid):
            rule = " or ".join(map(repr, valid))
            raise ValueError(f"{key}={reprlib.repr(found)}: must be {rule}; no other AST can be built here")
    given = {**_DEFAULTS, **config}
    values = {field: given[key] for field, key in _GEOMETRY.items()}
    values["n_source_labels"] = len(_labels(config)) or given["num_labels"]
    check_geometry(values, called={**_GEOMETRY, "n_source_labels": "num_labels"})
    inner, wanted = given["intermediate_size"], 4 * given["hidden_size"]
    if type(inner) is not int or inner != wanted:
        raise ValueError(f"intermediate_size={reprlib.repr(inner)}: must be 4 times hidden_size, {wanted}")
    return AstGeometry(**values)


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names in `id2label`, by index; none if it is missing."""
    names, number = config.get("id2label"), config.get("num_labels")
    if names is None:
        return ()
    if not isinstance(names, dict) or set(names) != set(map(str, range(len(names)))) or not names:
        raise ValueError(f"id2label={reprlib.repr(names)}: must be an object that names labels 0, 1, ...")
    if number is not None and number != len(names):
        raise ValueError(f"num_labels={reprlib.repr(number)}: must be {len(names)}, the number of names in id2label")
    return tuple(str(names[str(index)]) for index in range(len(names)))


def from_hugging_face(
    ours: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], Callable[[Mapping[str, Tensor]], dict[str, Tensor]]]:
    """Return the tensors that a file of this AST holds, and the function that renames and fuses those it does hold.

    Check the file's tensors against the first before calling the second: a query and a key of wrong shapes might have
    the right one once they are fused.
    """
    names = {key: _names_of(key) for key in ours}
    theirs = {
        name: part
        for key, tensor in ours.items()
        for name, part in zip(names[key], tensor.chunk(len(names[key])), strict=True)
    }

    def fused(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            key: tensors[first] if not others else torch.cat([tensors[name] for name in (first, *others)])
            for key, (first, *others) in names.items()
        }

    return theirs, fused


def _names_of(ours: str) -> list[str]:
    """Return the names in their files of one of our tensors; our fused query, key and value are three of theirs."""
    if block := re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", ours):
        index, stem, kind = block.groups()
        return [f"{_PREFIX}encoder.layer.{index}.{name}.{kind}" for name in _NAMES_IN_BLOCK[stem]]
    stem, dot, kind = ours.partition(".")
    return [f"{_NAMES[stem]}{dot}{kind}"]


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object in a text or its UTF-8 bytes.

    Raises:
        ValueError: there is none.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON object ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"not a JSON object (a {type(found).__name__})")
    return found
