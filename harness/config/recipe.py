"""The training recipe: inputs, targets and batches, optimiser, schedule and teacher."""

from dataclasses import dataclass
from typing import ClassVar

from harness.config.checks import above_zero, at_least, fraction, one_of

NORMALISATIONS = {name: f"harness.models.normalisations:{name}" for name in ("none", "audioset", "dataset", "learned")}
"""Functions of the mean and the standard deviation of the training clips' log-mel, as paths for `resolve`."""


@dataclass(frozen=True)
class Normalisation:
    """The normalisation of log-mel before the reprogrammer."""

    kind: str = "none"

    def __post_init__(self) -> None:
        one_of("normalisation/kind", self.kind, NORMALISATIONS)


@dataclass(frozen=True)
class FrontEndOptions:
    """The fields of `FrontEnd`, documented there, that a configuration sets in the backbone's front end."""

    via_hz: int = 0
    is_peak_normalised: bool = False
    clip_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.via_hz and self.via_hz < 1000:
            raise ValueError(f"front_end/via_hz={self.via_hz}: must be 0, for no detour, or at least 1000")
        if not 0 <= self.clip_seconds < 3600:
            raise ValueError(f"front_end/clip_seconds={self.clip_seconds}: must be 0, for any length, to below 3600")


@dataclass(frozen=True)
class NoAugmentation:
    """Every epoch has the same spectrogram of a clip."""

    kind: ClassVar[str] = "none"


@dataclass(frozen=True)
class SpecAugment:
    """Silence in a random band of mels and a random span of time of every training clip.

    The band is up to `max_mels` wide, the span up to `max_seconds` long.
    """

    kind: ClassVar[str] = "specaugment"
    max_mels: int = 24
    max_seconds: float = 0.96

    def __post_init__(self) -> None:
        at_least("augmentation/max_mels", self.max_mels, 1)
        above_zero("augmentation/max_seconds", self.max_seconds)


Augmentation = NoAugmentation | SpecAugment


SCHEDULES = {
    name: f"harness.training.optimisation:{name}"
    for name in ("paper", "released", "stepped", "cosine", "one_cycle", "constant")
}
"""Curves of the learning rate over the progress of a trial, as paths for `resolve`."""


@dataclass(frozen=True)
class NoTeacher:
    """The model learns from annotated labels only."""

    kind: ClassVar[str] = "none"


@dataclass(frozen=True)
class MeanTeacher:
    """A second model, the moving average of the first, which learns to agree with it on all labels.

    `weight` multiplies the mean squared difference of their probabilities. `decay` is the average's highest decay.
    `predicts` names the model that is scored.
    """

    kind: ClassVar[str] = "mean"
    weight: float = 3.0
    decay: float = 0.999
    predicts: str = "teacher"

    def __post_init__(self) -> None:
        at_least("teacher/weight", self.weight, 0)
        fraction("teacher/decay", self.decay)
        one_of("teacher/predicts", self.predicts, ("teacher", "student"))


@dataclass(frozen=True)
class Schedule:
    """The course of the learning rate; `warmup` is the fraction of the steps with a linear rise before it."""

    kind: str = "paper"
    warmup: float = 0.0

    def __post_init__(self) -> None:
        one_of("schedule/kind", self.kind, SCHEDULES)
        if not 0 <= self.warmup <= 0.5:
            raise ValueError(f"schedule/warmup={self.warmup}: a fraction of the steps, 0 to 0.5")


@dataclass(frozen=True)
class Optimiser:
    """Adam."""

    lr: float = 5e-5
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        above_zero("optimiser/lr", self.lr)
        fraction("optimiser/beta1", self.beta1)
        fraction("optimiser/beta2", self.beta2)
        at_least("optimiser/weight_decay", self.weight_decay, 0)


@dataclass(frozen=True)
class Training:
    """The batches and the targets of training: annotators' probabilities (soft), or 0 and 1 (hard)."""

    batch_size: int = 8
    targets: str = "hard"

    def __post_init__(self) -> None:
        at_least("training/batch_size", self.batch_size, 1)
        one_of("training/targets", self.targets, ("hard", "soft"))


Teacher = NoTeacher | MeanTeacher
