"""AST in the files of others: Hugging Face's, and those of the original release. Each has its own names of tensors.

Hugging Face's have separate query, key and value, and a `config.json` beside the weights. Their one `layer_norm_eps`,
1e-12 in the published files, holds for every LayerNorm, that of the head too.

Those of the release are a `.pth` with the state of a DataParallel module, which records no geometry. Width and depth
are read off its tensors, and heads are 64 wide as in DeiT. Strides and frames follow from the number of position
embeddings where only one geometry fits, or else from the user.

Source: the names that `transformers.ASTForAudioClassification` writes, and the defaults of its `ASTConfig`. Gong, Chung
and Glass, "AST: Audio Spectrogram Transformer", Interspeech 2021, and its code: LayerNorm with eps 1e-6 in the blocks
and after them (timm's), 1e-5 in the head (torch's); patches over frequency x time.
"""

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.models.backbones.ast import N_TOKENS, PATCH, AstGeometry

_PREFIX = "audio_spectrogram_transformer."

_HUGGING_FACE_NAMES = {
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
"""Parts of a name and ours, the longer of two that overlap first."""

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
    renamed = {_name_from_hugging_face(name): tensor for name, tensor in tensors.items()}
    for query in [found for name in renamed if (found := _QUERY.fullmatch(name))]:
        parts = (query[0].replace("query", part) for part in ("query", "key", "value"))
        fused = [renamed.pop(name) for name in parts if name in renamed]
        renamed[f"{query[1]}.attn.qkv.{query[2]}"] = torch.cat(fused)
    return renamed


def _name_from_hugging_face(name: str) -> str:
    renamed = name.removeprefix(_PREFIX)
    for theirs, ours in _HUGGING_FACE_NAMES.items():
        renamed = renamed.replace(theirs, ours)
    return renamed


_HEAD_DIM = 64

_WIDTHS, _DEPTH = (192, 384, 768), 12
"""The release's networks: DeiT's tiny, small and base, all of one depth."""

_STRIDES = range(4, 17)
"""Equal in frequency and time, as in the release."""

_N_FRAMES = (1024, 128, 512)  # AudioSet, Speech Commands, ESC-50

_RELEASE_NAMES = {
    "v.cls_token": "class_token",
    "v.dist_token": "distillation_token",
    "v.pos_embed": "position",
    "v.patch_embed.proj.": "patch.",
    "v.blocks.": "blocks.",
    "v.norm.": "norm.",
    "mlp_head.0.": "head_norm.",
    "mlp_head.1.": "head.",
}

_UNUSED = ("v.head.", "v.head_dist.")
"""DeiT's two ImageNet heads, which AST keeps and does not use."""


def from_release(
    file: Path, state: Mapping[str, Tensor], asked: Mapping[str, int]
) -> tuple[AstGeometry, dict[str, Tensor]]:
    """Return the geometry and the tensors of a release's file, under the names of `Ast.state_dict()`.

    `asked` are frames and strides that the user gave. Unknown names stay.

    Raises:
        ValueError: the file holds something else, lacks blocks, or its position embeddings fit no geometry or several.
    """
    named = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    tensors = {_name_from_release(name): tensor for name, tensor in named.items() if not name.startswith(_UNUSED)}
    if missing := [key for key in ("class_token", "position", "head.weight") if key not in tensors]:
        raise ValueError(f"{file}: missing {', '.join(missing)}, so it is not AST's original release")
    dim = tensors["class_token"].shape[-1]
    depth = 1 + max((int(found[1]) for key in tensors if (found := re.match(r"blocks\.(\d+)\.", key))), default=0)
    if dim in _WIDTHS and depth != _DEPTH:
        raise ValueError(f"{file}: {depth} blocks; the release's network of width {dim} has {_DEPTH}")
    sized = AstGeometry(
        embed_dim=dim,
        depth=depth,
        num_heads=max(1, dim // _HEAD_DIM),
        n_source_labels=len(tensors["head.weight"]),
    )
    return _positioned(file, sized, n_patches=tensors["position"].shape[-2] - N_TOKENS, asked=asked), tensors


def _name_from_release(name: str) -> str:
    stem = next((stem for stem in _RELEASE_NAMES if name.startswith(stem)), "")
    return _RELEASE_NAMES.get(stem, "") + name.removeprefix(stem)


def _positioned(file: Path, sized: AstGeometry, *, n_patches: int, asked: Mapping[str, int]) -> AstGeometry:
    """Return the one geometry with this number of patches.

    Candidates are the release's frames and square strides, and those asked for. Where several fit, strides that were
    asked for decide; frames alone do not, since they may also ask for positions to be refitted.
    """
    strides = [(stride, stride) for stride in _STRIDES]
    if "time_stride" in asked:
        strides.append((asked["frequency_stride"], asked["time_stride"]))
    candidates = [
        replace(sized, n_frames=n_frames, frequency_stride=rows, time_stride=columns)
        for n_frames in dict.fromkeys((*_N_FRAMES, asked.get("n_frames", _N_FRAMES[0])))
        for rows, columns in dict.fromkeys(strides)
    ]
    fits = [each for each in candidates if math.prod(each.grid) == n_patches]
    if "time_stride" in asked:
        fits = [each for each in fits if replace(each, **asked) == each] or fits
    if len(fits) == 1:
        return fits[0]
    found = " and ".join(f"@frames={g.n_frames},stride={g.frequency_stride}x{g.time_stride}" for g in fits)
    raise ValueError(
        f"{file}: {n_patches} position embeddings fit {found or 'no geometry of the release'}; add "
        f"{'one of these' if fits else 'the geometry, @frames=F,stride=FREQUENCYxTIME,'} to the path"
    )


def read_state(file: Path) -> Mapping[str, Tensor]:
    """Return the named tensors of a file; nothing but tensors is unpickled.

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    try:
        with file.open("rb") as opened:  # from a path, torch.load would go by the suffix
            state = torch.load(opened, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise any; PyTorch's own words advise to run whatever it holds
        refused = re.search(r"GLOBAL (\S+) ", str(error))
        reason = f"holds {refused[1]!r}, which is not unpickled" if refused else "damaged"
        raise ValueError(f"{file}: {reason}; save the `state_dict()` alone") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{file}: holds no mapping of names to tensors; save the `state_dict()` alone")
    checked: Mapping[str, Tensor] = state
    return checked
