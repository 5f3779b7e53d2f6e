"""The training recipe, piece by piece: which difference between the paper and its released code matters?

    python -m harness.study --space recipe --fix reprogrammer/kind=unet

Best on the demo set with that command: macro-F1 0.570 on validation, 4,123 trainable parameters (depth 3, width 4,
linear mapper, one cycle up to a rate of 2.7e-3); always guessing the more frequent answer gives 0.334.

Source: Chen and Lerch, "Music Instrument Classification Reprogrammed", MMM 2023, section 4.2, and its released code.
"""

from collections.abc import Mapping
from typing import Any

from optuna.trial import BaseTrial

from search_spaces._shared import PRESETS

_CHOICES: Mapping[str, list[Any]] = {
    "optimiser/beta1": [0.9, 0.95],
    "optimiser/beta2": [0.999, 0.99],
    "optimiser/weight_decay": [0.0, 5e-7, 1e-4],
    "schedule/kind": ["paper", "released", "cosine", "one_cycle", "constant"],
    "training/targets": ["hard", "soft"],
    "training/batch_size": [4, 8, 16, 32],
    "augmentation/kind": ["none", "specaugment"],
    "normalisation/kind": ["none", "audioset", "dataset", "learned"],
    "front_end/via_hz": [0, 22050],
    "front_end/is_peak_normalised": [False, True],
    "front_end/clip_seconds": [0.0, 10.0],
}

PAPER: tuple[Mapping[str, Any], ...] = tuple(
    {"reprogrammer/kind": "unet", "mapper/kind": "linear", **recipe.paths} for recipe in PRESETS.values()
)


def suggest(trial: BaseTrial) -> dict[str, Any]:
    """Draw one of the paper's reprogrammers unchanged, one mapper, and every piece of the recipe."""
    trial.suggest_categorical("reprogrammer/kind", ["unet", "cnn", "noise", "none"])
    trial.suggest_categorical("mapper/kind", ["linear", "fc"])
    for path, choices in _CHOICES.items():
        value = trial.suggest_categorical(path, choices)
        if value == "specaugment":
            trial.suggest_int("augmentation/max_mels", 4, 48)
            trial.suggest_float("augmentation/max_seconds", 0.12, 1.92)
    trial.suggest_float("optimiser/lr", 1e-5, 3e-2, log=True)
    trial.suggest_float("schedule/warmup", 0.0, 0.2, step=0.05)
    return {}
