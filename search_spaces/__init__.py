"""Search spaces by name: the modules of this folder whose names have no underscore, and those of installed packages.

A space is a module with a function `suggest(trial)` and `PAPER`. `suggest` draws parameters and returns its constants.
Every study begins with `PAPER`: the parameters of the paper's configuration, or a tuple of several. A space that
compares all of `PAPER` also has `cell(paths)`, which returns the row and the column of a configuration in its table.

A package adds a space by an entry point of the group `reprogramming_harness.search_spaces` that names such a module.
"""

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from optuna.trial import BaseTrial

from search_spaces._shared import PRESETS as PRESETS

Suggest = Callable[[BaseTrial], Mapping[str, Any]]
"""Draws one configuration's parameters from the trial and returns its constants, both by path."""


@dataclass(frozen=True)
class Space:
    """A search space by name; `paper` holds the drawn parameters of the paper's configurations, by path.

    With a `cell`, the space is a table: each configuration of `paper` is run, and `cell` gives its row and column.
    """

    name: str
    suggest: Suggest
    paper: tuple[Mapping[str, Any], ...]
    summary: str
    cell: Callable[[Mapping[str, Any]], tuple[str, str]] | None = None


def names() -> tuple[str, ...]:
    """Return the names of all spaces, in alphabetical order."""
    return tuple(sorted({*_built_in(), *_installed()}))


def _built_in() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]


@cache
def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="reprogramming_harness.search_spaces")}


def load(name: str, preset: str | None = None) -> Space:
    """Return the space of that name, with the training recipe held if a preset is given.

    Raises:
        ValueError: there is no such space or preset, a part of the space is missing, or the two do not go together.
    """
    if name not in names():
        raise ValueError(f"space={name!r}: must be one of {', '.join(names())}")
    module = _module(name)
    if missing := [part for part in ("suggest", "PAPER") if not hasattr(module, part)]:
        raise ValueError(f"{module.__file__}: lacks {' and '.join(missing)}; a space is suggest(trial) and PAPER")
    paper = module.PAPER if isinstance(module.PAPER, tuple) else (module.PAPER,)
    summary = (module.__doc__ or name).splitlines()[0]
    space = Space(name, module.suggest, paper, summary, getattr(module, "cell", None))
    return space if preset is None else _with_preset(space, preset)


def _module(name: str) -> Any:
    """Import a space's module.

    Raises:
        ValueError: an installed package gives its space a name that is in use, or its module cannot be imported.
    """
    point = _installed().get(name)
    if point is None:
        return import_module(f"{__name__}.{name}")
    if name in _built_in():
        raise ValueError(f"space={name!r}: {point.value} has the name of a built-in space; give it another")
    try:
        return point.load()
    except Exception as error:
        raise ValueError(f"space={name!r}: {point.value} cannot be loaded ({type(error).__name__}: {error})") from error


def _with_preset(space: Space, preset: str) -> Space:
    """Return the space with the preset's paths held.

    Raises:
        ValueError: there is no such preset, or the space is about the recipe.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset={preset!r}: must be one of {', '.join(PRESETS)}")
    if space.cell is not None or any("training/targets" in one for one in space.paper):
        raise ValueError(f"preset={preset}: cannot go with space {space.name}, which compares recipes itself")
    if [one for one in space.paper if "normalisation/kind" not in one]:  # `all` is a space's name here
        raise ValueError(
            f"preset={preset}: cannot go with space {space.name}; a preset is the recipe of systems that read log-mel, "
            "and this space has others"
        )
    held = PRESETS[preset].paths

    def suggest(trial: BaseTrial) -> dict[str, Any]:
        return {**space.suggest(cast("BaseTrial", HeldTrial(trial, held))), **held}

    paper = tuple({path: value for path, value in one.items() if path not in held} for one in space.paper)
    return replace(space, suggest=suggest, paper=paper)


class HeldTrial:
    """A trial that answers `suggest_...` calls with held values where it has any, and draws the rest."""

    def __init__(self, trial: BaseTrial, held: Mapping[str, Any]) -> None:
        self._trial, self._held = trial, held

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return the held value, or draw one of the choices."""
        return self._held[name] if name in self._held else self._trial.suggest_categorical(name, choices)

    def suggest_int(self, name: str, low: int, high: int, **options: Any) -> int:
        """Return the held value, or draw a whole number."""
        return int(self._held[name]) if name in self._held else self._trial.suggest_int(name, low, high, **options)

    def suggest_float(self, name: str, low: float, high: float, **options: Any) -> float:
        """Return the held value, or draw a number."""
        return float(self._held[name]) if name in self._held else self._trial.suggest_float(name, low, high, **options)
