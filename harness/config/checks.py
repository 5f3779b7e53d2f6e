"""What several parts check: each refuses with the path and the value as the user wrote them."""

from collections.abc import Collection


def one_of(path: str, value: object, choices: Collection[str]) -> None:
    """Refuse a value that is none of the choices, naming them.

    Raises:
        ValueError: always then.
    """
    if value not in choices:
        raise ValueError(f"{path}={value!r}: must be one of {', '.join(choices)}")


def at_least(path: str, value: float, minimum: float) -> None:
    """Refuse a value below the minimum.

    Raises:
        ValueError: always then.
    """
    if not value >= minimum:
        raise ValueError(f"{path}={value}: must be at least {minimum}")


def fraction(path: str, value: float) -> None:
    """Refuse a value outside 0 to below 1.

    Raises:
        ValueError: always then.
    """
    if not 0 <= value < 1:
        raise ValueError(f"{path}={value}: must be 0 to below 1")
