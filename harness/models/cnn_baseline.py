"""A small convolutional network without any backbone, of about the size of the reprogrammed systems.

Source: Chen and Lerch, "Music Instrument Classification Reprogrammed", MMM 2023, section 4.3, for its size.
Differs: the paper gives no layers, and its released code has one linear layer on the whole spectrogram.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from harness.models.ast import Backbone
from harness.models.parameters import learned_counts, learned_parameters


class CnnModel(nn.Module):
    """Four blocks of convolution and pooling, the mean and the maximum of what they give, a linear layer."""

    def __init__(self, normalisation: nn.Module, n_labels: int, *, width: int, dropout: float) -> None:
        super().__init__()
        channels = [1, width, 2 * width, 4 * width, 4 * width]
        self.normalisation = normalisation
        # few channels over many pixels, as in a reprogrammer: channels last is the faster order on a CPU
        self.blocks = nn.Sequential(*(_block(*pair) for pair in pairwise(channels))).to(
            memory_format=torch.channels_last
        )
        self.mapper = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * channels[-1], n_labels))

    def forward(
        self,
        log_mel: Float[Tensor, "clip frame mel"],
        backbone: Backbone | None,  # noqa: ARG002
    ) -> Float[Tensor, "clip label"]:
        """Return the labels' logits."""
        maps = self.blocks(self.normalisation(log_mel).unsqueeze(1))
        pooled = torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)
        logits: Tensor = self.mapper(pooled)
        return logits

    def learned(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that learn."""
        return learned_parameters(self)

    def parameter_counts(self) -> dict[str, int]:
        """Return the number of learned values of each part."""
        return learned_counts(self)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    # ceil_mode: a side of one value stays one
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True))
