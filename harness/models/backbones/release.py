"""Checkpoints of AST's original release: a `.pth` with the state of a DataParallel module.

The file holds no geometry. Width and depth are read off its tensors, heads are 64 wide as in DeiT, and the stride is
the one whose grid of patches has as many as there are position embeddings.

Source: Gong, Chung and Glass, "AST: Audio Spectrogram Transformer", Interspeech 2021, and its code: LayerNorm with eps
1e-6 in the blocks and after them (timm's), 1e-5 in the head (torch's); patches over frequency x time.
"""

import re
import reprlib
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from harness.common.text import few, first_line
from harness.models.backbones.ast import AstGeometry

_HEAD_DIM = 64

_DEPTHS = {192: 12, 384: 12, 768: 12}
"""How many blocks the release's networks have, by width: DeiT's tiny, small and base."""

_STRIDES = range(4, 17)

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


def from_release(file: Path, state: Mapping[str, Tensor]) -> tuple[AstGeometry, dict[str, Tensor]]:
    """Return the geometry and the tensors of a release's file, under the names of `Ast.state_dict()`.

    Raises:
        ValueError: the file holds something else, a tensor twice, lacks blocks, or its position embeddings fit no grid.
    """
    tensors = _renamed(file, state)
    return _geometry(file, tensors), tensors


def _renamed(file: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under our names; those of unknown names keep theirs, and are refused later."""
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


def _geometry(file: Path, tensors: Mapping[str, Tensor]) -> AstGeometry:
    needed = ("class_token", "position", "head.weight")
    if missing := [key for key in needed if key not in tensors]:
        raise ValueError(f"{file}: missing {', '.join(missing)}, so it is not AST's original release")
    if odd := [key for key in needed if tensors[key].ndim < 2]:
        raise ValueError(f"{file}: {odd[0]} is {tuple(tensors[odd[0]].shape)}, so it is not AST's original release")
    dim = tensors["class_token"].shape[-1]
    blocks = {int(found[1]) for key in tensors if (found := re.match(r"blocks\.(\d+)\.", key))}
    n_patches = tensors["position"].shape[-2] - 2
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
    for n_frames in _N_FRAMES:
        for stride in _STRIDES:
            geometry = replace(sized, frequency_stride=stride, time_stride=stride, n_frames=n_frames)
            rows, columns = geometry.grid
            if rows * columns == n_patches:
                return geometry
    raise ValueError(
        f"{file}: {n_patches} position embeddings fit no stride from {_STRIDES[0]} to {_STRIDES[-1]} over 128 mel bins "
        f"and {', '.join(map(str, _N_FRAMES))} frames"
    )


def read_state(file: Path) -> Mapping[str, Tensor]:
    """Return the named tensors of a file; nothing but tensors is unpickled.

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    try:
        with file.open("rb") as opened, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats that are refused here
            state = torch.load(opened, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise any
        raise ValueError(f"{file}: {_in_our_words(error)}") from None
    if problem := _problem(state):
        raise ValueError(f"{file}: {problem}")
    checked: Mapping[str, Tensor] = state
    return checked


def _in_our_words(error: Exception) -> str:
    """Say what is wrong with a file that cannot be unpickled; PyTorch's own words advise to run whatever it holds."""
    if refused := re.search(r"GLOBAL (\S+) ", str(error)):
        return f"holds more than tensors, {refused[1]!r}, which is not unpickled; save the `state_dict()` alone"
    if "Unsupported operand" in str(error):
        why = ", or of another pickle protocol than `torch.save` writes by default"
    else:
        why = "" if "weights_only" in str(error) else f" ({first_line(error)})"
    return f"not a whole checkpoint of tensors alone{why}"


def _problem(state: object) -> str:
    """Say why what was unpickled are no named tensors; "" if they are."""
    if not isinstance(state, Mapping):
        return f"holds no mapping of names to tensors, but a {type(state).__name__}"
    if odd := [reprlib.repr(name) for name in state if not isinstance(name, str)]:
        return f"the names of tensors must be strings, not {few(odd)}"
    if others := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        are = "is no tensor" if len(others) == 1 else "are no tensors"
        return f"holds no mapping of names to tensors: {few(map(reprlib.repr, others))} {are}{_advice(state)}"
    if odd := [reprlib.repr(name) for name, value in state.items() if not _is_plain(value)]:
        return f"{few(odd)} is sparse, nested or without values; save plain tensors"
    return ""


def _advice(state: Mapping[str, object]) -> str:
    """Say which one entry is such a mapping, as in what a training run saves; "" if none is or several are."""
    nested = [name for name, value in state.items() if _is_state(value)]
    return f"; such a mapping is under {reprlib.repr(nested[0])}: save that alone" if len(nested) == 1 else ""


def _is_state(value: object) -> bool:
    are_tensors = isinstance(value, Mapping) and {isinstance(tensor, Tensor) for tensor in value.values()}
    return are_tensors == {True}


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_nested
