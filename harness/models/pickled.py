"""Tensors out of PyTorch's own files, such as the original release's `.pth` and Hugging Face's `pytorch_model.bin`."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from harness.errors import first_line

SUFFIXES = (".pth", ".bin")


def read_state(file: Path) -> Mapping[str, Tensor]:
    """Return the named tensors of a file; nothing but tensors is unpickled.

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    try:
        with file.open("rb") as opened:
            state = torch.load(opened, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:  # OSError of a cut file
        raise ValueError(f"{file}: not a whole checkpoint of tensors alone ({first_line(error)})") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{file}: holds no mapping of names to tensors, so it is no AST")
    return state
