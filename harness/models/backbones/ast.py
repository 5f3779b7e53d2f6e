"""The Audio Spectrogram Transformer, built on timm's blocks.

Conventions: spectrograms are `clip frame mel`, log-mel, already normalised; tokens run along time first, then along
frequency, after the class token and the distillation token.

Only the position embeddings depend on the grid of patches. For spectrograms of another length, or other strides, a
smaller grid takes the middle of the table and a larger one interpolates. The original release does the same to its
AudioSet checkpoint (along time) and to ImageNet's (both axes).

Source: Gong, Chung and Glass, "AST: Audio Spectrogram Transformer", Interspeech 2021, section 2.2, and its code.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from harness.common.records import field_types
from harness.config.checks import above_zero, at_least, of_type
from harness.features.log_mel import FrontEnd
from harness.models.checkpointing import clip_by_clip, is_large_on_cpu, recompute_in_backward

PATCH = 16

N_TOKENS = 2
"""The class and the distillation token, before the patches."""


@dataclass(frozen=True)
class AstGeometry:
    """All numbers that shape an AST, and the timing of the spectrograms that it was trained on.

    Strides are in mel bins and frames. `layer_norm_eps` is that of the blocks, `head_eps` that of the LayerNorm in
    the source head: published files differ in both.
    """

    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    frequency_stride: int = 10
    time_stride: int = 10
    n_mels: int = 128
    n_frames: int = 1024
    window_ms: float = 25.0
    hop_ms: float = 10.0
    n_source_labels: int = 527
    layer_norm_eps: float = 1e-6
    head_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name, kind in field_types(AstGeometry).items():
            value = getattr(self, name)
            of_type(name, value, kind)
            above_zero(name, value)
        for name in ("n_mels", "n_frames"):
            at_least(name, getattr(self, name), PATCH)
        if self.embed_dim % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads}: must divide embed_dim={self.embed_dim}")
        _ = self.front_end  # which checks the timing

    @property
    def front_end(self) -> FrontEnd:
        """Return the front end whose spectrograms this AST takes."""
        return FrontEnd(n_mels=self.n_mels, n_frames=self.n_frames, window_ms=self.window_ms, hop_ms=self.hop_ms)

    @property
    def grid(self) -> tuple[int, int]:
        """Return the number of patches along frequency and along time."""
        return (self.n_mels - PATCH) // self.frequency_stride + 1, (self.n_frames - PATCH) // self.time_stride + 1


GEOMETRIES: dict[str, AstGeometry] = {
    "ast-base384": AstGeometry(),
    **{f"ast-base384-stride{n}": AstGeometry(frequency_stride=n, time_stride=n) for n in (12, 14, 16)},
    "ast-nano": AstGeometry(
        embed_dim=128,
        depth=4,
        num_heads=4,
        frequency_stride=16,
        time_stride=16,
        n_frames=256,  # the same 10.24 s in a quarter of the frames
        window_ms=50.0,
        hop_ms=40.0,
        n_source_labels=129,
    ),
}


class Ast(nn.Module):
    """An AST with its source head; random weights until a checkpoint is loaded.

    `source_labels` names the labels of the source head; their indices by default.
    """

    def __init__(self, geometry: AstGeometry, source_labels: Sequence[str] = ()) -> None:
        super().__init__()
        self.geometry, self.front_end = geometry, geometry.front_end
        self.input_shape, self.embed_dim = (geometry.n_frames, geometry.n_mels), geometry.embed_dim
        self.settings: Mapping[str, Any] = asdict(geometry)
        self.source_labels = tuple(source_labels or map(str, range(geometry.n_source_labels)))
        if len(self.source_labels) != geometry.n_source_labels:
            raise ValueError(f"{len(self.source_labels)} label names: must be {geometry.n_source_labels}")
        dim = geometry.embed_dim
        self.patch = nn.Conv2d(1, dim, PATCH, stride=(geometry.frequency_stride, geometry.time_stride))
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, dim))
        rows, columns = geometry.grid
        self.position = nn.Parameter(torch.zeros(1, rows * columns + N_TOKENS, dim))
        norm: Any = partial(nn.LayerNorm, eps=geometry.layer_norm_eps)
        self.blocks = nn.ModuleList(
            Block(dim, geometry.num_heads, qkv_bias=True, norm_layer=norm) for _ in range(geometry.depth)
        )
        self.norm = nn.LayerNorm(dim, eps=geometry.layer_norm_eps)
        self.head_norm = nn.LayerNorm(dim, eps=geometry.head_eps)
        self.head = nn.Linear(dim, geometry.n_source_labels)
        for parameter in (self.class_token, self.distillation_token, self.position):
            nn.init.trunc_normal_(parameter, std=0.02)

    def tokens(self, spectrogram: Float[Tensor, "clip frame mel"]) -> Float[Tensor, "clip token dim"]:
        """Return the tokens that enter the first block.

        Raises:
            ValueError: the spectrogram is not of the geometry's size.
        """
        if (found := tuple(spectrogram.shape[1:])) != self.input_shape:
            raise ValueError(f"spectrogram of frames x mels {found}: this AST takes {self.input_shape}")
        geometry = self.geometry
        views = spectrogram.transpose(1, 2).unfold(1, PATCH, geometry.frequency_stride)
        views = views.unfold(2, PATCH, geometry.time_stride)
        # the convolution `self.patch`, as one matrix product: its gradient with respect to the input is 5 times as fast
        patches = F.linear(views.flatten(3).flatten(1, 2), self.patch.weight.flatten(1), self.patch.bias)
        leading = torch.cat([self.class_token, self.distillation_token], dim=1).expand(len(patches), -1, -1)
        return torch.cat([leading, patches], dim=1) + self.position

    def embed(self, spectrogram: Float[Tensor, "clip frame mel"]) -> Float[Tensor, "clip dim"]:
        """Return the mean of the class and distillation tokens after the last LayerNorm.

        On a CPU, a large AST takes one clip at a time.
        """
        if self.saves_memory(spectrogram):
            return clip_by_clip(partial(self._embed, recomputes=True), spectrogram)
        return self._embed(spectrogram)

    def saves_memory(self, spectrogram: Float[Tensor, "clip frame mel"]) -> bool:
        """Return whether this AST is large and the batch on a CPU."""
        return is_large_on_cpu(spectrogram, bytes_per_clip=self.position.nbytes)

    def _embed(
        self, spectrogram: Float[Tensor, "clip frame mel"], *, recomputes: bool = False
    ) -> Float[Tensor, "clip dim"]:
        hidden = self.tokens(spectrogram)
        for block in (*self.blocks[:-1], partial(_first_two, self.blocks[-1])):
            hidden = recompute_in_backward(block, hidden) if recomputes else block(hidden)
        normed: Tensor = self.norm(hidden)
        return normed.mean(dim=1)

    def logits(self, embedding: Float[Tensor, "clip dim"]) -> Float[Tensor, "clip source"]:
        """Return the source head's logits of an embedding."""
        logits: Tensor = self.head(self.head_norm(embedding))
        return logits

    def source_logits(self, spectrogram: Float[Tensor, "clip frame mel"]) -> Float[Tensor, "clip source"]:
        """Return the logits of the labels this AST was pre-trained on."""
        return self.logits(self.embed(spectrogram))

    def freeze(self) -> "Ast":
        """Switch to evaluation mode and take the gradients away from all parameters; return itself."""
        return self.eval().requires_grad_(False)

    def trainable_copy(self) -> "Ast":
        """Return a copy without the source head, all of whose parameters learn."""
        copied = copy.deepcopy(self).requires_grad_(True)
        del copied.head_norm, copied.head
        return copied


def _first_two(block: Any, hidden: Float[Tensor, "clip token dim"]) -> Float[Tensor, "clip 2 dim"]:
    """Return the first two tokens of `block(hidden)`: nothing reads the others of the last block."""
    attention, dim = block.attn, hidden.shape[-1]
    normed = block.norm1(hidden)
    weight, bias = attention.qkv.weight, attention.qkv.bias
    query = F.linear(normed[:, :2], weight[:dim], bias[:dim])
    key, value = F.linear(normed, weight[dim:], bias[dim:]).chunk(2, dim=-1)
    query, key, value = (x.reshape(*x.shape[:2], attention.num_heads, -1).transpose(1, 2) for x in (query, key, value))
    attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    kept: Tensor = hidden[:, :2] + attention.proj(attended)
    mixed: Tensor = block.mlp(block.norm2(kept))
    return kept + mixed


def refitted(model: Ast, **changes: int) -> Ast:
    """Return the AST with other frames or strides and the same weights, positions refitted.

    Raises:
        ValueError: no AST can have such a geometry.
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
