"""AST as Hugging Face's files hold it: other names, query, key and value apart, and a `config.json` beside the weights.

Source: the names that `transformers.ASTForAudioClassification` writes. Its one `layer_norm_eps`, 1e-12 in the published
files, holds for every LayerNorm, that of the head too.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from harness.models.ast import AstGeometry

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


def is_hugging_face(names: Iterable[str]) -> bool:
    """Return whether a file with tensors of these names is one of Hugging Face's."""
    return any(name.startswith(_PREFIX) for name in names)


def read_config(config_file: Path) -> AstGeometry:
    """Return the geometry that a `config.json` tells of.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON object, lacks a key, or tells of a geometry that no AST can have.
    """
    if not config_file.exists():
        raise FileNotFoundError(f"{config_file}: needed beside the weights, for the geometry")
    try:
        config = json.loads(config_file.read_text())
        labels = config.get("id2label")
        geometry = {field: config[key] for field, key in _GEOMETRY.items()}
    except KeyError as error:
        raise ValueError(f"{config_file}: lacks the key {error.args[0]}") from error
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{config_file}: not a JSON object ({error})") from error
    try:
        return AstGeometry(n_source_labels=len(labels) if labels else config.get("num_labels", 2), **geometry)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{config_file}: {error}") from error


def from_hugging_face(file: Path, tensors: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Return the tensors under our names, with query, key and value fused.

    Raises:
        ValueError: one that has to be fused, or one of the head's, is missing.
    """
    needed = [*_HEAD, *(key for keys in _fused(depth).values() for key in keys)]
    if missing := [key for key in needed if key not in tensors]:
        raise ValueError(f"{file}: missing {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""))
    renamed = {ours: tensors[theirs] for theirs, ours in _HEAD.items()}
    for key, tensor in tensors.items():
        inner = key.removeprefix(_PREFIX)
        if inner == key or ".attention.attention." in key:
            continue
        prefix, rest = "", inner
        if block := re.match(r"encoder\.layer\.(\d+)\.(.*)", inner):
            prefix, rest = f"blocks.{block[1]}.", block[2]
        stem = next((stem for stem in _NAMES if rest == stem or rest.startswith(f"{stem}.")), None)
        renamed[prefix + (rest if stem is None else rest.replace(stem, _NAMES[stem], 1))] = tensor
    return renamed | {ours: torch.cat([tensors[key] for key in keys]) for ours, keys in _fused(depth).items()}


def _fused(depth: int) -> dict[str, list[str]]:
    """Return by our name those of the tensors that are one of ours."""
    return {
        f"blocks.{index}.attn.qkv.{kind}": [
            f"{_PREFIX}encoder.layer.{index}.attention.attention.{part}.{kind}" for part in ("query", "key", "value")
        ]
        for index in range(depth)
        for kind in ("weight", "bias")
    }
