"""An AST for spectrograms of another length than those it was trained on, or with other strides.

Only the position embeddings depend on the grid of patches. A smaller grid takes the middle of the table, a larger one
interpolates. The original release does the same to its AudioSet checkpoint (along time) and to ImageNet's (both axes).

Source: Gong, Chung and Glass, "AST: Audio Spectrogram Transformer", Interspeech 2021, section 2.2, and its code.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from harness.models.backbones.ast import N_TOKENS, Ast


def refitted(model: Ast, **changes: int) -> Ast:
    """Return the AST with these numbers of its geometry changed (frames, strides), its weights kept.

    Raises:
        ValueError: there can be no such geometry.
    """
    geometry = replace(model.geometry, **changes)
    if geometry == model.geometry:
        return model
    with torch.device("meta"):
        fitted = Ast(geometry, model.source_labels)
    position = fit_positions(model.position.detach(), model.geometry.grid, wanted=geometry.grid)
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
