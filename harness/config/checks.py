"""Checks that several configs share. Each raises a ValueError with the path and the value as the user wrote them."""

from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

_TYPES: dict[type, tuple[type, str]] = {
    bool: (bool, "true or false"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: (str, "a name"),
}


def of_type(path: str, value: object, expected: Any) -> None:
    """Check a value against a field's type, if that is bool, int, float or str; a whole number is a number."""
    accepted, words = _TYPES.get(expected, (object, ""))
    if not isinstance(value, accepted) or (isinstance(value, bool) and expected in (int, float)):
        raise ValueError(f"{path}={value!r}: must be {words}, not of type {type(value).__name__}")


def one_of(path: str, value: object, choices: Collection[str]) -> None:
    """Check that a value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{path}={value!r}: must be one of {', '.join(choices)}")


def at_least(path: str, value: float, minimum: float) -> None:
    """Check that a value is at least `minimum`, and a number."""
    if not value >= minimum:
        raise ValueError(f"{path}={value}: must be at least {minimum}")


def above_zero(path: str, value: float) -> None:
    """Check that a value is positive."""
    if not value > 0:
        raise ValueError(f"{path}={value}: must be above 0")


def fraction(path: str, value: float) -> None:
    """Check that a value is 0 or more and below 1."""
    if not 0 <= value < 1:
        raise ValueError(f"{path}={value}: must be 0 to below 1")
