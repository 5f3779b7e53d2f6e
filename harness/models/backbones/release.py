"""Checkpoints of AST's original release: a `.pth` with the state of a DataParallel module.

The file records no geometry. Width and depth are read off its tensors, and heads are 64 wide as in DeiT. Strides and
frames follow from the number of position embeddings where only one geometry fits, or else from the user.

Source: Gong, Chung and Glass, "AST: Audio Spectrogram Transformer", Interspeech 2021, and its code: LayerNorm with eps
1e-6 in the blocks and after them (timm's), 1e-5 in the head (torch's); patches over frequency x time.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from harness.models.backbones.ast import N_TOKENS, AstGeometry

_HEAD_DIM = 64

_MODULE = "module."

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

    `asked` are frames and strides that the user gave. Unknown names stay.

    Raises:
        ValueError: the file holds something else, lacks blocks, or its position embeddings fit no geometry or several.
    """
    tensors = {_our_name(name): tensor for name, tensor in state.items() if not _is_unused(name)}
    if missing := [key for key in ("class_token", "position", "head.weight") if key not in tensors]:
        raise ValueError(f"{file}: missing {', '.join(missing)}, so it is not AST's original release")
    dim = tensors["class_token"].shape[-1]
    depth = 1 + max((int(found[1]) for key in tensors if (found := re.match(r"blocks\.(\d+)\.", key))), default=0)
    if depth != _DEPTHS.get(dim, depth):
        raise ValueError(f"{file}: {depth} blocks; the release's network of width {dim} has {_DEPTHS[dim]}")
    sized = AstGeometry(
        embed_dim=dim,
        depth=depth,
        num_heads=max(1, dim // _HEAD_DIM),
        n_source_labels=len(tensors["head.weight"]),
    )
    return _positioned(file, sized, n_patches=tensors["position"].shape[-2] - N_TOKENS, asked=asked), tensors


def _is_unused(name: str) -> bool:
    return name.removeprefix(_MODULE).startswith(_UNUSED)


def _our_name(name: str) -> str:
    key = name.removeprefix(_MODULE)
    stem = next((stem for stem in _NAMES if key.startswith(stem)), "")
    return _NAMES.get(stem, "") + key.removeprefix(stem)


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
