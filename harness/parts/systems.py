"""Systems: what is trained, and which of the other parts mean something for it."""

from dataclasses import dataclass
from typing import ClassVar

from harness.parts.checks import at_least, fraction

_LOG_MEL_PARTS = ("normalisation", "front_end", "augmentation", "optimiser", "schedule", "training")


@dataclass(frozen=True)
class Reprogramming:
    """A frozen backbone between a learned reprogrammer and a learned mapper (the paper's AST-BS, -NRP, -CNNRP, -URP).

    `uses` are the parts of a trial that mean something for a system, `inputs` the features that it hears.
    """

    kind: ClassVar[str] = "reprogramming"
    inputs: ClassVar[str] = "log_mel"
    uses: ClassVar[tuple[str, ...]] = ("reprogrammer", "mapper", *_LOG_MEL_PARTS)


@dataclass(frozen=True)
class FineTuning:
    """All of the backbone learns, below LayerNorm and a linear layer (the paper's AST-TL).

    The backbone learns at `backbone_lr_factor` times the rate of that layer.
    """

    kind: ClassVar[str] = "finetune"
    inputs: ClassVar[str] = "log_mel"
    uses: ClassVar[tuple[str, ...]] = _LOG_MEL_PARTS
    backbone_lr_factor: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a backbone that does not learn."""
        if not self.backbone_lr_factor > 0:
            raise ValueError(f"system/backbone_lr_factor={self.backbone_lr_factor}: must be above 0")


@dataclass(frozen=True)
class CnnBaseline:
    """A small convolutional network without any backbone (the paper's CNN-BS): `width` channels in its first block."""

    kind: ClassVar[str] = "cnn_baseline"
    inputs: ClassVar[str] = "log_mel"
    uses: ClassVar[tuple[str, ...]] = _LOG_MEL_PARTS
    width: int = 8
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an empty network."""
        at_least("system/width", self.width, 1)
        fraction("system/dropout", self.dropout)


@dataclass(frozen=True)
class Attention:
    """Attention over ten seconds of VGGish features; with a mean teacher, the paper's MT.

    `depth` counts its 1 x 1 convolutions.
    """

    kind: ClassVar[str] = "attention"
    inputs: ClassVar[str] = "vggish"
    uses: ClassVar[tuple[str, ...]] = ("teacher", "optimiser", "schedule", "training")
    depth: int = 3
    dropout: float = 0.8

    def __post_init__(self) -> None:
        """Refuse what no attention model can be."""
        at_least("system/depth", self.depth, 1)
        fraction("system/dropout", self.dropout)


@dataclass(frozen=True)
class RandomForest:
    """A random forest for each label, on the mean over ten seconds of VGGish features (the paper's RF)."""

    kind: ClassVar[str] = "random_forest"
    inputs: ClassVar[str] = "vggish"
    uses: ClassVar[tuple[str, ...]] = ()
    n_trees: int = 100
    max_depth: int = 8

    def __post_init__(self) -> None:
        """Refuse an empty forest."""
        at_least("system/n_trees", self.n_trees, 1)
        at_least("system/max_depth", self.max_depth, 1)


System = Reprogramming | FineTuning | CnnBaseline | Attention | RandomForest
