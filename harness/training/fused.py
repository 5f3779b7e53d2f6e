"""Several trainings share the passes of one frozen backbone.

A training is a generator. It yields the passes it needs, gets their results by `send`, and yields its epochs. Passes
of several trainings run as one, over their batches end to end. Nothing in a frozen backbone joins the clips of a batch,
so each training gets the numbers that it gets alone, up to the rounding of larger matrix products.

    training:  rewrite its batch -> Embed    -> mapper, loss, backward to the embedding -> Gradient -> optimiser step
    together:                       forward                                                backward
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from harness.common.registry import resolve
from harness.config.study import PRECISIONS
from harness.models.backbones import Backbone


@dataclass(frozen=True, eq=False)
class Embed:
    """Asks for the embeddings of a batch; the answer is a tensor without a graph.

    A batch that requires a gradient gets it through a `Gradient`, which must follow the answer.
    """

    backbone: Backbone
    spectrogram: Float[Tensor, "clip frame mel"]
    precision: str


@dataclass(frozen=True, eq=False)
class Gradient:
    """Asks for the gradient of the last batch's spectrograms, given that of its embeddings."""

    embedding: Float[Tensor, "clip dim"]


Pass = Embed | Gradient
T = TypeVar("T")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)
Training = Generator[Pass | T, Any, None]
"""Yields passes and results of any type; the answer to a pass is a tensor, to a result None."""


def run_alone(training: Generator[Pass | T, Any, R]) -> Generator[T, None, R]:
    """Answer the passes of one training; yield its results, and return its value."""
    answer: Tensor | None = None
    while True:
        try:
            found = training.send(answer)
        except StopIteration as end:
            value: R = end.value
            return value
        if isinstance(found, Embed):
            shared = _SharedPass([found])
            (answer,) = shared.embeddings
        elif isinstance(found, Gradient):
            (answer,) = shared.gradients([found])
        else:
            yield found
            answer = None


def complete(training: Generator[Pass, Any, R]) -> R:
    """Run a part of a training that has no results, alone; return its value."""
    alone: Generator[Any, None, R] = run_alone(training)
    while True:
        try:
            next(alone)
        except StopIteration as end:
            value: R = end.value
            return value


def mapped(training: Training[T], change: Callable[[T], R]) -> Training[R]:
    """Return the training with its results changed; its passes stay."""
    step = partial(training.send, None)
    while True:
        try:
            found = step()
        except StopIteration:
            return
        try:
            answer = yield found if isinstance(found, Embed | Gradient) else change(found)
        except Exception as error:  # of a pass, or of the change
            step = partial(training.throw, error)
        else:
            step = partial(training.send, answer)


class Member(Protocol[T_co]):
    """A training as a group sees it."""

    def advance(self, answer: Tensor | Exception | None, /) -> Pass | T_co | None:
        """Go on from the last pass's answer or error; return the next pass or result, or None at the end."""


class Group(Generic[T]):
    """Runs members together, a batch of each at a time. A member leaves when it ends.

    Between results the caller may add members, and remove them to stop them.
    """

    def __init__(self, members: Iterable[Member[T]] = ()) -> None:
        self.members = list(members)
        self._embeds: dict[Member[T], Embed] = {}
        self._gradients: dict[Member[T], Gradient] = {}

    def __iter__(self) -> Iterator[tuple[Member[T], T]]:
        """Yield each result with its member until no member is left."""
        while self.members:
            for member in [member for member in self.members if member not in self._embeds]:
                yield from self._advance(member, None)
            embeds, self._embeds = self._embeds, {}
            for members in _alike({member: embed for member, embed in embeds.items() if member in self.members}):
                yield from self._step(members)

    def _step(self, embeds: Mapping[Member[T], Embed]) -> Iterator[tuple[Member[T], T]]:
        """Train each of these members on its batch. A pass that fails is tried apart, to find whose error it is."""
        try:
            shared = _SharedPass(list(embeds.values()))
        except Exception as error:
            if len(embeds) > 1:
                for member, embed in embeds.items():
                    yield from self._step({member: embed})
            else:
                for member in embeds:
                    yield from self._advance(member, error)
            return
        for member, embedding in zip(embeds, shared.embeddings, strict=True):
            yield from self._advance(member, embedding)
        wanted = [self._gradients.pop(member, None) for member in embeds]
        answers: Sequence[Tensor | Exception | None]
        try:
            answers = shared.gradients(wanted)
        except Exception as error:
            answers = [None if gradient is None else error for gradient in wanted]
        for member, answer in zip(embeds, answers, strict=True):
            if answer is not None:
                yield from self._advance(member, answer)

    def _advance(self, member: Member[T], answer: Tensor | Exception | None) -> Iterator[tuple[Member[T], T]]:
        """Advance a member to its next pass, result or end; yield a result."""
        if member not in self.members:
            return
        found = member.advance(answer)
        if isinstance(found, Embed):
            self._embeds[member] = found
        elif isinstance(found, Gradient):
            self._gradients[member] = found
        elif found is None:
            self.members.remove(member)
        else:
            yield member, found


class _SharedPass:
    """One forward pass over several batches, and the backward pass that belongs to it."""

    def __init__(self, embeds: Sequence[Embed]) -> None:
        first, self._sizes = embeds[0], [len(embed.spectrogram) for embed in embeds]
        self._dtypes = [embed.spectrogram.dtype for embed in embeds]
        batches = [embed.spectrogram.detach() for embed in embeds]
        learns = first.spectrogram.requires_grad
        self._spectrogram = (torch.cat(batches) if len(batches) > 1 else batches[0]).requires_grad_(learns)
        with torch.set_grad_enabled(learns), autocast(self._spectrogram.device, first.precision):
            self._embedding = first.backbone.embed(self._spectrogram)
        self.embeddings = torch.split(self._embedding.detach(), self._sizes)

    def gradients(self, wanted: Sequence[Gradient | None]) -> Sequence[Tensor | None]:
        """Return the gradient of each batch; a batch that asks for none has no part in the others'."""
        if not any(wanted):
            return wanted  # type: ignore[return-value]
        parts = [
            torch.zeros_like(embedding) if gradient is None else gradient.embedding
            for gradient, embedding in zip(wanted, self.embeddings, strict=True)
        ]
        (gradient,) = torch.autograd.grad(self._embedding, self._spectrogram, torch.cat(parts))
        found = zip(wanted, torch.split(gradient, self._sizes), self._dtypes, strict=True)
        return [None if want is None else part.to(dtype) for want, part, dtype in found]


def _alike(embeds: Mapping[Member[T], Embed]) -> list[dict[Member[T], Embed]]:
    """Divide the passes into groups that one pass can answer."""
    groups: dict[object, dict[Member[T], Embed]] = {}
    for member, embed in embeds.items():
        key = id(embed.backbone), embed.precision, embed.spectrogram.requires_grad
        groups.setdefault(key, {})[member] = embed
    return list(groups.values())


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which a network computes at a precision."""
    return torch.autocast(device.type, resolve(PRECISIONS[precision]), enabled=precision != "fp32")
