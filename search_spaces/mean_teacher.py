"""Mean Teacher (the paper's MT): attention over VGGish features that agrees with its own moving average.

    python -m harness.study --space mean_teacher

Best on the demo set with `--trials 8 --epochs 100`: macro-F1 0.673 on validation, 22,056 trainable parameters
(stepped from a rate of 1.4e-3), on mean log-mel by second in place of VGGish; always guessing the more frequent
answer gives 0.334.

Source: Gururani and Lerch, "Semi-supervised audio classification with partially labeled data", 2021.
"""

from typing import Any

from optuna.trial import BaseTrial

PAPER = {
    "optimiser/lr": 1e-3,
    "optimiser/weight_decay": 1e-5,
    "system/depth": 3,
    "system/dropout": 0.8,
    "teacher/decay": 0.999,
    "teacher/weight": 3.0,
}


def suggest(trial: BaseTrial) -> dict[str, Any]:
    """Draw one attention model, one teacher and one optimiser; at weight 0 it learns from labels alone."""
    trial.suggest_int("system/depth", 1, 4)
    trial.suggest_float("system/dropout", 0.0, 0.9)
    trial.suggest_float("teacher/weight", 0.0, 10.0)
    trial.suggest_categorical("teacher/decay", [0.9, 0.99, 0.999])
    trial.suggest_float("optimiser/lr", 1e-4, 3e-2, log=True)
    trial.suggest_float("optimiser/weight_decay", 1e-6, 1e-3, log=True)
    return {
        "system/kind": "attention",
        "teacher/kind": "mean",
        "schedule/kind": "stepped",
        "training/batch_size": 64,
    }
