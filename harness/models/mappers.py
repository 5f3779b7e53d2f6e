"""Mappers: from the frozen backbone's output to one logit a label.

A mapper takes the embedding and the backbone: some read the embedding, others the source logits.

Source: Chen and Lerch, MMM 2023, section 3.3.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from harness.models.backbones import Backbone
from harness.models.label_mapping import Affinity, MappingTask, method_of

Embeddings = Float[Tensor, "clip dim"]
Logits = Float[Tensor, "clip label"]


class Linear(nn.Module):
    """LayerNorm and a linear layer on the embedding."""

    def __init__(self, *, embed_dim: int, n_labels: int, **_: Any) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim)
        self.linear = nn.Linear(embed_dim, n_labels)

    def forward(self, embedding: Embeddings, _backbone: Backbone) -> Logits:
        """Return the labels' logits."""
        logits: Tensor = self.linear(self.norm(embedding))
        return logits


class Fc(nn.Module):
    """A linear layer on the source labels' logits or probabilities."""

    def __init__(self, *, n_sources: int, n_labels: int, reads: str, **_: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(n_sources, n_labels)
        self.reads_probabilities = reads == "probabilities"

    def forward(self, embedding: Embeddings, backbone: Backbone) -> Logits:
        """Return the labels' logits."""
        source = backbone.logits(embedding)
        logits: Tensor = self.linear(source.sigmoid() if self.reads_probabilities else source)
        return logits


class Calibration(nn.Module):
    """A learned scale and shift of each label, initially the identity."""

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
        logits: Tensor = self.calibrate(backbone.logits(embedding)[:, self.assignment].mean(dim=-1))
        return logits

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """Take an assignment of any width from a state: a checkpoint may come from another method."""
        if (found := state_dict.get(f"{prefix}assignment")) is not None and found.ndim == 2:
            self.assignment = torch.empty_like(found, device=self.assignment.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def build_many_to_one(
    *,
    labels: tuple[str, ...],
    source_labels: tuple[str, ...],
    assignment: str,
    sources_per_label: int,
    is_calibrated: bool,
    seed: int,
    label_affinity: Callable[[], Affinity],
    **_: Any,
) -> ManyToOne:
    """Return a mapper that averages the source labels assigned to each label."""
    assigned = method_of(assignment)(MappingTask(labels, source_labels, sources_per_label, seed, label_affinity))
    return ManyToOne(torch.from_numpy(assigned), is_calibrated=is_calibrated)
