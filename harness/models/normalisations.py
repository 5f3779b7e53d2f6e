"""Input normalisations: from raw log-mel to the input of reprogrammer and backbone."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

AUDIOSET_MEAN = -4.2677393
AUDIOSET_STD = 4.5689974


class Affine(nn.Module):
    """`(x - mean) / (2 std)`, AST's convention: about half the units of a plain standardisation.

    Source: the AST release's data loader, for the factor 2 and the AudioSet constants.
    """

    def __init__(self, mean: float, std: float, *, is_learned: bool = False) -> None:
        super().__init__()
        if not std > 0:
            raise ValueError(f"normalisation std={std}: must be above 0; do all clips hold the same value?")
        scale, shift = torch.tensor(1 / (2 * std)), torch.tensor(-mean / (2 * std))
        if is_learned:
            self.scale, self.shift = nn.Parameter(scale), nn.Parameter(shift)
        else:
            self.register_buffer("scale", scale)
            self.register_buffer("shift", shift)

    def forward(self, log_mel: Float[Tensor, "clip frame mel"]) -> Float[Tensor, "clip frame mel"]:
        """Return the log-mel scaled and shifted."""
        return log_mel * self.scale + self.shift


def none(mean: float, std: float) -> nn.Module:  # noqa: ARG001
    """Return the identity."""
    return nn.Identity()


def audioset(mean: float, std: float) -> nn.Module:  # noqa: ARG001
    """Return AST's normalisation with the constants of AudioSet."""
    return Affine(AUDIOSET_MEAN, AUDIOSET_STD)


def dataset(mean: float, std: float) -> nn.Module:
    """Return AST's normalisation with the mean and standard deviation of the training clips."""
    return Affine(mean, std)


def learned(mean: float, std: float) -> nn.Module:  # noqa: ARG001
    """Return AST's normalisation, learned from the constants of AudioSet on."""
    return Affine(AUDIOSET_MEAN, AUDIOSET_STD, is_learned=True)
