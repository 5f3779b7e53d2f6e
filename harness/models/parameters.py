"""The learned parameters of a model, and their counts."""

from collections.abc import Iterator

from torch import nn


def learned_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters that learn."""
    return (parameter for parameter in model.parameters() if parameter.requires_grad)


def learned_counts(model: nn.Module) -> dict[str, int]:
    """Return the number of learned values of each part."""
    return {name: sum(p.numel() for p in learned_parameters(part)) for name, part in model.named_children()}
