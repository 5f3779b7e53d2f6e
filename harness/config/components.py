"""Systems, reprogrammers and mappers: each a checked dataclass.

A field is a path, `component/field`, in search spaces, `--fix` and MLflow.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.common.registry import Registry, resolve
from harness.config.checks import above_zero, at_least, fraction, one_of


@dataclass(frozen=True)
class Component:
    """A member of a registry: the config of one kind, and its builder.

    `config` is a frozen dataclass. Its class variable `kind` is its name in the registry. An optional one, `shown`,
    maps the fields that tables show to their words there.

    `build` and `learner` are paths for `resolve`, since a config needs no torch. A system has a `learner`, see
    `harness.training.learner`, in place of `build` if no `Trainer` trains it.
    """

    config: type[Any]
    build: str = ""
    learner: str = ""

    @property
    def builder(self) -> Callable[..., Any]:
        """Import and return the function at `build`, or else at `learner`."""
        function: Callable[..., Any] = resolve(self.build or self.learner)
        return function


_LOG_MEL_PARTS = ("normalisation", "front_end", "augmentation", "optimiser", "schedule", "training")


@dataclass(frozen=True)
class Reprogramming:
    """A frozen backbone between a learned reprogrammer and a learned mapper (the paper's AST-BS, -NRP, -CNNRP, -URP).

    `inputs` names the features that a system takes, `uses` the parts of a configuration that it reads.
    """

    kind: ClassVar[str] = "reprogramming"
    inputs: ClassVar[str] = "log_mel"
    uses: ClassVar[tuple[str, ...]] = ("reprogrammer", "mapper", *_LOG_MEL_PARTS)


@dataclass(frozen=True)
class FineTuning:
    """The whole backbone learns, with LayerNorm and a linear layer on top (the paper's AST-TL).

    The backbone learns at `backbone_lr_factor` times the layer's rate.
    """

    kind: ClassVar[str] = "finetune"
    inputs: ClassVar[str] = "log_mel"
    uses: ClassVar[tuple[str, ...]] = _LOG_MEL_PARTS
    backbone_lr_factor: float = 1.0

    def __post_init__(self) -> None:
        above_zero("system/backbone_lr_factor", self.backbone_lr_factor)


@dataclass(frozen=True)
class CnnBaseline:
    """A small CNN without a backbone, with `width` channels in its first block (the paper's CNN-BS)."""

    kind: ClassVar[str] = "cnn_baseline"
    shown: ClassVar[Mapping[str, str]] = {"width": "width"}
    inputs: ClassVar[str] = "log_mel"
    uses: ClassVar[tuple[str, ...]] = _LOG_MEL_PARTS
    width: int = 8
    dropout: float = 0.0

    def __post_init__(self) -> None:
        at_least("system/width", self.width, 1)
        fraction("system/dropout", self.dropout)


@dataclass(frozen=True)
class Attention:
    """Attention over ten seconds of VGGish features; with a mean teacher, the paper's MT.

    `depth` counts its 1 x 1 convolutions.
    """

    kind: ClassVar[str] = "attention"
    shown: ClassVar[Mapping[str, str]] = {"depth": "depth"}
    inputs: ClassVar[str] = "vggish"
    uses: ClassVar[tuple[str, ...]] = ("teacher", "optimiser", "schedule", "training")
    depth: int = 3
    dropout: float = 0.8

    def __post_init__(self) -> None:
        at_least("system/depth", self.depth, 1)
        fraction("system/dropout", self.dropout)


@dataclass(frozen=True)
class RandomForest:
    """A random forest for each label, on the mean over ten seconds of VGGish features (the paper's RF)."""

    kind: ClassVar[str] = "random_forest"
    shown: ClassVar[Mapping[str, str]] = {"n_trees": "trees", "max_depth": "depth"}
    inputs: ClassVar[str] = "vggish"
    uses: ClassVar[tuple[str, ...]] = ()
    n_trees: int = 100
    max_depth: int = 8

    def __post_init__(self) -> None:
        at_least("system/n_trees", self.n_trees, 1)
        at_least("system/max_depth", self.max_depth, 1)


System = Reprogramming | FineTuning | CnnBaseline | Attention | RandomForest


NORMS = {
    "none": "harness.models.reprogrammers:no_norm",
    "batch": "harness.models.reprogrammers:BatchNorm",
    "instance": "harness.models.reprogrammers:instance_norm",
}
"""Functions of the number of channels, as paths for `resolve`."""

ACTIVATIONS = {"none": "torch.nn:Identity", "relu": "torch.nn:ReLU", "tanh": "torch.nn:Tanh"}
"""Modules, as paths for `resolve`."""


@dataclass(frozen=True)
class NoReprogrammer:
    """The spectrogram enters the backbone unchanged (the paper's AST-BS)."""

    kind: ClassVar[str] = "none"


@dataclass(frozen=True)
class NoiseReprogrammer:
    """One learned pattern is added to every spectrogram (the paper's AST-NRP).

    `shape`: `full` learns frames x mels values, `mel` one a mel bin, `frame` one a frame. `init_scale` is the initial
    standard deviation of the pattern.
    """

    kind: ClassVar[str] = "noise"
    shown: ClassVar[Mapping[str, str]] = {"shape": ""}
    shape: str = "full"
    init_scale: float = 0.0

    def __post_init__(self) -> None:
        one_of("reprogrammer/shape", self.shape, ("full", "mel", "frame"))
        at_least("reprogrammer/init_scale", self.init_scale, 0)


@dataclass(frozen=True)
class CnnReprogrammer:
    """A stack of convolutions at full resolution (the paper's AST-CNNRP).

    `init_scale` multiplies the last layer's initial parameters: at 0, a residual stack starts as the identity.
    """

    kind: ClassVar[str] = "cnn"
    shown: ClassVar[Mapping[str, str]] = {"depth": "depth", "width": "width"}
    depth: int = 2
    width: int = 1
    kernel: int = 3
    norm: str = "none"
    hidden_activation: str = "none"
    output_activation: str = "none"
    is_residual: bool = False
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        _check_convolutions(self)
        at_least("reprogrammer/depth", self.depth, 1)
        one_of("reprogrammer/hidden_activation", self.hidden_activation, ACTIVATIONS)


@dataclass(frozen=True)
class UNetReprogrammer:
    """A U-Net whose skips are additions (the paper's AST-URP).

    `has_input_skip` adds the spectrogram to the last upsampled map, before the final block. `is_residual` adds it to
    the output. `align_corners`: bilinear upsampling maps corner values onto corner values, as in the paper's released
    code. `init_scale` multiplies the last layer's initial parameters.
    """

    kind: ClassVar[str] = "unet"
    shown: ClassVar[Mapping[str, str]] = {"depth": "depth", "width": "width"}
    depth: int = 3
    width: int = 4
    kernel: int = 3
    norm: str = "batch"
    output_activation: str = "relu"
    has_input_skip: bool = True
    align_corners: bool = True
    is_residual: bool = False
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        _check_convolutions(self)
        at_least("reprogrammer/depth", self.depth, 2)


def _check_convolutions(config: CnnReprogrammer | UNetReprogrammer) -> None:
    at_least("reprogrammer/width", config.width, 1)
    if config.kernel < 1 or config.kernel % 2 == 0:
        raise ValueError(f"reprogrammer/kernel={config.kernel}: must be odd, which keeps the size")
    one_of("reprogrammer/norm", config.norm, NORMS)
    one_of("reprogrammer/output_activation", config.output_activation, ACTIVATIONS)
    at_least("reprogrammer/init_scale", config.init_scale, 0)
    if config.init_scale == 0 and config.output_activation == "relu":
        raise ValueError(
            f"reprogrammer/init_scale={config.init_scale} with reprogrammer/output_activation=relu: the reprogrammer "
            "would never learn, since ReLU passes no gradient at 0; choose an init_scale above 0, or none or tanh"
        )


Reprogrammer = NoReprogrammer | NoiseReprogrammer | CnnReprogrammer | UNetReprogrammer


@dataclass(frozen=True)
class LinearMapper:
    """LayerNorm and a linear layer on the embedding, as in the paper's parameter counts."""

    kind: ClassVar[str] = "linear"


@dataclass(frozen=True)
class FcMapper:
    """A linear layer on the source labels' logits or probabilities, as in the paper's text."""

    kind: ClassVar[str] = "fc"
    reads: str = "probabilities"

    def __post_init__(self) -> None:
        one_of("mapper/reads", self.reads, ("logits", "probabilities"))


_METHODS = "harness.models.label_mapping"

ASSIGNMENTS: Registry[str | Callable[..., Any]] = Registry(
    "label_mappings", {name: f"{_METHODS}:{name}" for name in ("contiguous", "random", "frequent", "semantic")}
)
"""Label-mapping methods by name: functions, or their dotted paths. Each takes a `MappingTask`."""


@dataclass(frozen=True)
class ManyToOneMapper:
    """Each label's logit is the mean over the logits of the source labels assigned to it.

    A label gets at most `sources_per_label`, fewer if the backbone has too few. `is_calibrated` learns a scale and a
    shift of each mean, since the logits of rare source labels seldom cross the threshold of a frequent label.
    """

    kind: ClassVar[str] = "many_to_one"
    assignment: str = "frequent"
    sources_per_label: int = 3
    is_calibrated: bool = False

    def __post_init__(self) -> None:
        one_of("mapper/assignment", self.assignment, ASSIGNMENTS)
        at_least("mapper/sources_per_label", self.sources_per_label, 1)


Mapper = LinearMapper | FcMapper | ManyToOneMapper
