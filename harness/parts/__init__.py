"""The parts of a trial, each a checked dataclass; where a part has a `kind`, its other fields depend on it.

A field is a path, `part/field`, to search spaces, `--fix` and MLflow.
"""

from harness.parts.inputs import Augmentation, Hearing, NoAugmentation, Normalisation, SpecAugment
from harness.parts.mappers import FcMapper, LinearMapper, ManyToOneMapper, Mapper
from harness.parts.recipe import MeanTeacher, NoTeacher, Optimiser, Schedule, Teacher, Training
from harness.parts.reprogrammers import (
    CnnReprogrammer,
    NoiseReprogrammer,
    NoReprogrammer,
    Reprogrammer,
    UNetReprogrammer,
)
from harness.parts.systems import Attention, CnnBaseline, FineTuning, RandomForest, Reprogramming, System

__all__ = [
    "Attention",
    "Augmentation",
    "CnnBaseline",
    "CnnReprogrammer",
    "FcMapper",
    "FineTuning",
    "Hearing",
    "LinearMapper",
    "ManyToOneMapper",
    "Mapper",
    "MeanTeacher",
    "NoAugmentation",
    "NoReprogrammer",
    "NoTeacher",
    "NoiseReprogrammer",
    "Normalisation",
    "Optimiser",
    "RandomForest",
    "Reprogrammer",
    "Reprogramming",
    "Schedule",
    "SpecAugment",
    "System",
    "Teacher",
    "Training",
    "UNetReprogrammer",
]
