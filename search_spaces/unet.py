"""U-Net reprogramming (the paper's AST-URP): a small U-Net rewrites the input spectrogram of the frozen AST.

    python -m harness.study --space unet

Best on the demo set with that command: macro-F1 0.651 on validation, 2,996 trainable parameters (depth 2, width 3,
linear mapper, constant rate 6.4e-4); always guessing the more frequent answer gives 0.334.

Source: Chen and Lerch, "Music Instrument Classification Reprogrammed", MMM 2023, section 3.2.1.
"""

from typing import Any

from optuna.trial import BaseTrial

from search_spaces import _shared

PAPER = {
    **_shared.PAPER,
    "reprogrammer/depth": 3,
    "reprogrammer/width": 4,
    "reprogrammer/kernel": 3,
    "reprogrammer/norm": "batch",
    "reprogrammer/output_activation": "relu",
    "reprogrammer/has_input_skip": True,
    "reprogrammer/align_corners": True,
    "reprogrammer/is_residual": False,
    "reprogrammer/init_scale": 1.0,
}


def suggest(trial: BaseTrial) -> dict[str, Any]:
    """Draw one U-Net, one mapper and one training recipe."""
    trial.suggest_int("reprogrammer/depth", 2, 4)
    trial.suggest_int("reprogrammer/width", 2, 8, log=True)
    trial.suggest_categorical("reprogrammer/has_input_skip", [True, False])
    trial.suggest_categorical("reprogrammer/align_corners", [True, False])
    _shared.suggest_convolutions(trial)
    constants = _shared.suggest_mapper(trial)
    _shared.suggest_training(trial)
    return {"reprogrammer/kind": "unet", **constants}
