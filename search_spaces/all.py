"""Every system of the paper in one study: which one, at what size?

    python -m harness.study --space all
    python -m harness.study --space all --fix system/kind=reprogramming --objective f1,params

(The second leaves out the forest, whose trees have no parameters to count.)

Best on the demo set with the first: macro-F1 0.708 on validation, 845,972 trainable parameters (fine-tuning, one cycle
up to a rate of 2.4e-3); always guessing the more frequent answer gives 0.334.

Source: Chen and Lerch, "Music Instrument Classification Reprogrammed", MMM 2023, sections 3 and 4.3.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from optuna.trial import BaseTrial

from search_spaces import cnn, cnn_baseline, finetune, mean_teacher, noise, none, random_forest, unet

_REPROGRAMMERS: dict[str, ModuleType] = {"none": none, "noise": noise, "cnn": cnn, "unet": unet}
_OTHERS: dict[str, ModuleType] = {
    "finetune": finetune,
    "cnn_baseline": cnn_baseline,
    "attention": mean_teacher,
    "random_forest": random_forest,
}

PAPER: tuple[Mapping[str, Any], ...] = (
    *(
        {**space.PAPER, "system/kind": "reprogramming", "reprogrammer/kind": kind}
        for kind, space in _REPROGRAMMERS.items()
    ),
    *({**space.PAPER, "system/kind": kind} for kind, space in _OTHERS.items()),
)


def suggest(trial: BaseTrial) -> dict[str, Any]:
    """Draw a kind of system, of reprogrammer if it has one, then all that its own space draws."""
    system = trial.suggest_categorical("system/kind", ["reprogramming", *_OTHERS])
    if system == "reprogramming":
        space = _REPROGRAMMERS[trial.suggest_categorical("reprogrammer/kind", list(_REPROGRAMMERS))]
    else:
        space = _OTHERS[system]
    constants: dict[str, Any] = space.suggest(trial)
    return constants
