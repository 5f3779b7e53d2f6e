"""Reprogrammers: small learned rewrites of the spectrogram, placed before the frozen backbone.

Each maps `clip frame mel` to the same shape.

Source: Chen and Lerch, "Music Instrument Classification Reprogrammed", MMM 2023, section 3.2.
"""

from dataclasses import asdict
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from harness.common.registry import resolve
from harness.config.components import ACTIVATIONS, NORMS, Reprogrammer
from harness.config.trial import REPROGRAMMERS

Spectrograms = Float[Tensor, "clip frame mel"]


class BatchNorm(nn.BatchNorm2d):
    """torch's BatchNorm, run in contiguous order on a CPU, where its channels-last order is slow and inaccurate.

    In channels-last order the float32 gradient of a U-Net differs from that in float64 by up to 11 %.
    """

    def forward(self, maps: Float[Tensor, "clip channel frame mel"]) -> Float[Tensor, "clip channel frame mel"]:
        """Return the normalised maps, in channels-last order again."""
        if maps.device.type != "cpu":
            return super().forward(maps)
        return super().forward(maps.contiguous()).contiguous(memory_format=torch.channels_last)


def no_norm(_channels: int) -> nn.Module:
    """Return the identity."""
    return nn.Identity()


def instance_norm(channels: int) -> nn.Module:
    """Return an InstanceNorm whose scale and shift are learned."""
    return nn.InstanceNorm2d(channels, affine=True)


class Noise(nn.Module):
    """Adds one learned pattern, the same for every clip."""

    def __init__(self, n_frames: int, n_mels: int, *, shape: str, init_scale: float) -> None:
        super().__init__()
        size = {"full": (n_frames, n_mels), "mel": (1, n_mels), "frame": (n_frames, 1)}[shape]
        self.pattern = nn.Parameter(torch.randn(size) * init_scale)

    def forward(self, spectrogram: Spectrograms) -> Spectrograms:
        """Return the spectrogram plus the pattern."""
        return spectrogram + self.pattern


class Cnn(nn.Module):
    """Convolutions at full resolution, `1 -> width -> ... -> 1` channels."""

    def __init__(
        self,
        *,
        depth: int,
        width: int,
        kernel: int,
        norm: str,
        hidden_activation: str,
        output_activation: str,
        is_residual: bool,
        init_scale: float,
        **_: Any,
    ) -> None:
        super().__init__()
        self.is_residual = is_residual
        channels = [1, *[width] * (depth - 1), 1]
        activations = [*[hidden_activation] * (depth - 1), output_activation]
        self.blocks = nn.Sequential(
            *(
                _conv_block(*pair, kernel=kernel, norm=norm, activation=activation)
                for pair, activation in zip(pairwise(channels), activations, strict=True)
            )
        )
        _scale_output(self.blocks[-1], init_scale)

    def forward(self, spectrogram: Spectrograms) -> Spectrograms:
        """Return the filtered spectrogram, added to the input if residual."""
        rewritten: Tensor = self.blocks(spectrogram.unsqueeze(1)).squeeze(1)
        return spectrogram + rewritten if self.is_residual else rewritten


class UNet(nn.Module):
    """A U-Net whose skips are additions. The lowest level has the width of the one above it.

    Channels down are `1 -> w -> 2w -> 4w ... -> 4w` (depth 3: w, 2w, 2w), up the same in reverse to 1, then a final
    block 1 -> 1 at full resolution. Each down block halves frames and mels; each up block follows a bilinear doubling.

    Source: Chen and Lerch, MMM 2023, section 3.2.1, and its released code for widths and skips.
    """

    def __init__(
        self,
        n_frames: int,
        n_mels: int,
        *,
        depth: int,
        width: int,
        kernel: int,
        norm: str,
        output_activation: str,
        has_input_skip: bool,
        align_corners: bool,
        is_residual: bool,
        init_scale: float,
    ) -> None:
        super().__init__()
        for axis, size in (("frames", n_frames), ("mel bins", n_mels)):
            if size % 2**depth:
                raise ValueError(
                    f"reprogrammer/depth={depth}: each level halves the {size} {axis}, which {2**depth} does not divide"
                )
        self.has_input_skip, self.is_residual = has_input_skip, is_residual
        levels = [width * 2**level for level in range(depth - 1)]
        down = [1, *levels, levels[-1]]
        up = [*reversed(levels), 1]
        block = partial(_conv_block, kernel=kernel, norm=norm)
        self.down = nn.ModuleList(block(*pair) for pair in pairwise(down))
        self.up = nn.ModuleList(block(*pair) for pair in pairwise(up))
        self.last = block(1, 1, activation=output_activation)
        self.halve = nn.MaxPool2d(2)
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=align_corners)
        _scale_output(self.last, init_scale)

    def forward(self, spectrogram: Spectrograms) -> Spectrograms:
        """Return the rewritten spectrogram."""
        image = spectrogram.unsqueeze(1)
        maps, skips = image, []
        for block in self.down:
            maps = self.halve(block(maps))
            skips.append(maps)
        for block, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            maps = block(self.upsample(maps) + skip)
        maps = self.upsample(maps)
        rewritten: Tensor = self.last(maps + image if self.has_input_skip else maps).squeeze(1)
        return spectrogram + rewritten if self.is_residual else rewritten


def build_reprogrammer(config: Reprogrammer, *, n_frames: int, n_mels: int) -> nn.Module:
    """Return the reprogrammer of a configuration, at its initial weights.

    Raises:
        ValueError: the configuration does not fit spectrograms of this size.
    """
    module: nn.Module = REPROGRAMMERS[config.kind].builder(n_frames=n_frames, n_mels=n_mels, **asdict(config))
    # few channels over many pixels: on a CPU this order made a U-Net's step 2.5 and a CNN's 6 times as fast
    return module.to(memory_format=torch.channels_last)


def _conv_block(inputs: int, outputs: int, *, kernel: int, norm: str, activation: str = "relu") -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=norm == "none")
    return nn.Sequential(convolution, resolve(NORMS[norm])(outputs), resolve(ACTIVATIONS[activation])())


def _scale_output(block: nn.Module, init_scale: float) -> None:
    """Scale the initial output of a block, through its norm if it has one, or else through its convolution."""
    convolution, norm, _ = block.children()
    scaled = convolution if isinstance(norm, nn.Identity) else norm
    with torch.no_grad():
        for parameter in scaled.parameters():
            parameter.mul_(init_scale)
