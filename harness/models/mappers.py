"""Mappers: from what the frozen backbone gives to one logit a label.

A mapper is called with the embedding and the backbone, since some read the embedding and some the source logits.

Source: Chen and Lerch, MMM 2023, section 3.3; Yang, Tsai and Chen, "Voice2Series", ICML 2021, for many-to-one mapping.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from harness.config.components import Mapper
from harness.config.trial import MAPPERS
from harness.models.backbones.ast import Backbone

Embeddings = Float[Tensor, "clip dim"]
Logits = Float[Tensor, "clip label"]
SourceUse = Callable[[], Float[np.ndarray, "label source"]]


class Linear(nn.Module):
    """LayerNorm and a linear layer on the embedding."""

    def __init__(self, embed_dim: int, n_labels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim)
        self.linear = nn.Linear(embed_dim, n_labels)

    def forward(self, embedding: Embeddings, backbone: Backbone) -> Logits:  # noqa: ARG002
        """Return the labels' logits."""
        logits: Tensor = self.linear(self.norm(embedding))
        return logits


class Fc(nn.Module):
    """A linear layer on the source labels' logits or probabilities."""

    def __init__(self, n_sources: int, n_labels: int, *, reads: str) -> None:
        super().__init__()
        self.linear = nn.Linear(n_sources, n_labels)
        self.reads_probabilities = reads == "probabilities"

    def forward(self, embedding: Embeddings, backbone: Backbone) -> Logits:
        """Return the labels' logits."""
        source = backbone.classify(embedding)
        logits: Tensor = self.linear(source.sigmoid() if self.reads_probabilities else source)
        return logits


class Calibration(nn.Module):
    """A learned scale and shift of each label, the identity at the start."""

    def __init__(self, n_labels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(n_labels))
        self.shift = nn.Parameter(torch.zeros(n_labels))

    def forward(self, logits: Logits) -> Logits:
        """Return the calibrated logits."""
        return logits * self.scale + self.shift


class ManyToOne(nn.Module):
    """The mean over the logits of the source labels assigned to each label, scaled and shifted if calibrated."""

    def __init__(self, assignment: Int[Tensor, "label source"], *, is_calibrated: bool) -> None:
        super().__init__()
        self.assignment: Tensor
        self.register_buffer("assignment", assignment)
        self.calibrate = Calibration(len(assignment)) if is_calibrated else nn.Identity()

    def forward(self, embedding: Embeddings, backbone: Backbone) -> Logits:
        """Return the labels' logits."""
        logits: Tensor = self.calibrate(backbone.classify(embedding)[:, self.assignment].mean(dim=-1))
        return logits


def assign(
    kind: str, *, n_sources: int, n_labels: int, per_label: int, seed: int, source_use: SourceUse
) -> Int[np.ndarray, "label source"]:
    """Return source labels for each label: `per_label`, or as many as there are to go round; none serves two labels.

    `contiguous`: in index order. `random`: drawn with the seed. `frequent`: greedily by how much more often the
    backbone hears a source label in the label's positive clips than in its negative ones.

    Raises:
        ValueError: there are fewer source labels than labels.
    """
    if n_sources < n_labels:
        raise ValueError(
            f"mapper/kind=many_to_one: each of the {n_labels} labels needs a source label of its own, the backbone has "
            f"{n_sources}; choose linear or fc"
        )
    per_label = min(per_label, n_sources // n_labels)
    if kind == "frequent":
        return _greedy(source_use(), per_label)
    order = np.arange(n_sources) if kind == "contiguous" else np.random.default_rng(seed).permutation(n_sources)
    return order[: per_label * n_labels].reshape(n_labels, per_label)


def build_linear(*, embed_dim: int, n_labels: int, **_: Any) -> Linear:
    """Return a linear mapper."""
    return Linear(embed_dim, n_labels)


def build_fc(*, n_sources: int, n_labels: int, reads: str, **_: Any) -> Fc:
    """Return a mapper that reads the source labels."""
    return Fc(n_sources, n_labels, reads=reads)


def build_many_to_one(
    *,
    n_sources: int,
    n_labels: int,
    assignment: str,
    sources_per_label: int,
    is_calibrated: bool,
    seed: int,
    source_use: SourceUse,
    **_: Any,
) -> ManyToOne:
    """Return a mapper whose labels have source labels assigned."""
    assigned = assign(
        assignment,
        n_sources=n_sources,
        n_labels=n_labels,
        per_label=sources_per_label,
        seed=seed,
        source_use=source_use,
    )
    return ManyToOne(torch.from_numpy(assigned), is_calibrated=is_calibrated)


def build_mapper(
    config: Mapper, *, embed_dim: int, n_sources: int, n_labels: int, seed: int, source_use: SourceUse
) -> nn.Module:
    """Return the mapper of a configuration, at its initial weights.

    `source_use` is called only by the mapper that needs it, since it runs the backbone over training clips.
    """
    mapper: nn.Module = MAPPERS[config.kind].builder(
        embed_dim=embed_dim,
        n_sources=n_sources,
        n_labels=n_labels,
        seed=seed,
        source_use=source_use,
        **asdict(config),
    )
    return mapper


def _greedy(use: Float[np.ndarray, "label source"], per_label: int) -> Int[np.ndarray, "label source"]:
    """Assign the pairs of highest use first, each source label once, each label `per_label` times."""
    chosen: list[list[int]] = [[] for _ in use]
    taken: set[int] = set()
    for flat in np.argsort(-use, axis=None, kind="stable"):
        label, source = divmod(int(flat), use.shape[1])
        if source not in taken and len(chosen[label]) < per_label:
            chosen[label].append(source)
            taken.add(source)
    return np.array(chosen, dtype=np.int64)
