"""No reprogramming (the paper's AST-BS): only a mapper learns, behind the frozen AST.

    python -m harness.study --space none

Best on the demo set with `--trials 8 --epochs 12`: macro-F1 0.746 on validation, 2,836 trainable parameters (linear
mapper, constant rate 2.1e-3); always guessing the more frequent answer gives 0.334.

Source: Chen and Lerch, "Music Instrument Classification Reprogrammed", MMM 2023, section 4.3.
"""

from typing import Any

from optuna.trial import BaseTrial

from search_spaces import _shared

PAPER = _shared.PAPER


def suggest(trial: BaseTrial) -> dict[str, Any]:
    """Draw one mapper that learns and one training recipe."""
    constants = _shared.suggest_mapper(trial, must_learn=True)
    _shared.suggest_training(trial)
    return {"reprogrammer/kind": "none", **constants}
