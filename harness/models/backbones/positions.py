"""An AST for spectrograms of another length than those it was trained on, or with other strides.

Only its position embeddings depend on the grid of patches. They are fitted as the original release fits those of its
AudioSet checkpoint (along time) and those of ImageNet's (along both axes): fewer patches take theirs from the middle of
the grid, more patches interpolate.

Source: Gong, Chung and Glass, "AST: Audio Spectrogram Transformer", Interspeech 2021, section 2.2, and its code.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from harness.models.backbones.ast import Ast

N_TOKENS = 2
"""The class and the distillation token come before the patches."""


def refitted(
    model: Ast, *, n_frames: int | None = None, frequency_stride: int | None = None, time_stride: int | None = None
) -> Ast:
    """Return the AST for another grid of patches, its weights the same; itself if the grid is the same.

    Raises:
        ValueError: there can be no such geometry.
    """
    before = model.geometry
    geometry = replace(
        before,
        n_frames=before.n_frames if n_frames is None else n_frames,
        frequency_stride=before.frequency_stride if frequency_stride is None else frequency_stride,
        time_stride=before.time_stride if time_stride is None else time_stride,
    )
    if geometry == before:
        return model
    with torch.device("meta"):
        fitted = Ast(geometry)
    position = fit_positions(model.position.detach(), before.grid, wanted=geometry.grid)
    fitted.load_state_dict({**model.state_dict(), "position": position}, assign=True)
    return fitted


def fit_positions(
    position: Float[Tensor, "1 token dim"], grid: tuple[int, int], *, wanted: tuple[int, int]
) -> Float[Tensor, "1 fitted dim"]:
    """Return the position embeddings of a `wanted` grid, those of the class and the distillation token unchanged.

    A grid is the number of patches along frequency and along time.
    """
    table = position[:, N_TOKENS:].transpose(1, 2).reshape(1, -1, *grid)
    for axis in (1, 0):  # time first, as in the release
        table = _fit_axis(table, axis=axis, wanted=wanted[axis])
    return torch.cat([position[:, :N_TOKENS], table.flatten(2).transpose(1, 2)], dim=1)


def _fit_axis(
    table: Float[Tensor, "1 dim row column"], *, axis: int, wanted: int
) -> Float[Tensor, "1 dim newrow newcolumn"]:
    found = table.shape[2 + axis]
    if wanted <= found:
        return table.narrow(2 + axis, found // 2 - wanted // 2, wanted)
    size = [*table.shape[2:]]
    size[axis] = wanted
    return F.interpolate(table, size=size, mode="bilinear")
