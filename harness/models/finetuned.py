"""Fine-tuning: a backbone of the trial's own, all of which learns."""

import copy
from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor, nn

from harness.models.ast import Ast, Backbone
from harness.models.mappers import Linear
from harness.models.parameters import learned_counts, learned_parameters


class FineTuned(nn.Module):
    """`log-mel -> normalisation -> AST -> LayerNorm and linear layer -> logits`, from the weights of `start`.

    The AST is a copy without the source head, so that `start` stays as it is. It has no dropout: training and
    evaluation mode compute the same.
    """

    def __init__(self, normalisation: nn.Module, start: Ast, *, n_labels: int) -> None:
        super().__init__()
        self.normalisation = normalisation
        self.backbone = copy.deepcopy(start).requires_grad_(True)
        del self.backbone.head_norm, self.backbone.head
        self.mapper = Linear(start.geometry.embed_dim, n_labels)

    def forward(
        self,
        log_mel: Float[Tensor, "clip frame mel"],
        backbone: Backbone | None,  # noqa: ARG002
    ) -> Float[Tensor, "clip label"]:
        """Return the labels' logits."""
        logits: Tensor = self.mapper(self.backbone.embed(self.normalisation(log_mel)), self.backbone)
        return logits

    def learned(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that learn."""
        return learned_parameters(self)

    def parameter_counts(self) -> dict[str, int]:
        """Return the number of learned values of each part."""
        return learned_counts(self)
