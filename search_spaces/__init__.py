"""What may vary: each module of this folder whose name has no underscore is a space, found by that name.

A space is a function `suggest(trial)` that draws parameters and returns what it holds constant, and `PAPER`, the
parameters of the paper's own configuration (or a tuple of several), with which every study of the space begins.
"""

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import optuna


class Suggest(Protocol):
    """Draws one configuration's parameters from the trial and returns its constants, both by path."""

    def __call__(self, trial: optuna.trial.BaseTrial, /) -> Mapping[str, Any]:
        """Draw the parameters; return the constants."""
        ...


@dataclass(frozen=True)
class Space:
    """A search space by name; `paper` holds the drawn parameters of the paper's configurations, by path."""

    name: str
    suggest: Suggest
    paper: tuple[Mapping[str, Any], ...]
    summary: str


def names() -> tuple[str, ...]:
    """Return the names of all spaces, in alphabetical order."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")))


def load(name: str) -> Space:
    """Return the space of that name.

    Raises:
        ValueError: there is no such space, or its module lacks a part of one.
    """
    if name not in names():
        raise ValueError(f"space={name!r}: must be one of {', '.join(names())}")
    module = import_module(f"{__name__}.{name}")
    missing = [part for part in ("suggest", "PAPER") if not hasattr(module, part)]
    if missing:
        raise ValueError(f"{module.__file__}: lacks {' and '.join(missing)}; a space is suggest(trial) and PAPER")
    paper = module.PAPER if isinstance(module.PAPER, tuple) else (module.PAPER,)
    return Space(name, module.suggest, paper, (module.__doc__ or name).splitlines()[0])
