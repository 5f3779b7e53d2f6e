"""What the numbers of an AST may be, and how a wrong one is told: by the name under which it was given."""

import reprlib
from collections.abc import Mapping
from typing import Any

PATCH = 16

_WHOLE = {
    "embed_dim": (1, 2**14),
    "depth": (1, 1000),
    "num_heads": (1, 1000),
    "frequency_stride": (1, 2**16),
    "time_stride": (1, 2**16),
    "n_mels": (PATCH, 2**12),
    "n_frames": (PATCH, 2**16),
    "n_source_labels": (1, 10**6),
}
"""The least and the largest value. More is no AST but a damaged file, and would fill the memory before it fails."""

_REAL = {"window_ms": 10_000, "hop_ms": 10_000, "layer_norm_eps": 1, "head_eps": 1}
"""The largest value of numbers above 0."""


def check_geometry(values: Mapping[str, Any], *, called: Mapping[str, str] | None = None) -> None:
    """Refuse what no AST can have. `called` holds other names of the fields than ours, as the user knows them.

    Raises:
        ValueError: the message gives a number's name, its value and the rule.
    """
    names = {field: (called or {}).get(field, field) for field in values}
    for field, value in values.items():
        if rule := _broken_rule(field, value):
            raise ValueError(f"{names[field]}={reprlib.repr(value)}: must be {rule}")
    dim, heads = values["embed_dim"], values["num_heads"]
    if dim % heads:
        raise ValueError(f"{names['num_heads']}={heads}: must divide {names['embed_dim']}={dim}")


def _broken_rule(field: str, value: object) -> str:
    """Return the rule that the value breaks, or nothing. A boolean is no number here, NaN and infinity neither."""
    if field in _WHOLE:
        least, most = _WHOLE[field]
        if type(value) is int and least <= value <= most:
            return ""
        return f"a whole number from {f'one patch, {PATCH},' if least == PATCH else least} to {most}"
    if type(value) in (int, float) and 0 < value <= _REAL[field]:  # type: ignore[operator]
        return ""
    return f"a number above 0 and at most {_REAL[field]}"
