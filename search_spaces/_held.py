"""A trial in which some paths are not drawn but held at given values."""

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import BaseTrial


class HeldTrial:
    """Answers a space's `suggest_...` calls with the held values where there are any, and draws the rest."""

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
