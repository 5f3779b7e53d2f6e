"""The systems that learn: reprogramming around a frozen backbone, and the systems that it is compared with.

A system's `forward` takes inputs and the worker's frozen backbone, and returns one logit a label. The backbone is an
argument, not a submodule: it belongs to no trial, appears in no checkpoint, and cannot be switched to training mode.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from harness.models.backbones import Backbone
from harness.models.checkpointing import recompute_in_backward
from harness.models.mappers import Linear, Logits
from harness.models.reprogrammers import Spectrograms


class Reprogrammed(nn.Module):
    """`log-mel -> normalisation -> reprogrammer -> backbone -> mapper -> logits`."""

    def __init__(self, normalisation: nn.Module, reprogrammer: nn.Module, mapper: nn.Module) -> None:
        super().__init__()
        self.normalisation = normalisation
        self.reprogrammer = reprogrammer
        self.mapper = mapper

    def rewrite(self, log_mel: Spectrograms) -> Spectrograms:
        """Return the spectrogram that enters the backbone."""
        rewritten: Tensor = self.reprogrammer(self.normalisation(log_mel))
        return rewritten

    def rewrite_for(self, backbone: Backbone, log_mel: Spectrograms) -> Spectrograms:
        """Return `rewrite` of a batch; compute it again for its gradient where the backbone saves memory."""
        if backbone.saves_memory(log_mel):
            return recompute_in_backward(self.rewrite, log_mel, state_of=self)
        return self.rewrite(log_mel)

    def forward(self, log_mel: Spectrograms, backbone: Backbone) -> Logits:
        """Return the labels' logits."""
        logits: Tensor = self.mapper(backbone.embed(self.rewrite_for(backbone, log_mel)), backbone)
        return logits


class FineTuned(nn.Module):
    """`log-mel -> normalisation -> backbone -> LayerNorm and linear layer -> logits`, from the weights of `start`.

    The backbone is a copy without the source head; `start` stays frozen. An AST has no dropout: training and evaluation
    mode compute the same.
    """

    def __init__(self, normalisation: nn.Module, start: Backbone, *, n_labels: int) -> None:
        super().__init__()
        self.normalisation = normalisation
        self.backbone = start.trainable_copy()
        self.mapper = Linear(embed_dim=start.embed_dim, n_labels=n_labels)

    def forward(self, log_mel: Spectrograms, _backbone: Backbone | None) -> Logits:
        """Return the labels' logits."""
        logits: Tensor = self.mapper(self.backbone.embed(self.normalisation(log_mel)), self.backbone)
        return logits


class CnnModel(nn.Module):
    """Four blocks of convolution and pooling, the mean and the maximum of their maps, and a linear layer."""

    def __init__(self, normalisation: nn.Module, n_labels: int, *, width: int, dropout: float) -> None:
        super().__init__()
        channels = [1, width, 2 * width, 4 * width, 4 * width]
        self.normalisation = normalisation
        # few channels over many pixels, as in a reprogrammer: channels last is faster on a CPU
        self.blocks = nn.Sequential(*(_block(*pair) for pair in pairwise(channels))).to(
            memory_format=torch.channels_last
        )
        self.mapper = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * channels[-1], n_labels))

    def forward(self, log_mel: Spectrograms, _backbone: Backbone | None) -> Logits:
        """Return the labels' logits."""
        maps = self.blocks(self.normalisation(log_mel).unsqueeze(1))
        pooled = torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)
        logits: Tensor = self.mapper(pooled)
        return logits


def _block(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    # ceil_mode: a side of one value stays one
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True))


VGGISH_MAX = 255.0

VGGISH_SIZE = 128

_EPS = 1e-7


class AttentionModel(nn.Module):
    """`VGGish -> BatchNorm -> blocks of 1 x 1 convolutions, plus the input -> attention pooling -> logits`.

    Convolutions have no bias, since a BatchNorm follows each.
    """

    def __init__(self, n_labels: int, *, depth: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(VGGISH_SIZE)
        self.blocks = nn.Sequential(*(_block_attention(dropout) for _ in range(depth)))
        self.pooling = AttentionPooling(VGGISH_SIZE, n_labels)

    def forward(self, vggish: Float[Tensor, "clip second dim"], _backbone: Backbone | None) -> Logits:
        """Return the labels' logits of raw VGGish features, 0 to 255."""
        features = (vggish / VGGISH_MAX).transpose(1, 2)
        logits: Tensor = self.pooling(self.blocks(self.norm(features)) + features)
        return logits


class AttentionPooling(nn.Module):
    """Each label's probability is a weighted mean over time; the weight of a second is learned for each label.

    The output is the logit of the mean, so a loss on logits is the loss on the mean itself. The mean is clamped to 1e-7
    from 0 and 1, where its logit is about 16 and passes no gradient. Cross-entropy on probabilities has almost no
    gradient there either: such an extreme mean comes from saturated sigmoids.
    """

    def __init__(self, dim: int, n_labels: int) -> None:
        super().__init__()
        self.attention = nn.Conv1d(dim, n_labels, 1)
        self.classes = nn.Conv1d(dim, n_labels, 1)

    def forward(self, features: Float[Tensor, "clip dim second"]) -> Logits:
        """Return the logits of the weighted means, in float32: in bfloat16 a probability of 0.999 is 1."""
        weight = self.attention(features).float().sigmoid().clamp(_EPS, 1 - _EPS)
        weight = weight / weight.sum(dim=-1, keepdim=True)
        mean = (weight * self.classes(features).float().sigmoid()).sum(dim=-1)
        return torch.logit(mean, eps=_EPS)


def _block_attention(dropout: float) -> nn.Sequential:
    convolution = nn.Conv1d(VGGISH_SIZE, VGGISH_SIZE, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm1d(VGGISH_SIZE), nn.ReLU(), nn.Dropout(dropout))
