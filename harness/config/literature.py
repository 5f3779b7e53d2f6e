"""Published facts: the paper's systems, their parameter counts and F1, and the label counts of OpenMIC-2018.

This project measured none of them. Conventions: F1 is the mean of both classes' F1, in percent, on the official test
split of OpenMIC-2018. A system has the name of its search space.

Source: Chen and Lerch, "Music Instrument Classification Reprogrammed", MMM 2023: Table 1, Fig. 4 (medians, read off the
plot) and Fig. 5.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PAPER_BACKBONE = "ast-base384"
"""The backbone of the paper's systems, by our name for it."""


@dataclass(frozen=True)
class Published:
    """One system of the paper. `params_millions` is None where the paper gives none; `macro_f1` is a median of 10.

    `params` is the count that `params_millions` rounds, where its parts are known. `note` explains a difference from
    our count. `needs_backbone`: the count depends on the backbone.
    """

    paper_name: str
    params_millions: float | None
    macro_f1: float
    params: int | None = None
    note: str = ""
    needs_backbone: bool = True


SYSTEMS: Mapping[str, Published] = {
    "none": Published("AST-BS", 0.017, 62.0, 16_916),
    "cnn_baseline": Published(
        "CNN-BS",
        0.017,
        61.0,
        note="the paper gives no layers, so ours are another design; the released code's has 2,621,460 in one linear "
        "layer, 1024 x 128 -> 20",
        needs_backbone=False,
    ),
    "noise": Published("AST-NRP", 0.148, 68.0, 147_988),
    "cnn": Published("AST-CNNRP", 0.017, 78.3, 16_936),
    "random_forest": Published("RF", None, 78.3, note="trees are not counted", needs_backbone=False),
    "finetune": Published(
        "AST-TL",
        87.873,
        81.1,
        87_873_252,
        "the paper's count has two 1000-class DeiT heads (1,538,000) and the noise (131,072), which nothing uses",
    ),
    "mean_teacher": Published(
        "MT",
        0.111,
        81.3,
        110_672,
        "the paper counts the student and its moving average, which no gradient reaches; half of that is trained",
        needs_backbone=False,
    ),
    "unet": Published("AST-URP", 0.018, 81.5, 18_201),
}
"""By the name of the search space: the plain baseline, then in the order of the paper's medians.

Source: for `params`, the released code's modules; their sizes round to Table 1.
"""


def describe_systems(names: Iterable[str]) -> str:
    """Return names of systems, or of other spaces, with the paper's names beside ours."""
    return ", ".join(f"{name} ({SYSTEMS[name].paper_name})" if name in SYSTEMS else name for name in names)


F1_CORRELATION_WITH_POSITIVES = 0.75
"""Correlation of a label's positive training clips and its F1 with AST-BS."""


@dataclass(frozen=True)
class Counts:
    """How often a label was annotated as present and as absent in the official training and test split."""

    train_positive: int
    train_negative: int
    test_positive: int
    test_negative: int


LABEL_COUNTS: Mapping[str, Counts] = {
    "accordion": Counts(374, 1159, 115, 423),
    "banjo": Counts(592, 1148, 140, 338),
    "bass": Counts(415, 1010, 134, 329),
    "cello": Counts(598, 866, 226, 259),
    "clarinet": Counts(396, 1349, 137, 503),
    "cymbals": Counts(814, 485, 297, 139),
    "drums": Counts(828, 495, 278, 146),
    "flute": Counts(472, 1050, 175, 387),
    "guitar": Counts(852, 362, 286, 150),
    "mallet_percussion": Counts(522, 802, 211, 267),
    "mandolin": Counts(652, 1185, 193, 434),
    "organ": Counts(482, 977, 121, 310),
    "piano": Counts(885, 420, 285, 130),
    "saxophone": Counts(830, 906, 305, 324),
    "synthesizer": Counts(823, 399, 268, 112),
    "trombone": Counts(635, 1405, 228, 492),
    "trumpet": Counts(828, 1303, 318, 467),
    "ukulele": Counts(556, 1279, 182, 408),
    "violin": Counts(779, 623, 394, 237),
    "voice": Counts(764, 426, 224, 150),
}
"""Observed labels of OpenMIC-2018, in the order of its class map.

Source: counted from `openmic-2018.npz` and `partitions/` of openmic-2018-v1.0.0.tgz (Humphrey, Durand and McFee, ISMIR
2018); positive from a probability of 0.5.
"""


def _by_label(*f1: float) -> Mapping[str, float]:
    return dict(zip(LABEL_COUNTS, f1, strict=True))


F1_BY_LABEL: Mapping[str, Mapping[str, float]] = {
    "none": _by_label(
        44.0, 45.0, 60.0, 63.0, 44.0, 86.0, 85.0, 48.0, 54.0, 59.0,
        55.0, 55.0, 83.0, 68.0, 74.0, 49.0, 65.0, 41.0, 79.0, 78.0,
    ),
    "noise": _by_label(
        48.8, 57.3, 70.7, 75.6, 44.7, 86.2, 85.6, 62.6, 71.4, 63.0,
        62.6, 65.6, 84.9, 68.3, 79.2, 60.9, 64.6, 59.3, 78.1, 80.0,
    ),
    "cnn": _by_label(
        67.9, 69.8, 63.7, 80.6, 62.8, 89.8, 87.1, 69.4, 91.0, 81.4,
        72.6, 70.4, 90.4, 77.2, 91.6, 75.5, 75.0, 74.0, 82.7, 88.9,
    ),
    "unet": _by_label(
        69.5, 73.8, 75.8, 80.8, 64.2, 90.8, 89.6, 75.5, 92.9, 81.3,
        74.4, 73.0, 93.9, 86.0, 93.5, 79.2, 81.8, 77.3, 86.8, 93.6,
    ),
}  # fmt: skip
"""F1 of each label with the systems that the paper's Fig. 5 compares."""


FOREST_F1_BY_LABEL: Mapping[str, float] = _by_label(
    67.5, 72.5, 75.0, 79.5, 52.0, 93.0, 89.5, 64.5, 97.5, 77.0,
    70.0, 60.5, 93.0, 83.0, 94.5, 75.0, 75.5, 72.0, 83.5, 92.5,
)  # fmt: skip
"""F1 of each label with the data set's own random forests (mean 78.4; the paper's RF has 78.3).

Source: the notebook beside OpenMIC-2018: 100 trees of depth 8 for each label, on the mean over ten VGGish frames. It
prints the F1 of each class with two decimals; these are their means.
"""
