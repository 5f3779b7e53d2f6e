"""A large network on a CPU, a clip at a time, in a fraction of the memory that a whole batch takes.

Of base384, a clip has 3.7 MB of tokens, and what its gradient needs of all blocks takes 450 MB: 4 GB for the paper's
batch of 8, beside weights of 345 MB. In pieces, what a clip's blocks compute is computed three times, once for the
loss, once to keep what enters each block, and once for the gradient of each: a step with a U-Net takes 1.6 times as
long as when all of it is kept.
"""

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_LARGE_CLIP_BYTES = 1_000_000

_M_MMAP_THRESHOLD = -3  # as malloc.h of the GNU C library has it


def is_large_on_cpu(batch: Tensor, *, bytes_per_clip: int) -> bool:
    """Return whether a batch should go in pieces, by the bytes of a clip's tokens."""
    is_large = batch.device.type == "cpu" and bytes_per_clip > _LARGE_CLIP_BYTES
    if is_large:
        _give_back_what_is_freed()
    return is_large


def clip_by_clip(network: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """Return `network(batch)`, keeping nothing of a clip for its gradient but what goes in."""
    return torch.cat([forgetting(network, clip) for clip in torch.split(batch, 1)])


def forgetting(function: Callable[[Tensor], Tensor], inputs: Tensor, *, state_of: nn.Module | None = None) -> Tensor:
    """Return `function(inputs)`, which is computed again when its gradient is wanted; it must draw nothing at random.

    That second time leaves the buffers of `state_of` as they were: the statistics of a BatchNorm move once.
    """
    outputs: Tensor = checkpoint(
        function,
        inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (contextlib.nullcontext(), _buffers_kept(state_of)),
    )
    return outputs


@contextlib.contextmanager
def _buffers_kept(module: nn.Module | None) -> Iterator[None]:
    buffers = list(module.buffers()) if module else []
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, was in zip(buffers, before, strict=True):
                buffer.copy_(was)


@functools.cache
def _give_back_what_is_freed() -> None:
    """Have the C library give the memory of a freed tensor back to the system at once, for the rest of this process.

    By default it keeps what was below 32 MB for what comes, in pieces that seldom fit: a trial of base384 with a U-Net
    took 1.63 GB and not 1.41, and 1.74 GB outside of the main thread, which is where a Ray worker trains.
    """
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_CLIP_BYTES)
