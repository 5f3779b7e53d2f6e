"""Clips through the front end by Ray: by all cores of this machine, or by the machines of a cluster."""

import platform
import resource
from collections.abc import Generator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from harness.common.text import few
from harness.data.extraction import Heard, Unopened, hear, keep_freed_memory, one_torch_thread
from harness.features.log_mel import FrontEnd
from harness.features.machines import Sample, samples_of, trouble_with_all

_CLIPS_OF_A_TASK = 16
_TASKS_OF_A_CORE = 2
"""In work or waiting to be stored: 16 clips of 256 KB each."""


class RayExtraction:
    """An `Extraction` by Ray's workers; what they find is stored by who asks, so that there is one writer.

    A worker that is lost is replaced by Ray, and its clips are heard again. `nodes` are the Ray nodes that work, None
    is all of them. `worker_bytes` is the largest resident memory of any worker so far.

    Raises:
        OSError: workers were lost three times over the same clips.
    """

    def __init__(self, nodes: Sequence[str] | None = None) -> None:
        placed: dict[str, Any] = (
            {} if nodes is None else {"label_selector": {"ray.io/node-id": f"in({','.join(nodes)})"}}
        )
        self._hear = ray.remote(num_cpus=1, max_retries=3, **placed)(_hear)
        self._nodes = nodes
        self.worker_bytes = 0

    def __call__(self, paths: Sequence[Path], front_end: FrontEnd, /) -> Generator[tuple[int, Heard | Unopened]]:
        """Yield each path's position and what came of it, in any order, a bounded number of them at a time."""
        tasks = iter(
            [range(len(paths))[first : first + _CLIPS_OF_A_TASK] for first in range(0, len(paths), _CLIPS_OF_A_TASK)]
        )
        # who stops asking leaves these to their end, a second away: a task that is cancelled as it ends kills Ray 2.60
        begun: dict[Any, range] = {}
        samples = samples_of(paths)
        while True:
            for positions in islice(tasks, max(0, self._room() - len(begun))):
                asked = [paths[position] for position in positions]
                begun[self._hear.remote(asked, front_end, samples)] = positions
            if not begun:
                return
            (done,), _ = ray.wait(list(begun), num_returns=1)
            positions = begun.pop(done)
            yield from zip(positions, self._result(done, [paths[position] for position in positions]), strict=True)

    def _room(self) -> int:
        """Return how many tasks may be under way. A cluster may have grown since the last time."""
        return max(1, int(cores_of(self._nodes))) * _TASKS_OF_A_CORE

    def _result(self, task: Any, paths: Sequence[Path]) -> list[Heard | Unopened]:
        try:
            found, n_bytes = ray.get(task)
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            clips = few(path.name for path in paths)
            raise OSError(f"Ray's workers were lost over and over again while they heard {clips}: {error}") from error
        self.worker_bytes = max(self.worker_bytes, n_bytes)
        return found  # type: ignore[no-any-return]


def cores_of(nodes: Sequence[str] | None) -> float:
    """Return how many cores Ray may use on these nodes (None: on all)."""
    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return sum(float(node["Resources"].get("CPU", 0)) for node in alive if nodes is None or node["NodeID"] in nodes)


def resident_bytes() -> int:
    """Return the largest resident memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _hear(
    paths: Sequence[Path], front_end: FrontEnd, samples: tuple[Sample, ...]
) -> tuple[list[Heard | Unopened], int]:
    """Return what comes of some clips, and this worker's largest resident memory. Runs on any machine.

    None is opened if this machine has none of the samples: it has other audio, and joined after it could be asked.
    """
    if trouble := trouble_with_all(samples):
        return [_said_here(Unopened(trouble)) for _ in paths], resident_bytes()
    keep_freed_memory()
    with one_torch_thread():
        return [_said_here(hear(path, front_end)) for path in paths], resident_bytes()


def _said_here(found: Heard | Unopened) -> Heard | Unopened:
    """Say of what could not be opened on which machine, since others may well do so."""
    return Unopened(f"{found.reason} on {platform.node()}") if isinstance(found, Unopened) else found
