"""Fine-tuning (the paper's AST-TL): all of AST learns, below a linear layer.

    python -m harness.study --space finetune

Best on the demo set with `--trials 8 --epochs 12`: macro-F1 0.702 on validation, 845,972 trainable parameters (cosine
from a rate of 5.1e-4); always guessing the more frequent answer gives 0.334.

Source: Chen and Lerch, "Music Instrument Classification Reprogrammed", MMM 2023, section 4.3.
"""

from typing import Any

from optuna.trial import BaseTrial

from search_spaces import _shared

PAPER = {**_shared.RECIPE, "system/backbone_lr_factor": 1.0}


def suggest(trial: BaseTrial) -> dict[str, Any]:
    """Draw how fast the backbone learns beside the linear layer, and one training recipe."""
    trial.suggest_float("system/backbone_lr_factor", 0.01, 1.0, log=True)
    _shared.suggest_training(trial, max_lr=1e-2)
    return {"system/kind": "finetune"}
