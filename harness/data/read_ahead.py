"""Reading what comes next while what has come is in use."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")
Wanted = TypeVar("Wanted")
DEPTH = 2


class ReadAhead(Generic[T]):
    """Yields `read(x)` for each `x` of `wanted`, in order, while a thread reads up to `depth` of the next ones.

        with ReadAhead(read, wanted) as batches:
            for batch in batches: ...

    What `read` raises is raised in the place of the batch that it was to give. The thread lives inside `with`: however
    that is left, it is gone, and of what was still to be read nothing has been but what was begun.

    `seconds_waited` is how long who uses the batches has waited for them.
    """

    def __init__(self, read: Callable[[Wanted], T], wanted: Iterable[Wanted], *, depth: int = DEPTH) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reading ahead")
        self._reads: Iterator[Future[T]] = (self._thread.submit(read, each) for each in wanted)
        self._begun: deque[Future[T]] = deque()
        self._depth = depth
        self.seconds_waited = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[T]:
        """Yield what is read."""
        self._begin()
        while self._begun:
            before = time.perf_counter()
            found = self._begun.popleft().result()
            self.seconds_waited += time.perf_counter() - before
            self._begin()
            yield found

    def _begin(self) -> None:
        """Have as many reads under way as there may be."""
        while len(self._begun) < self._depth and (read := next(self._reads, None)) is not None:
            self._begun.append(read)
