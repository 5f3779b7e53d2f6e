"""Noise reprogramming (the paper's AST-NRP): one learned pattern is added to every spectrogram.

    python -m harness.study --space noise

Best on the demo set with `--trials 8 --epochs 12`: macro-F1 0.611 on validation, 2,728 trainable parameters (one
value a mel bin, fc mapper, constant rate 1.7e-2); always guessing the more frequent answer gives 0.334.

Source: Chen and Lerch, "Music Instrument Classification Reprogrammed", MMM 2023, section 3.2.
"""

from typing import Any

from optuna.trial import BaseTrial

from search_spaces import _shared

PAPER = {**_shared.PAPER, "reprogrammer/shape": "full", "reprogrammer/init_scale": 0.0}


def suggest(trial: BaseTrial) -> dict[str, Any]:
    """Draw one pattern's shape and start, one mapper and one training recipe."""
    trial.suggest_categorical("reprogrammer/shape", ["full", "mel", "frame"])
    trial.suggest_float("reprogrammer/init_scale", 0.0, 0.3)
    constants = _shared.suggest_mapper(trial)
    _shared.suggest_training(trial)
    return {"reprogrammer/kind": "noise", **constants}
