"""Does reprogramming repair what a missing normalisation breaks? Four normalisations x five reprogrammers, repeated.

    python -m harness.study --space normalisation

The paper seems to feed AST log-mel without normalisation. That may cause its 62 % without a reprogrammer, and the
U-Net's BatchNorms some of its gain. The table therefore has a CNN with and without BatchNorm beside the U-Net. A study
runs every cell three times, each with other weights and batches; `--trials 20` runs the table once.

Best on the demo set with that command: macro-F1 0.649 on validation (noise, normalised as in AudioSet); as means of
three, 0.615 without a reprogrammer normalised as in AudioSet, and 0.471 not normalised; always guessing the more
frequent answer gives 0.334. The whole table is in README.md.

Source: Chen and Lerch, "Music Instrument Classification Reprogrammed", MMM 2023: the four reprogrammers as they are.
Differs: one learning rate for all cells, by default 1e-3: the paper's 5e-5 is meant for 50 epochs of 12,678 clips. Hold
another with `--fix optimiser/lr=5e-5`.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

from optuna.trial import BaseTrial

_NORMALISATIONS = {"none": "none", "audioset": "AudioSet", "dataset": "data set", "learned": "learned affine"}
_ROWS: dict[tuple[str, str | None], str] = {
    ("none", None): "no reprogrammer",
    ("noise", None): "noise",
    ("cnn", "none"): "CNN",
    ("cnn", "batch"): "CNN + BatchNorm",
    ("unet", None): "U-Net",
}
_REPEATS = 3


def _configuration(kind: str, norm: str | None, normalisation: str) -> dict[str, Any]:
    drawn: dict[str, Any] = {"normalisation/kind": normalisation, "reprogrammer/kind": kind, "optimiser/lr": 1e-3}
    return drawn if norm is None else {**drawn, "reprogrammer/norm": norm}


PAPER: tuple[Mapping[str, Any], ...] = _REPEATS * tuple(
    _configuration(*row, normalisation) for row, normalisation in product(_ROWS, _NORMALISATIONS)
)


def suggest(trial: BaseTrial) -> dict[str, Any]:
    """Draw a cell and a learning rate."""
    trial.suggest_categorical("normalisation/kind", list(_NORMALISATIONS))
    kind = trial.suggest_categorical("reprogrammer/kind", ["none", "noise", "cnn", "unet"])
    if kind == "cnn":
        trial.suggest_categorical("reprogrammer/norm", ["none", "batch"])
    trial.suggest_float("optimiser/lr", 1e-5, 3e-2, log=True)
    return {"mapper/kind": "linear"}


def cell(paths: Mapping[str, Any]) -> tuple[str, str]:
    """Return the row and the column of a configuration."""
    kind = paths["reprogrammer/kind"]
    return _ROWS[kind, paths["reprogrammer/norm"] if kind == "cnn" else None], _NORMALISATIONS[
        paths["normalisation/kind"]
    ]
