"""Preparation of features on this machine and on the other nodes of a Ray cluster.

Each node runs one task that fills its own cache by all of its cores. Nodes that share a cache share the work.
"""

import platform
import resource
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich import filesize

from harness.common.files import cache_dir
from harness.common.progress import Progress, quiet, track
from harness.common.text import first_line, summarise
from harness.config.study import DataSpec
from harness.data.dataset import ClipDataset
from harness.data.skipped import is_known_to_be_corrupted, skipped_file, unreadable_clips
from harness.features.log_mel import FrontEnd
from harness.study.sources import extract_features, open_dataset, study_rows


@dataclass(frozen=True)
class Prepared:
    """The clips of a study that a node's cache holds.

    Attributes:
        path: The folder of the clips' features, which take `n_bytes`.
        n_computed: How many were computed now, in `seconds`.
        unreadable: File and reason of each skipped clip, by key; `listed` is the file that lists them.
        digest: Digest of the features, equal on nodes with the same audio.
        process_bytes: The process's largest resident memory.
    """

    host: str
    path: str
    cores: int
    n_bytes: int
    n_clips: int
    n_computed: int
    unreadable: Mapping[str, str]
    listed: str
    seconds: float
    digest: str
    process_bytes: int


Outcome = tuple[str, Prepared | str]
"""A node's host, and what its cache holds or why it is not ready."""


def prepare_here(spec: DataSpec, dataset: ClipDataset, front_end: FrontEnd, *, cores: int) -> list[Outcome]:
    """Fill this machine's cache.

    Raises:
        OSError: audio files cannot be opened, or the cache cannot be written.
        ValueError: clips cannot be read and `spec.skips_corrupt` is False.
    """
    ours = _prepare(spec, dataset, front_end, cores=cores, progress=track)
    return [(ours.host, ours)]


def prepare_cluster(
    spec: DataSpec, dataset: ClipDataset, front_end: FrontEnd, *, cores: int, say: Callable[[str], object]
) -> list[Outcome]:
    """Fill the caches of this machine, which comes first, and of all other nodes at the same time. Ray is connected.

    Raises:
        OSError: this machine's audio files cannot be opened, or its cache cannot be written.
        ValueError: clips cannot be read here and `spec.skips_corrupt` is False.
    """
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]  # type: ignore[no-untyped-call]
    tasks = [(node["NodeManagerHostname"], _begin(node, spec, front_end)) for node in others]
    if tasks:
        say(f"{len(tasks)} other nodes fill their caches: {summarise(host for host, _ in tasks)}")
    outcomes = prepare_here(spec, dataset, front_end, cores=cores)
    for host, task in tasks:
        say(f"waiting for {host}")
        outcomes.append((host, _outcome(task, outcomes[0][1])))
    return outcomes


def _begin(node: Mapping[str, Any], spec: DataSpec, front_end: FrontEnd) -> Any:
    """Start one task on a node, for all of its cores and on no other node; return the task."""
    cores = int(node["Resources"].get("CPU", 0))
    placed = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    function = ray.remote(_prepare_own).options(num_cpus=cores, max_retries=0, scheduling_strategy=placed)
    return function.remote(spec, front_end, max(1, cores))


def _prepare_own(spec: DataSpec, front_end: FrontEnd, cores: int) -> Prepared:
    return _prepare(spec, open_dataset(spec, workers=cores), front_end, cores=cores, progress=quiet)


def _prepare(spec: DataSpec, dataset: ClipDataset, front_end: FrontEnd, *, cores: int, progress: Progress) -> Prepared:
    rows = study_rows(spec, dataset)
    began = time.monotonic()
    features, extracted = extract_features(spec, dataset, front_end, rows=rows, workers=cores, progress=progress)
    return Prepared(
        host=platform.node(),
        path=str(extracted.place),
        cores=cores,
        n_bytes=extracted.n_bytes,
        n_clips=len(dataset.keys) if rows is None else len(rows),
        n_computed=extracted.n_computed,
        unreadable=unreadable_clips(dataset, extracted),
        listed=str(skipped_file(cache_dir(), dataset)),
        seconds=time.monotonic() - began,
        digest=features.digest,
        process_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    )


def _outcome(task: Any, ours: Prepared | str) -> Prepared | str:
    """Return what a node's cache holds, or why it is of no use to a study that is prepared here."""
    assert isinstance(ours, Prepared)
    try:
        theirs: Prepared = ray.get(task)
    except RayTaskError as error:
        return f"{type(error.cause).__name__}: {error.cause}"
    except RayError as error:
        return f"it was lost ({first_line(error)})"
    if theirs.digest != ours.digest:
        return f"its data differ from those here: {theirs.digest[:12]}, not {ours.digest[:12]}"
    return theirs


_N_NAMED = 20


def lines_of(outcomes: Sequence[Outcome], flags: Sequence[str]) -> list[str]:
    """Return the report: this machine's cache, those of other nodes, and the study that the flags prepare for."""
    (_, ours), *others = outcomes
    assert isinstance(ours, Prepared)
    lines = [
        f"cache     {ours.path}, {filesize.decimal(ours.n_bytes)} on disk",
        f"clips     {_clips(ours)}",
        *_skipped(ours),
        f"memory    {_memory(ours)}",
    ]
    lines += [f"machine   {host}: {_machine(outcome)}" for host, outcome in others]
    return [*lines, f"use it    python -m harness.study --space unet {' '.join(flags)}"]


def as_flags(values: Mapping[str, object]) -> list[str]:
    """Return flags as they are typed, without those that are None."""
    return [f"{flag} {shlex.quote(str(value))}" for flag, value in values.items() if value is not None]


def _clips(prepared: Prepared) -> str:
    n_ready = prepared.n_clips - len(prepared.unreadable)
    there = f"{n_ready:,} of {prepared.n_clips:,} ready"
    if not prepared.n_computed:
        return f"{there}, all found in the cache"
    rate = prepared.n_computed / prepared.seconds
    cores = f"{prepared.cores} cores" if prepared.cores > 1 else "1 core"
    return f"{there}; {prepared.n_computed:,} computed in {prepared.seconds:,.0f} s, {rate:.1f} clips/s on {cores}"


def _skipped(prepared: Prepared) -> list[str]:
    """Return which clips are skipped, known corrupted tracks apart, and where all are listed."""
    known = [key for key in prepared.unreadable if is_known_to_be_corrupted(key)]
    others = [key for key in prepared.unreadable if not is_known_to_be_corrupted(key)]
    lines = [f"skipped   {len(known)} of tracks known to be corrupted: {', '.join(known)}"] if known else []
    if others:
        lines.append(f"skipped   {len(others)} that cannot be read:")
        lines += [f"          {prepared.unreadable[key]}" for key in others[:_N_NAMED]]
        lines += [f"          and {len(others) - _N_NAMED} more"] if len(others) > _N_NAMED else []
    return [*lines, f"listed    {prepared.listed}"] if lines else []


def _memory(prepared: Prepared) -> str:
    return f"{filesize.decimal(prepared.process_bytes)} resident at most"


def _machine(outcome: Prepared | str) -> str:
    if isinstance(outcome, str):
        return f"not ready, {outcome}; its trials compute what is missing if they find the audio"
    return f"{outcome.path}: {_clips(outcome)}; {_memory(outcome)}"
