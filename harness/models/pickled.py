"""Tensors out of PyTorch's own files, such as the original release's `.pth` and Hugging Face's `pytorch_model.bin`."""

import re
import reprlib
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from harness.data.tables import few
from harness.errors import first_line


def read_state(file: Path) -> Mapping[str, Tensor]:
    """Return the named tensors of a file; nothing but tensors is unpickled.

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    try:
        with file.open("rb") as opened, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats that are refused here
            state = torch.load(opened, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise any
        raise ValueError(f"{file}: {_in_our_words(error)}") from None
    if problem := _problem(state):
        raise ValueError(f"{file}: {problem}")
    checked: Mapping[str, Tensor] = state
    return checked


def _in_our_words(error: Exception) -> str:
    """Say what is wrong with a file that cannot be unpickled; PyTorch's own words advise to run whatever it holds."""
    if refused := re.search(r"GLOBAL (\S+) ", str(error)):
        return f"holds more than tensors, {refused[1]!r}, which is not unpickled; save the `state_dict()` alone"
    if "Unsupported operand" in str(error):
        why = ", or of another pickle protocol than `torch.save` writes by default"
    else:
        why = "" if "weights_only" in str(error) else f" ({first_line(error)})"
    return f"not a whole checkpoint of tensors alone{why}"


def _problem(state: object) -> str:
    """Say why what was unpickled are no named tensors; "" if they are."""
    if not isinstance(state, Mapping):
        return f"holds no mapping of names to tensors, but a {type(state).__name__}"
    if odd := [reprlib.repr(name) for name in state if not isinstance(name, str)]:
        return f"the names of tensors must be strings, not {few(odd)}"
    if others := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        are = "is no tensor" if len(others) == 1 else "are no tensors"
        return f"holds no mapping of names to tensors: {few(map(reprlib.repr, others))} {are}{_advice(state)}"
    if odd := [reprlib.repr(name) for name, value in state.items() if not _is_plain(value)]:
        return f"{few(odd)} is sparse, nested or without values; save plain tensors"
    return ""


def _advice(state: Mapping[str, object]) -> str:
    """Say which one entry is such a mapping, as in what a training run saves; "" if none is or several are."""
    nested = [name for name, value in state.items() if _is_state(value)]
    return f"; such a mapping is under {reprlib.repr(nested[0])}: save that alone" if len(nested) == 1 else ""


def _is_state(value: object) -> bool:
    are_tensors = isinstance(value, Mapping) and {isinstance(tensor, Tensor) for tensor in value.values()}
    return are_tensors == {True}


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_nested
