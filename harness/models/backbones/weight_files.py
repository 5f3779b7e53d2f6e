"""Checks of weight files before their tensors are used: format, names, shapes and values."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
"""What files of weights are commonly named, in lower case."""

_N_BYTES = 512


def is_pickled(file: Path) -> bool:
    """Return whether a file is one of PyTorch's own, of this time or of before 1.6; if not, it is of safetensors.

    Raises:
        ValueError: it is neither; the message says what it is, as far as that can be told.
    """
    with file.open("rb") as opened:
        head = opened.read(_N_BYTES)
    if head[4:9] == b"\0\0\0\0{":  # a length below 4 GB in eight bytes, and the header, which is JSON
        return False
    if head.startswith((b"PK\x03\x04", b"\x80")):  # a zip archive, or a pickle of protocol 2 or above
        return True
    raise ValueError(f"{file}: {_what_it_is(head)}")


def _what_it_is(head: bytes) -> str:
    if not head:
        return "empty; download the file anew"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer in the place of the weights; run `git lfs pull` where it was cloned"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page in the place of the weights; download the file anew, by the address of the file itself"
    return f"neither a safetensors file nor one of PyTorch's, written by `torch.save`: it begins with {head[:16]!r}"


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
