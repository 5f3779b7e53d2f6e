"""Checkpoints of AST's original release: a `.pth` with the state of a DataParallel module.

The file records no geometry. Width and depth are read off its tensors, and heads are 64 wide as in DeiT. Strides and
frames follow from the number of position embeddings where only one geometry fits, or else from the user.

Source: Gong, Chung and Glass, "AST: Audio Spectrogram Transformer", Interspeech 2021, and its code: LayerNorm with eps
1e-6 in the blocks and after them (timm's), 1e-5 in the head (torch's); patches over frequency x time.
"""

import math
import re
import reprlib
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from harness.common.text import first_line, summarise
from harness.models.backbones.ast import N_TOKENS, AstGeometry

_HEAD_DIM = 64

_DEPTHS = {192: 12, 384: 12, 768: 12}
"""The number of blocks of the release's networks, by width: DeiT's tiny, small and base."""

_STRIDES = range(4, 17)
"""Equal in frequency and time, as in the release."""

_N_FRAMES = (1024, 128, 512)  # AudioSet, Speech Commands, ESC-50

_NAMES = {
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
"""DeiT's two ImageNet heads, which AST leaves in place and does not use."""


def from_release(
    file: Path, state: Mapping[str, Tensor], asked: Mapping[str, int]
) -> tuple[AstGeometry, dict[str, Tensor]]:
    """Return the geometry and the tensors of a release's file, under the names of `Ast.state_dict()`.

    `asked` are frames and strides that the user gave.

    Raises:
        ValueError: the file holds something else, a tensor twice, lacks blocks, or its position embeddings fit no
            geometry or several.
    """
    tensors = _renamed(file, state)
    sized = _sized(file, tensors)
    return _positioned(file, sized, n_patches=tensors["position"].shape[-2] - N_TOKENS, asked=asked), tensors


def _renamed(file: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under our names. Unknown names stay, and `check_fit` refuses them."""
    renamed: dict[str, Tensor] = {}
    name_of: dict[str, str] = {}
    for name, tensor in state.items():
        key = name.removeprefix("module.")
        if key.startswith(_UNUSED):
            continue
        stem = next((stem for stem in _NAMES if key.startswith(stem)), "")
        ours = _NAMES.get(stem, "") + key.removeprefix(stem)
        if (first := name_of.setdefault(ours, name)) != name:
            raise ValueError(f"{file}: {first} and {name} name the same tensor; save it under one of them")
        renamed[ours] = tensor
    return renamed


def _sized(file: Path, tensors: Mapping[str, Tensor]) -> AstGeometry:
    """Return a geometry with the file's width, depth and labels."""
    needed = ("class_token", "position", "head.weight")
    if missing := [key for key in needed if key not in tensors]:
        raise ValueError(f"{file}: missing {', '.join(missing)}, so it is not AST's original release")
    if odd := [key for key in needed if tensors[key].ndim < 2]:
        raise ValueError(f"{file}: {odd[0]} is {tuple(tensors[odd[0]].shape)}, so it is not AST's original release")
    dim = tensors["class_token"].shape[-1]
    blocks = {int(found[1]) for key in tensors if (found := re.match(r"blocks\.(\d+)\.", key))}
    try:
        sized = AstGeometry(
            embed_dim=dim,
            depth=max(blocks, default=0) + 1,
            num_heads=max(1, dim // _HEAD_DIM),
            n_source_labels=tensors["head.weight"].shape[0],
        )
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if (depth := _DEPTHS.get(dim, sized.depth)) != sized.depth:
        raise ValueError(f"{file}: {sized.depth} blocks; the release's network of width {dim} has {depth}")
    return sized


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
    if fits:
        found = " and ".join(f"@frames={g.n_frames},stride={g.frequency_stride}x{g.time_stride}" for g in fits)
        raise ValueError(f"{file}: {n_patches} position embeddings fit {found}; add one of these to the path")
    frames = ", ".join(map(str, _N_FRAMES))
    raise ValueError(
        f"{file}: {n_patches} position embeddings fit no stride from {_STRIDES[0]} to {_STRIDES[-1]} over 128 mel bins "
        f"and {frames} frames; add the geometry to the path: @frames=F,stride=FREQUENCYxTIME"
    )


def read_state(file: Path) -> Mapping[str, Tensor]:
    """Return the named tensors of a file; nothing but tensors is unpickled.

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    try:
        with file.open("rb") as opened, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats that are refused here
            state = torch.load(opened, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise any
        raise ValueError(f"{file}: {_reason(error)}") from None
    if problem := _problem(state):
        raise ValueError(f"{file}: {problem}")
    checked: Mapping[str, Tensor] = state
    return checked


def _reason(error: Exception) -> str:
    """Return why a file cannot be unpickled; PyTorch's own words advise to run whatever it holds."""
    if refused := re.search(r"GLOBAL (\S+) ", str(error)):
        return f"holds more than tensors, {refused[1]!r}, which is not unpickled; save the `state_dict()` alone"
    why = "" if "weights_only" in str(error) else f" ({first_line(error)})"
    return f"not a whole checkpoint of tensors alone{why}"


def _problem(state: object) -> str:
    """Return why an unpickled object is no mapping of names to plain tensors; "" if it is one."""
    if not isinstance(state, Mapping):
        return f"holds no mapping of names to tensors, but a {type(state).__name__}"
    if odd := [name for name in state if not isinstance(name, str)]:
        return f"the names of tensors must be strings, not {summarise(map(reprlib.repr, odd))}"
    if others := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        nested = [reprlib.repr(name) for name in others if isinstance(state[name], Mapping)]
        advice = f"; save one of these alone: {summarise(nested)}" if nested else ""
        return f"holds no mapping of names to tensors: {summarise(map(reprlib.repr, others))} no tensor{advice}"
    plain = (value.layout == torch.strided and not value.is_meta and not value.is_nested for value in state.values())
    if odd := [reprlib.repr(name) for name, is_plain in zip(state, plain, strict=True) if not is_plain]:
        return f"{summarise(odd)} is sparse, nested or without values; save plain tensors"
    return ""
