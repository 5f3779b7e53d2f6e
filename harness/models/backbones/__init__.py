"""Backbones: frozen networks from spectrograms to embeddings, and the registry that opens them.

A `--backbone` is `FAMILY:NAME`, where NAME is whatever the family understands, a file for instance. Without a family it
is an AST: `ast-nano`, `ast-base384@512`, `path/to/model.safetensors`.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from harness.common.registry import Registry
from harness.features.log_mel import FrontEnd
from harness.models.backbones import checkpoints


class Backbone(Protocol):
    """A frozen network that maps a batch of spectrograms to embeddings; an `nn.Module` that belongs to no trial.

    Spectrograms are log-mel from `front_end`, normalised as those of AST: `(x - mean) / (2 std)` with AudioSet's mean
    and standard deviation.
    """

    @property
    def input_shape(self) -> tuple[int, int]:
        """Return the frames and mels of a spectrogram."""

    @property
    def front_end(self) -> FrontEnd:
        """Return the front end that computes its spectrograms."""

    @property
    def source_labels(self) -> tuple[str, ...]:
        """Return the names of the labels of `logits`, in their order; indices if they have no names."""

    @property
    def embed_dim(self) -> int:
        """Return the size of an embedding."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return the numbers and strings that, with the weights, decide its outputs: part of its digest."""

    def embed(self, spectrogram: Float[Tensor, "clip frame mel"]) -> Float[Tensor, "clip dim"]:
        """Return one embedding a clip."""

    def logits(self, embedding: Float[Tensor, "clip dim"]) -> Float[Tensor, "clip source"]:
        """Return the logits of the source labels."""

    def saves_memory(self, spectrogram: Float[Tensor, "clip frame mel"]) -> bool:
        """Return whether `embed` saves memory on this batch, at the cost of time."""

    def freeze(self) -> Self:
        """Switch to evaluation mode and take the gradients away from all parameters; return itself."""

    def trainable_copy(self) -> "Backbone":
        """Return a copy without the source head, all of whose parameters learn."""

    def to(self, device: torch.device | str, /) -> Self:
        """Move to a device; return itself."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield all parameters."""

    def buffers(self) -> Iterator[Tensor]:
        """Yield all buffers."""

    def state_dict(self) -> dict[str, Any]:
        """Return all tensors by name."""


@dataclass(frozen=True)
class Family:
    """How to open the backbones of one architecture by name.

    `load` returns a frozen float32 backbone on the CPU. `origin` returns the record of the weights' file, empty without
    one. Each raises ValueError or FileNotFoundError.
    """

    load: Callable[[str], Backbone]
    origin: Callable[[str], dict[str, str]] = lambda _name: {}


_AST = "ast"

BACKBONES: Registry[Family] = Registry(
    "backbones", {_AST: Family(checkpoints.load_ast_backbone, checkpoints.origin_of)}
)


def load_backbone(name: str) -> Backbone:
    """Return the backbone that a `--backbone` names, frozen.

    Raises:
        ValueError: there is no such name, or its file does not hold such a network.
        FileNotFoundError: a file does not exist or cannot be fetched.
    """
    family, rest = _family(name)
    return family.load(rest)


def origin_of(name: str) -> dict[str, str]:
    """Return the record of where a backbone's weights come from, empty if nothing but its name says so."""
    family, rest = _family(name)
    return family.origin(rest)


def backbone_digest(backbone: Backbone) -> str:
    """Return the SHA-256 of a backbone's settings and of every weight, as hex."""
    digest = hashlib.sha256(json.dumps(dict(backbone.settings), sort_keys=True).encode())
    for key, tensor in sorted(backbone.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _family(name: str) -> tuple[Family, str]:
    """Return the family of a `--backbone`, and the name that the family opens."""
    kind, _, rest = name.partition(":")
    return (BACKBONES[kind], rest) if kind in BACKBONES and name != _AST else (BACKBONES[_AST], name)
