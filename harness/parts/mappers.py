"""Mappers: what is learned behind the backbone."""

from dataclasses import dataclass
from typing import ClassVar

from harness.parts.checks import at_least, one_of


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
        at_least("mapper/sources_per_label", self.sources_per_label, 1)


Mapper = LinearMapper | FcMapper | ManyToOneMapper
