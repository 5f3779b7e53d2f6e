"""The parts that several spaces draw alike. Names are paths: `optimiser/lr`."""

from collections.abc import Mapping
from typing import Any

from optuna.trial import BaseTrial

from search_spaces._recipes import PRESETS

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
    """Draw what a CNN and a U-Net have in common besides depth and width."""
    trial.suggest_categorical("reprogrammer/kernel", [3, 5])
    trial.suggest_categorical("reprogrammer/norm", ["none", "batch", "instance"])
    trial.suggest_categorical("reprogrammer/output_activation", ["none", "relu", "tanh"])
    trial.suggest_categorical("reprogrammer/is_residual", [False, True])
    trial.suggest_float("reprogrammer/init_scale", 0.05, 1.0)
