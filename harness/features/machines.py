"""The Ray nodes beside this one: which of them share its cache, and whether they have the same audio."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness.common.files import cache_dir
from harness.common.text import first_line
from harness.data.extraction import Unopened, audio_digest
from harness.data.store_files import said_of
from harness.data.wanted import some_of

Sample = tuple[Path, bytes]
"""A clip's file and its SHA-256."""


@dataclass(frozen=True)
class Machine:
    """A Ray node beside this one. `trouble` is why it cannot hear this machine's clips, "" if it can."""

    node: str
    host: str
    cores: int
    shares_cache: bool
    trouble: str = ""


def machines_beside(clips: Sequence[Path]) -> list[Machine]:
    """Return the cluster's other nodes, having asked each what it finds by the paths that are used here.

    That is, a file that is put in this one's cache, and a few of the clips, spread over all, which tell a node that has
    no audio there, or other audio, though not one that lacks a few files. Ray is connected.
    """
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]  # type: ignore[no-untyped-call]
    if not others:
        return []
    samples = samples_of(clips)
    with _token() as name:
        asked = [(node, on(node["NodeID"], _find, cpus=0).remote(name, samples)) for node in others]
        return [_machine(node, answer) for node, answer in asked]


def samples_of(clips: Sequence[Path]) -> tuple[Sample, ...]:
    """Return some of the clips that can be opened here."""
    found = [(clip, audio_digest(clip)) for clip in some_of(clips)]
    return tuple((clip, digest) for clip, digest in found if not isinstance(digest, Unopened))


@cache
def trouble_with_all(samples: tuple[Sample, ...]) -> str:
    """Return what is wrong with the first of these on this machine if something is with each, else "".

    Once for each process, so what it says of a few files may be of the past.
    """
    trouble = [_difference(*sample) for sample in samples]
    return trouble[0] if trouble and all(trouble) else ""


def on(node: str, function: Callable[..., Any], *, cpus: int) -> Any:
    """Return a function as a Ray task that runs on this node and nowhere else, once."""
    placed = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(function).options(num_cpus=cpus, max_retries=0, scheduling_strategy=placed)


def reason_of(error: RayError) -> str:
    """Return in a line why a task came to nothing."""
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    return f"it was lost ({first_line(error)})"


def _machine(node: dict[str, Any], answer: Any) -> Machine:
    try:
        shares_cache, trouble = ray.get(answer)
    except RayError as error:
        shares_cache, trouble = True, reason_of(error)
    return Machine(
        node["NodeID"], node["NodeManagerHostname"], int(node["Resources"].get("CPU", 0)), shares_cache, trouble
    )


@contextmanager
def _token() -> Iterator[str]:
    """Give the name of a file that is in this machine's cache for a while."""
    file = cache_dir() / f"seen-by-{uuid.uuid4().hex}"
    with said_of(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    try:
        yield file.name
    finally:
        file.unlink()


def _find(token: str, samples: Sequence[Sample]) -> tuple[bool, str]:
    """Return whether the token is in this machine's cache, and what is wrong with its samples. Runs on any machine."""
    return (cache_dir() / token).exists(), next(filter(None, (_difference(*sample) for sample in samples)), "")


def _difference(clip: Path, expected: bytes) -> str:
    found = audio_digest(clip)
    if isinstance(found, Unopened):
        return f"{clip} cannot be opened: {found.reason}"
    return "" if found == expected else f"{clip} holds other audio"
