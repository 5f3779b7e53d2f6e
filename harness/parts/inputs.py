"""Inputs: from samples to what the learned parts get to hear."""

from dataclasses import dataclass
from typing import ClassVar

from harness.parts.checks import at_least, one_of


@dataclass(frozen=True)
class Normalisation:
    """What happens to log-mel before the reprogrammer."""

    kind: str = "none"

    def __post_init__(self) -> None:
        """Refuse an unknown normalisation."""
        one_of("normalisation/kind", self.kind, ("none", "audioset", "dataset", "learned"))


@dataclass(frozen=True)
class Hearing:
    """How a clip's samples become those that log-mel is computed of.

    `via_hz`: the rate in Hz that they are resampled to on the way to the front end's own; 0 is no detour.
    `is_peak_normalised`: the loudest sample of a clip becomes 1; a silent clip stays silent.
    """

    via_hz: int = 0
    is_peak_normalised: bool = False

    def __post_init__(self) -> None:
        """Refuse a rate that no sound has."""
        if self.via_hz and self.via_hz < 1000:
            raise ValueError(f"front_end/via_hz={self.via_hz}: must be 0, for no detour, or at least 1000")


@dataclass(frozen=True)
class NoAugmentation:
    """A clip is heard alike in every epoch."""

    kind: ClassVar[str] = "none"


@dataclass(frozen=True)
class SpecAugment:
    """In training, a random band of mels and a random span of time of every clip fall silent.

    The band is up to `max_mels` wide, the span up to `max_seconds` long.
    """

    kind: ClassVar[str] = "specaugment"
    max_mels: int = 24
    max_seconds: float = 0.96

    def __post_init__(self) -> None:
        """Refuse masks that mask nothing."""
        at_least("augmentation/max_mels", self.max_mels, 1)
        if not self.max_seconds > 0:
            raise ValueError(f"augmentation/max_seconds={self.max_seconds}: must be above 0")


Augmentation = NoAugmentation | SpecAugment
