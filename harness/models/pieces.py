"""A large network on a CPU, a clip or two at a time, in a fraction of the memory that a whole batch takes.

Of base384, a clip has 3.7 MB of tokens, and what its gradient needs of all blocks takes 450 MB: 4 GB for the paper's
batch of 8, beside weights of 345 MB.
"""

import contextlib
import ctypes
import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Blocks = Sequence[Callable[[Tensor], Tensor]]
_PIECE_BYTES = 5_000_000
_BLOCKS_AT_ONCE = 3
_LARGE_CLIP_BYTES = 1_000_000
_M_MMAP_THRESHOLD = -3  # as malloc.h of the GNU C library has it


def split_on_cpu(batch: Tensor, *, bytes_per_clip: int) -> tuple[Tensor, ...]:
    """Return the batch in pieces of few clips, by the bytes of a clip's tokens; whole if it is small or elsewhere."""
    if batch.device.type != "cpu":
        return (batch,)
    if bytes_per_clip > _LARGE_CLIP_BYTES:
        _give_back_what_is_freed()
    return torch.split(batch, max(1, _PIECE_BYTES // bytes_per_clip))


def run(blocks: Blocks, hidden: Tensor) -> Tensor:
    """Return what comes out of the last block."""
    for block in blocks:
        hidden = block(hidden)
    return hidden


def run_and_forget(blocks: Blocks, hidden: Tensor) -> Tensor:
    """Return what `run` does, keeping for the gradient only what enters every third block.

    The rest is computed again when its turn comes, so that a step takes 1.6 times as long.
    """
    for first in range(0, len(blocks), _BLOCKS_AT_ONCE):
        few = blocks[first : first + _BLOCKS_AT_ONCE]
        hidden = checkpoint(run, few, hidden, use_reentrant=False, preserve_rng_state=False)
    return hidden


@functools.cache
def _give_back_what_is_freed() -> None:
    """Have the C library give the memory of a freed tensor back to the system at once, for the rest of this process.

    By default it keeps what was below 32 MB for what comes, in pieces that seldom fit: a trial of base384 with a
    gradient took 2.5 GB and not 1.8, and 3 GB in a Ray worker, where it does not run in the main thread.
    """
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_CLIP_BYTES)
