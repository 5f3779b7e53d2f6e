"""Work that holds Python's global lock, such as the synthesiser's, in parallel: in processes."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def map_in_processes(function: Callable[[T], R], items: Sequence[T], *, workers: int, at_once: int = 1) -> Iterator[R]:
    """Yield `function` of each item, in order; one worker works in this process.

    Processes are spawned, so that they inherit no thread's state, and each takes `at_once` items at a time.

    Raises:
        ValueError: `workers` is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers={workers}: at least one must do the work")
    if workers == 1 or not items:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        yield from pool.map(function, items, chunksize=at_once)
