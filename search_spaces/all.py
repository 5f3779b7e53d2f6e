"""Every reprogrammer of the paper in one study: which one, at what size?

    python -m harness.study --space all --objective f1,params

Source: Chen and Lerch, "Music Instrument Classification Reprogrammed", MMM 2023, section 3.
"""

from collections.abc import Mapping
from typing import Any

from optuna.trial import BaseTrial

from search_spaces import cnn, noise, none, unet

_SPACES = {"none": none, "noise": noise, "cnn": cnn, "unet": unet}

PAPER: tuple[Mapping[str, Any], ...] = tuple(
    {**space.PAPER, "reprogrammer/kind": kind} for kind, space in _SPACES.items()
)


def suggest(trial: BaseTrial) -> dict[str, Any]:
    """Draw a kind of reprogrammer, then all that its own space draws."""
    kind = trial.suggest_categorical("reprogrammer/kind", list(_SPACES))
    constants: dict[str, Any] = _SPACES[kind].suggest(trial)
    return constants
