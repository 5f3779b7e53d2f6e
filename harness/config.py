"""What one trial is: typed, checked at construction, read from and written to a flat mapping of paths.

A path is what a search space draws and what `--fix` takes: `reprogrammer/depth`, `optimiser/lr`. Each part of a trial
has a `kind`; the other fields of the part depend on it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

Paths = Mapping[str, Any]

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
        _at_least("reprogrammer/init_scale", self.init_scale, 0)


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
        _at_least("reprogrammer/depth", self.depth, 1)
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
        _at_least("reprogrammer/depth", self.depth, 2)


@dataclass(frozen=True)
class LinearMapper:
    """LayerNorm and a linear layer on the embedding: what the paper's parameter counts fit."""

    kind: ClassVar[str] = "linear"


@dataclass(frozen=True)
class FcMapper:
    """A linear layer on the source labels' logits or probabilities: what the paper's text says."""

    kind: ClassVar[str] = "fc"
    reads: str = "probabilities"

    def __post_init__(self) -> None:
        """Refuse what the source head does not give."""
        one_of("mapper/reads", self.reads, ("logits", "probabilities"))


@dataclass(frozen=True)
class ManyToOneMapper:
    """Each label is the mean over the logits of the source labels assigned to it.

    `sources_per_label` is how many those are at most: fewer where the backbone has not that many for every label.
    `is_calibrated` learns a scale and a shift of each label's mean: source labels are rare, so that their logits
    seldom cross the threshold of a label that is not.
    """

    kind: ClassVar[str] = "many_to_one"
    assignment: str = "frequent"
    sources_per_label: int = 3
    is_calibrated: bool = False

    def __post_init__(self) -> None:
        """Refuse an assignment that is not one."""
        one_of("mapper/assignment", self.assignment, ("contiguous", "random", "frequent"))
        _at_least("mapper/sources_per_label", self.sources_per_label, 1)


@dataclass(frozen=True)
class Schedule:
    """The course of the learning rate; `warmup` is the fraction of the steps with a linear rise before it."""

    kind: str = "paper"
    warmup: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an unknown schedule."""
        one_of("schedule/kind", self.kind, ("paper", "cosine", "one_cycle", "constant"))
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
        """Refuse what Adam cannot take."""
        if not self.lr > 0:
            raise ValueError(f"optimiser/lr={self.lr}: must be above 0")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optimiser/{name}={getattr(self, name)}: must be 0 to below 1")
        _at_least("optimiser/weight_decay", self.weight_decay, 0)


@dataclass(frozen=True)
class Normalisation:
    """What happens to log-mel before the reprogrammer."""

    kind: str = "none"

    def __post_init__(self) -> None:
        """Refuse an unknown normalisation."""
        one_of("normalisation/kind", self.kind, ("none", "audioset", "dataset", "learned"))


@dataclass(frozen=True)
class Training:
    """How the labels and clips of the training split are presented."""

    batch_size: int = 8
    targets: str = "hard"

    def __post_init__(self) -> None:
        """Refuse an empty batch or an unknown kind of target."""
        _at_least("training/batch_size", self.batch_size, 1)
        one_of("training/targets", self.targets, ("hard", "soft"))


Reprogrammer = NoReprogrammer | NoiseReprogrammer | CnnReprogrammer | UNetReprogrammer
Mapper = LinearMapper | FcMapper | ManyToOneMapper

REPROGRAMMERS: dict[str, type[Reprogrammer]] = {
    "none": NoReprogrammer,
    "noise": NoiseReprogrammer,
    "cnn": CnnReprogrammer,
    "unet": UNetReprogrammer,
}
MAPPERS: dict[str, type[Mapper]] = {"linear": LinearMapper, "fc": FcMapper, "many_to_one": ManyToOneMapper}


@dataclass(frozen=True)
class TrialConfig:
    """One configuration: everything that may differ between two trials of a study."""

    reprogrammer: Reprogrammer = field(default_factory=NoReprogrammer)
    mapper: Mapper = field(default_factory=LinearMapper)
    schedule: Schedule = field(default_factory=Schedule)
    optimiser: Optimiser = field(default_factory=Optimiser)
    normalisation: Normalisation = field(default_factory=Normalisation)
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        """Refuse a trial that has nothing to learn."""
        learns = (
            self.reprogrammer.kind != "none"
            or not isinstance(self.mapper, ManyToOneMapper)
            or self.mapper.is_calibrated
            or self.normalisation.kind == "learned"
        )
        if not learns:
            raise ValueError(
                "reprogrammer/kind=none with mapper/kind=many_to_one: nothing in this trial learns; "
                "choose another reprogrammer or mapper, mapper/is_calibrated=true or normalisation/kind=learned"
            )

    @classmethod
    def from_paths(cls, paths: Paths) -> "TrialConfig":
        """Build the configuration that the paths describe; what they leave out takes its default.

        Raises:
            ValueError: a path or a value is unknown, or values do not go together.
        """
        parts: dict[str, dict[str, Any]] = {part.name: {} for part in fields(cls)}
        for path, value in paths.items():
            part, _, name = path.partition("/")
            if part not in parts or not name:
                raise ValueError(f"{path}={value!r}: unknown path; its first part must be one of {', '.join(parts)}")
            parts[part][name] = value
        return cls(
            reprogrammer=_chosen("reprogrammer", REPROGRAMMERS, parts["reprogrammer"]),
            mapper=_chosen("mapper", MAPPERS, parts["mapper"]),
            schedule=_built("schedule", Schedule, parts["schedule"]),
            optimiser=_built("optimiser", Optimiser, parts["optimiser"]),
            normalisation=_built("normalisation", Normalisation, parts["normalisation"]),
            training=_built("training", Training, parts["training"]),
        )

    def to_paths(self) -> dict[str, Any]:
        """Return every path with its value, defaults included."""
        paths: dict[str, Any] = {}
        for part in fields(self):
            value = getattr(self, part.name)
            if part.name in ("reprogrammer", "mapper"):
                paths[f"{part.name}/kind"] = value.kind
            paths |= {f"{part.name}/{name}": inner for name, inner in asdict(value).items()}
        return paths

    def digest(self) -> str:
        """Return the SHA-256 over all paths and values, as hex."""
        return hashlib.sha256(json.dumps(self.to_paths(), sort_keys=True).encode()).hexdigest()


def _chosen(part: str, kinds: Mapping[str, type[Any]], values: dict[str, Any]) -> Any:
    kind = values.pop("kind", next(iter(kinds)))
    one_of(f"{part}/kind", kind, tuple(kinds))
    return _built(part, kinds[kind], values, where=f" with {part}/kind={kind}")


def _built(part: str, cls: type[Any], values: Mapping[str, Any], *, where: str = "") -> Any:
    known = [f.name for f in fields(cls)]
    for name, value in values.items():
        if name not in known:
            valid = ", ".join(f"{part}/{k}" for k in known) or "none"
            raise ValueError(f"{part}/{name}={value!r}: unknown path{where}; valid ones: {valid}")
    return cls(**values)


def _check_convolutions(config: CnnReprogrammer | UNetReprogrammer) -> None:
    _at_least("reprogrammer/width", config.width, 1)
    if config.kernel < 1 or config.kernel % 2 == 0:
        raise ValueError(f"reprogrammer/kernel={config.kernel}: must be odd, so that the size is kept")
    one_of("reprogrammer/norm", config.norm, NORMS)
    one_of("reprogrammer/output_activation", config.output_activation, ACTIVATIONS)
    _at_least("reprogrammer/init_scale", config.init_scale, 0)
    if config.init_scale == 0 and config.output_activation == "relu":
        raise ValueError(
            f"reprogrammer/init_scale={config.init_scale} with reprogrammer/output_activation=relu: the reprogrammer "
            "would never learn, since ReLU passes no gradient at 0; choose an init_scale above 0, or none or tanh"
        )


def one_of(path: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of the choices, naming them.

    Raises:
        ValueError: always then.
    """
    if value not in choices:
        raise ValueError(f"{path}={value!r}: must be one of {', '.join(choices)}")


def _at_least(path: str, value: float, minimum: float) -> None:
    if not value >= minimum:
        raise ValueError(f"{path}={value}: must be at least {minimum}")
