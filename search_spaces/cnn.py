"""CNN reprogramming (the paper's AST-CNNRP): a few convolutions filter the spectrogram at full resolution.

    python -m harness.study --space cnn

Best on the demo set with `--trials 8 --epochs 12`: macro-F1 0.693 on validation, 2,662 trainable parameters (depth 2,
width 3, fc mapper, constant rate 1.0e-2); always guessing the more frequent answer gives 0.334.

Source: Chen and Lerch, "Music Instrument Classification Reprogrammed", MMM 2023, section 3.2.
"""

from typing import Any

from optuna.trial import BaseTrial

from search_spaces import _shared

PAPER = {
    **_shared.PAPER,
    "reprogrammer/depth": 2,
    "reprogrammer/width": 1,
    "reprogrammer/kernel": 3,
    "reprogrammer/norm": "none",
    "reprogrammer/hidden_activation": "none",
    "reprogrammer/output_activation": "none",
    "reprogrammer/is_residual": False,
    "reprogrammer/init_scale": 1.0,
}


def suggest(trial: BaseTrial) -> dict[str, Any]:
    """Draw one stack of convolutions, one mapper and one training recipe."""
    depth = trial.suggest_int("reprogrammer/depth", 1, 4)
    if depth > 1:  # a single convolution has no hidden channels
        trial.suggest_int("reprogrammer/width", 1, 8, log=True)
        trial.suggest_categorical("reprogrammer/hidden_activation", ["none", "relu"])
    _shared.suggest_convolutions(trial)
    constants = _shared.suggest_mapper(trial)
    _shared.suggest_training(trial)
    return {"reprogrammer/kind": "cnn", **constants}
