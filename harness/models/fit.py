"""Whether the tensors of a file are those that an AST of its geometry has, told by the names that the file uses."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

_N_NAMED = 5


def check_fit(file: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse a file that lacks tensors, has others, or has them in another shape or of other values than weights are.

    Raises:
        ValueError: the message counts all that do not fit, and names the first few.
    """
    problems = [f"missing {key}" for key in expected if key not in found]
    problems += [f"unknown {key}" for key in found if key not in expected]
    problems += [
        f"{key} is {tuple(found[key].shape)}, must be {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in found and found[key].shape != tensor.shape
    ]
    problems += [f"{key} {odd}" for key in expected if key in found and (odd := _oddness(found[key]))]
    if problems:
        more = f"; and {len(problems) - _N_NAMED} more" if len(problems) > _N_NAMED else ""
        raise ValueError(
            f"{file}: {len(problems)} tensors do not fit the geometry: {'; '.join(problems[:_N_NAMED])}{more}"
        )


def _oddness(tensor: Tensor) -> str:
    """Say why these are no weights; "" if they may be."""
    if not tensor.is_floating_point():
        return f"holds {str(tensor.dtype).removeprefix('torch.')}, must hold floating-point numbers"
    return "" if tensor.float().isfinite().all() else "holds NaN or infinity"
