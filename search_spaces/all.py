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

from optuna.trial import BaseTrial, FixedTrial

from search_spaces import cnn, cnn_baseline, finetune, mean_teacher, noise, none, random_forest, unet


def _kinds(space: ModuleType) -> dict[str, Any]:
    """Return the kind of a space's system, and of its reprogrammer if it has one, from the constants of the space."""
    constants = {"system/kind": "reprogramming", **space.suggest(FixedTrial(dict(space.PAPER)))}
    return {path: constants[path] for path in ("system/kind", "reprogrammer/kind") if path in constants}


_SPACES = [
    (_kinds(space), space) for space in (none, noise, cnn, unet, finetune, cnn_baseline, mean_teacher, random_forest)
]

PAPER: tuple[Mapping[str, Any], ...] = tuple({**space.PAPER, **kinds} for kinds, space in _SPACES)


def suggest(trial: BaseTrial) -> dict[str, Any]:
    """Draw a kind of system, of reprogrammer if it has one, then the parameters of its own space."""
    spaces = _SPACES
    for path in ("system/kind", "reprogrammer/kind"):
        if len(spaces) > 1:
            kind = trial.suggest_categorical(path, list(dict.fromkeys(kinds[path] for kinds, _ in spaces)))
            spaces = [(kinds, space) for kinds, space in spaces if kinds[path] == kind]
    ((_, space),) = spaces
    constants: dict[str, Any] = space.suggest(trial)
    return constants
