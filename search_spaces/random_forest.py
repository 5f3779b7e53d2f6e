"""Random forests (the paper's RF): one for each label, on mean VGGish features.

    python -m harness.study --space random_forest

Best on the demo set with `--trials 8 --epochs 1`: macro-F1 0.571 on validation, the paper's configuration, on mean
log-mel by second in place of VGGish; always guessing the more frequent answer gives 0.334.

Source: Humphrey, Durand and McFee, "OpenMIC-2018", ISMIR 2018, and the notebook beside the data set.
"""

from typing import Any

from optuna.trial import BaseTrial

PAPER = {"system/n_trees": 100, "system/max_depth": 8}


def suggest(trial: BaseTrial) -> dict[str, Any]:
    """Draw the size of the forests."""
    trial.suggest_int("system/n_trees", 50, 400, log=True)
    trial.suggest_int("system/max_depth", 2, 16)
    return {"system/kind": "random_forest"}
