"""Everything that learns: normalisation, reprogrammer and mapper around a frozen backbone."""

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor, nn

from harness.models.backbones import Backbone
from harness.models.checkpointing import recompute_in_backward
from harness.models.parameters import learned_counts, learned_parameters


class Reprogrammed(nn.Module):
    """`log-mel -> normalisation -> reprogrammer -> backbone -> mapper -> logits`.

    The backbone is an argument of `forward`, not a submodule: it belongs to no trial, appears in no checkpoint, and
    cannot be switched to training mode from here.
    """

    def __init__(self, normalisation: nn.Module, reprogrammer: nn.Module, mapper: nn.Module) -> None:
        super().__init__()
        self.normalisation = normalisation
        self.reprogrammer = reprogrammer
        self.mapper = mapper

    def rewrite(self, log_mel: Float[Tensor, "clip frame mel"]) -> Float[Tensor, "clip frame mel"]:
        """Return the spectrogram that enters the backbone."""
        rewritten: Tensor = self.reprogrammer(self.normalisation(log_mel))
        return rewritten

    def forward(self, log_mel: Float[Tensor, "clip frame mel"], backbone: Backbone) -> Float[Tensor, "clip label"]:
        """Return the labels' logits."""
        if backbone.saves_memory(log_mel):
            rewritten = recompute_in_backward(self.rewrite, log_mel, state_of=self)
        else:
            rewritten = self.rewrite(log_mel)
        logits: Tensor = self.mapper(backbone.embed(rewritten), backbone)
        return logits

    def learned(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that learn: all of them, since the backbone is not a submodule."""
        return learned_parameters(self)

    def parameter_counts(self) -> dict[str, int]:
        """Return the number of learned values of each part."""
        return learned_counts(self)
