"""Reprogrammers: what is learned before the backbone."""

from dataclasses import dataclass
from typing import ClassVar

from harness.parts.checks import at_least, one_of

NORMS = ("none", "batch", "instance")
ACTIVATIONS = ("none", "relu", "tanh")


@dataclass(frozen=True)
class NoReprogrammer:
    """The spectrogram reaches the backbone as it is (the paper's AST-BS)."""

    kind: ClassVar[str] = "none"


@dataclass(frozen=True)
class NoiseReprogrammer:
    """One learned pattern is added to every spectrogram (the paper's AST-NRP).

    `shape`: `full` learns frames x mels values, `mel` one a mel bin, `frame` one a frame. `init_scale` is the standard
    deviation of the pattern at the start.
    """

    kind: ClassVar[str] = "noise"
    shape: str = "full"
    init_scale: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no noise pattern can be."""
        one_of("reprogrammer/shape", self.shape, ("full", "mel", "frame"))
        at_least("reprogrammer/init_scale", self.init_scale, 0)


@dataclass(frozen=True)
class CnnReprogrammer:
    """A stack of convolutions at full resolution (the paper's AST-CNNRP).

    `init_scale` multiplies the last layer's parameters at the start: at 0, a residual stack begins as the identity.
    """

    kind: ClassVar[str] = "cnn"
    depth: int = 2
    width: int = 1
    kernel: int = 3
    norm: str = "none"
    hidden_activation: str = "none"
    output_activation: str = "none"
    is_residual: bool = False
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what no stack of convolutions can be."""
        _check_convolutions(self)
        at_least("reprogrammer/depth", self.depth, 1)
        one_of("reprogrammer/hidden_activation", self.hidden_activation, ACTIVATIONS)


@dataclass(frozen=True)
class UNetReprogrammer:
    """A U-Net with added skips (the paper's AST-URP).

    `has_input_skip`: the spectrogram joins the last upsampled map, before the final block. `is_residual`: it is added
    to the output instead of, or besides, that. `init_scale` multiplies the last layer's parameters at the start.
    """

    kind: ClassVar[str] = "unet"
    depth: int = 3
    width: int = 4
    kernel: int = 3
    norm: str = "batch"
    output_activation: str = "relu"
    has_input_skip: bool = True
    is_residual: bool = False
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what no U-Net can be."""
        _check_convolutions(self)
        at_least("reprogrammer/depth", self.depth, 2)


def _check_convolutions(config: CnnReprogrammer | UNetReprogrammer) -> None:
    at_least("reprogrammer/width", config.width, 1)
    if config.kernel < 1 or config.kernel % 2 == 0:
        raise ValueError(f"reprogrammer/kernel={config.kernel}: must be odd, so that the size is kept")
    one_of("reprogrammer/norm", config.norm, NORMS)
    one_of("reprogrammer/output_activation", config.output_activation, ACTIVATIONS)
    at_least("reprogrammer/init_scale", config.init_scale, 0)
    if config.init_scale == 0 and config.output_activation == "relu":
        raise ValueError(
            f"reprogrammer/init_scale={config.init_scale} with reprogrammer/output_activation=relu: the reprogrammer "
            "would never learn, since ReLU passes no gradient at 0; choose an init_scale above 0, or none or tanh"
        )


Reprogrammer = NoReprogrammer | NoiseReprogrammer | CnnReprogrammer | UNetReprogrammer
