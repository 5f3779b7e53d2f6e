"""The parts that several spaces share: the training recipes, and how to draw them. Names are paths: `optimiser/lr`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import BaseTrial


@dataclass(frozen=True)
class Recipe:
    """Values by path, for training of this many epochs."""

    epochs: int
    paths: Mapping[str, Any]


PRESETS: dict[str, Recipe] = {
    "paper": Recipe(
        50,
        {
            "optimiser/lr": 5e-5,
            "optimiser/beta1": 0.9,
            "optimiser/beta2": 0.999,
            "optimiser/weight_decay": 0.0,
            "schedule/kind": "paper",
            "schedule/warmup": 0.0,
            "training/targets": "hard",
            "training/batch_size": 8,
            "augmentation/kind": "none",
            "normalisation/kind": "none",
            "front_end/via_hz": 0,
            "front_end/is_peak_normalised": False,
            "front_end/clip_seconds": 0.0,
        },
    ),
    "released": Recipe(
        30,
        {
            "optimiser/lr": 1e-5,
            "optimiser/beta1": 0.95,
            "optimiser/beta2": 0.999,
            "optimiser/weight_decay": 5e-7,
            "schedule/kind": "released",
            "schedule/warmup": 0.0,
            "training/targets": "soft",
            "training/batch_size": 4,
            "augmentation/kind": "specaugment",
            "augmentation/max_mels": 24,
            "augmentation/max_seconds": 0.96,
            "normalisation/kind": "none",
            "front_end/via_hz": 22050,
            "front_end/is_peak_normalised": True,
            "front_end/clip_seconds": 10.0,
        },
    ),
}
"""The recipes that `--preset` fixes, whole: a study of any space of log-mel systems then searches only the rest.

Source: `paper`: Chen and Lerch, MMM 2023, section 4.2; normalisation and decoding, which it does not state, are
as plain as possible. `released`: the code at github.com/hchen605/ast_inst_cls.
Differs: the released code masks with 0 and not with silence, turns a silent clip into NaN, never trains the U-Net, and
reads the test split after every epoch; none of that is a recipe.
"""

RECIPE: Mapping[str, Any] = {
    path: PRESETS["paper"].paths[path]
    for path in ("normalisation/kind", "optimiser/lr", "schedule/kind", "schedule/warmup", "training/batch_size")
}
"""The part of the paper's recipe that every space of a log-mel system draws; `recipe` draws the rest too."""

PAPER: Mapping[str, Any] = {"mapper/kind": "linear", **RECIPE}
"""The settings that the paper's reprogrammed systems share (section 4.2)."""


def suggest_mapper(trial: BaseTrial, *, must_learn: bool = False) -> dict[str, Any]:
    """Draw the mapper; `must_learn` where nothing else does. Returns its constants."""
    kind = trial.suggest_categorical("mapper/kind", ["linear", "fc", "many_to_one"])
    if kind == "fc":
        trial.suggest_categorical("mapper/reads", ["probabilities", "logits"])
    if kind == "many_to_one":
        trial.suggest_categorical("mapper/assignment", ["frequent", "contiguous", "random"])
        trial.suggest_int("mapper/sources_per_label", 1, 6)
        if must_learn:
            return {"mapper/is_calibrated": True}
        trial.suggest_categorical("mapper/is_calibrated", [True, False])
    return {}


def suggest_training(trial: BaseTrial, *, max_lr: float = 3e-2) -> None:
    """Draw the input normalisation, the learning rate, the schedule and the batch size."""
    trial.suggest_categorical("normalisation/kind", ["none", "audioset", "dataset", "learned"])
    trial.suggest_float("optimiser/lr", 1e-5, max_lr, log=True)
    trial.suggest_categorical("schedule/kind", ["paper", "cosine", "one_cycle", "constant"])
    trial.suggest_float("schedule/warmup", 0.0, 0.2, step=0.05)
    trial.suggest_categorical("training/batch_size", [8, 16, 32])


def suggest_convolutions(trial: BaseTrial) -> None:
    """Draw the settings that a CNN and a U-Net share besides depth and width."""
    trial.suggest_categorical("reprogrammer/kernel", [3, 5])
    trial.suggest_categorical("reprogrammer/norm", ["none", "batch", "instance"])
    trial.suggest_categorical("reprogrammer/output_activation", ["none", "relu", "tanh"])
    trial.suggest_categorical("reprogrammer/is_residual", [False, True])
    trial.suggest_float("reprogrammer/init_scale", 0.05, 1.0)
