"""A small CNN without AST (the paper's CNN-BS), of about the size of the reprogrammed systems.

    python -m harness.study --space cnn_baseline

Best on the demo set with `--trials 8 --epochs 12`: macro-F1 0.487 on validation, 4,528 trainable parameters (constant
rate 7.2e-3); always guessing the more frequent answer gives 0.334.

Source: Chen and Lerch, "Music Instrument Classification Reprogrammed", MMM 2023, section 4.3.
Differs: the paper gives no layers, and its released code has one linear layer on 1024 x 128 values (2,621,460
parameters). Ours has four convolutions, 16,524 parameters in all.
"""

from typing import Any

from optuna.trial import BaseTrial

from search_spaces import _shared

PAPER = {**_shared.RECIPE, "system/width": 8, "system/dropout": 0.0}


def suggest(trial: BaseTrial) -> dict[str, Any]:
    """Draw one network and one training recipe."""
    trial.suggest_int("system/width", 4, 16, log=True)
    trial.suggest_float("system/dropout", 0.0, 0.5)
    _shared.suggest_training(trial)
    return {"system/kind": "cnn_baseline"}
