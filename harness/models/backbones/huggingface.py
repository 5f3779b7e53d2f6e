"""AST in Hugging Face's files: other names, separate query, key and value, and a `config.json` beside the weights.

Source: the names that `transformers.ASTForAudioClassification` writes, and the defaults of its `ASTConfig`. Its one
`layer_norm_eps`, 1e-12 in the published files, holds for every LayerNorm, that of the head too.
"""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.models.backbones.ast import PATCH, AstGeometry

_PREFIX = "audio_spectrogram_transformer."

_NAMES = {
    "embeddings.cls_token": "class_token",
    "embeddings.distillation_token": "distillation_token",
    "embeddings.position_embeddings": "position",
    "embeddings.patch_embeddings.projection": "patch",
    "encoder.layer": "blocks",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "classifier.layernorm": "head_norm",
    "classifier.dense": "head",
    "layernorm": "norm",
}
"""Their parts of a name and ours, the longer of two that overlap first."""

_QUERY = re.compile(r"(blocks\.\d+)\.attention\.attention\.query\.(weight|bias)")

_GEOMETRY = {
    "embed_dim": ("hidden_size", 768),
    "depth": ("num_hidden_layers", 12),
    "num_heads": ("num_attention_heads", 12),
    "frequency_stride": ("frequency_stride", 10),
    "time_stride": ("time_stride", 10),
    "n_mels": ("num_mel_bins", 128),
    "n_frames": ("max_length", 1024),
    "layer_norm_eps": ("layer_norm_eps", 1e-12),
    "head_eps": ("layer_norm_eps", 1e-12),
}
"""The keys of our numbers in a `config.json`, and `ASTConfig`'s defaults."""

_FIXED: dict[str, tuple[Any, ...]] = {
    "model_type": ("audio-spectrogram-transformer",),
    "hidden_act": ("gelu",),
    "patch_size": (PATCH, [PATCH, PATCH]),
    "qkv_bias": (True,),
}
"""`Ast` builds these values only: a file with others holds another network."""


def is_hugging_face(names: Collection[str]) -> bool:
    """Return whether a file with tensors of these names is one of Hugging Face's."""
    return any(name.startswith(_PREFIX) for name in names)


def read_config(config_file: Path) -> tuple[AstGeometry, tuple[str, ...]]:
    """Return the geometry in a `config.json` and the names of its labels; missing keys take `ASTConfig`'s defaults.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON object, or describes a network that `Ast` cannot build; the message names the key.
    """
    if not config_file.is_file():
        raise FileNotFoundError(f"{config_file}: a file of this name is needed beside the weights, for the geometry")
    try:
        config = json.loads(config_file.read_bytes())
        for key, valid in _FIXED.items():
            if (found := config.get(key, valid[0])) not in valid:
                raise ValueError(f"{key}={found!r}: must be {valid[0]!r}; no other AST can be built here")
        names = config.get("id2label") or {}
        labels = tuple(str(names[index]) for index in sorted(names, key=int))
        values = {ours: config.get(key, default) for ours, (key, default) in _GEOMETRY.items()}
        return AstGeometry(**values, n_source_labels=len(labels) or config.get("num_labels", 2)), labels
    except (ValueError, AttributeError) as error:
        name, equals, rest = str(error).partition("=")
        key = _GEOMETRY.get(name, (name,))[0]
        raise ValueError(f"{config_file}: {key}{equals}{rest}") from error


def from_hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file under our names, query, key and value fused. Unknown names stay."""
    renamed = {_our_name(name): tensor for name, tensor in tensors.items()}
    for query in [found for name in renamed if (found := _QUERY.fullmatch(name))]:
        parts = (query[0].replace("query", part) for part in ("query", "key", "value"))
        fused = [renamed.pop(name) for name in parts if name in renamed]
        renamed[f"{query[1]}.attn.qkv.{query[2]}"] = torch.cat(fused)
    return renamed


def _our_name(name: str) -> str:
    renamed = name.removeprefix(_PREFIX)
    for theirs, ours in _NAMES.items():
        renamed = renamed.replace(theirs, ours)
    return renamed
