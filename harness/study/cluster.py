"""Preparation of features on this machine and on the other nodes of a Ray cluster.

Each node runs one task that fills its own cache with all of its cores. Nodes that share a cache share the work.
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
from harness.data.batches import log_mel_features
from harness.data.dataset import ClipDataset
from harness.data.skipped import is_known_to_be_corrupted, skipped_file, unreadable_clips
from harness.features.log_mel import FrontEnd
from harness.study.sources import extract_clips, open_dataset, rendered_digest, study_rows

_N_NAMED = 20


@dataclass(frozen=True)
class FilledCache:
    """The clips of a study in a node's cache.

    Attributes:
        path: The folder of the clips' features, which take `n_bytes`.
        n_computed: How many were computed now, in `seconds`.
        unreadable: File and reason of each skipped clip, by key; `listed` is the file that lists them.
        digest: Digest of the features, equal on nodes with the same audio.
        process_bytes: The process's largest resident memory.
    """

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


Outcome = tuple[str, FilledCache | str]
"""A node's host, and its cache or the reason why it is not ready."""


def prepare_here(spec: DataSpec, dataset: ClipDataset, front_end: FrontEnd, *, cores: int) -> Outcome:
    """Fill this machine's cache.

    Raises:
        OSError: audio files cannot be opened, or the cache cannot be written.
        ValueError: clips cannot be read and `spec.skips_corrupt` is False.
    """
    return platform.node(), _fill(spec, dataset, front_end, cores=cores, progress=track)


def prepare_cluster(
    spec: DataSpec, dataset: ClipDataset, front_end: FrontEnd, *, cores: int, say: Callable[[str], object]
) -> list[Outcome]:
    """Fill the caches of this machine, which comes first, and of all other nodes at the same time. Ray is connected."""
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]  # type: ignore[no-untyped-call]
    tasks = [(node["NodeManagerHostname"], _start(node, spec, front_end)) for node in others]
    if tasks:
        say(f"{len(tasks)} other nodes fill their caches: {summarise(host for host, _ in tasks)}")
    ours = prepare_here(spec, dataset, front_end, cores=cores)
    outcomes = [ours]
    for host, task in tasks:
        say(f"waiting for {host}")
        outcomes.append((host, _result(task, ours)))
    return outcomes


def _start(node: Mapping[str, Any], spec: DataSpec, front_end: FrontEnd) -> Any:
    """Start one task with all cores of a node, on no other node; return the task."""
    cores = int(node["Resources"].get("CPU", 0))
    placed = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    function = ray.remote(_fill_there).options(num_cpus=cores, max_retries=0, scheduling_strategy=placed)
    return function.remote(spec, front_end, max(1, cores))


def _fill_there(spec: DataSpec, front_end: FrontEnd, cores: int) -> FilledCache:
    return _fill(spec, open_dataset(spec, workers=cores), front_end, cores=cores, progress=quiet)


def _fill(spec: DataSpec, dataset: ClipDataset, front_end: FrontEnd, *, cores: int, progress: Progress) -> FilledCache:
    rows = study_rows(spec, dataset)
    began = time.monotonic()
    extracted = extract_clips(spec, dataset, front_end, rows=rows, workers=cores, progress=progress)
    sound_digest = rendered_digest(spec, dataset)
    return FilledCache(
        path=str(extracted.place),
        cores=cores,
        n_bytes=extracted.n_bytes,
        n_clips=len(dataset.keys) if rows is None else len(rows),
        n_computed=extracted.n_computed,
        unreadable=unreadable_clips(dataset, extracted),
        listed=str(skipped_file(cache_dir(), dataset)),
        seconds=time.monotonic() - began,
        digest=log_mel_features(dataset, extracted, front_end, rows=rows, sound_digest=sound_digest).digest,
        process_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    )


def _result(task: Any, ours: Outcome) -> FilledCache | str:
    """Return a node's cache, or why a study that is prepared here cannot use it."""
    try:
        theirs: FilledCache = ray.get(task)
    except RayTaskError as error:
        return f"{type(error.cause).__name__}: {error.cause}"
    except RayError as error:
        return f"it was lost ({first_line(error)})"
    expected = ours[1].digest if isinstance(ours[1], FilledCache) else ""
    if theirs.digest != expected:
        return f"its data differ from those here: {theirs.digest[:12]}, not {expected[:12]}"
    return theirs


def lines_of(outcomes: Sequence[Outcome], flags: Sequence[str]) -> list[str]:
    """Return the report: this machine's cache, those of other nodes, and the study that the flags prepare for."""
    (_, ours), *others = outcomes
    assert isinstance(ours, FilledCache)
    lines = [
        f"cache     {ours.path}, {filesize.decimal(ours.n_bytes)} on disk",
        f"clips     {_clips(ours)}",
        *_skipped(ours),
        f"memory    {_memory(ours)}",
    ]
    for host, outcome in others:
        state = f"not ready, {outcome}; its trials compute what is missing if they find the audio"
        if isinstance(outcome, FilledCache):
            state = f"{outcome.path}: {_clips(outcome)}; {_memory(outcome)}"
        lines.append(f"machine   {host}: {state}")
    return [*lines, f"use it    python -m harness.study --space unet {' '.join(flags)}"]


def as_flags(values: Mapping[str, object]) -> list[str]:
    """Return flags as a user types them, without those that are None."""
    return [f"{flag} {shlex.quote(str(value))}" for flag, value in values.items() if value is not None]


def _clips(cache: FilledCache) -> str:
    ready = f"{cache.n_clips - len(cache.unreadable):,} of {cache.n_clips:,} ready"
    if not cache.n_computed:
        return f"{ready}, all found in the cache"
    rate = cache.n_computed / cache.seconds
    cores = f"{cache.cores} cores" if cache.cores > 1 else "1 core"
    return f"{ready}; {cache.n_computed:,} computed in {cache.seconds:,.0f} s, {rate:.1f} clips/s on {cores}"


def _skipped(cache: FilledCache) -> list[str]:
    """Return the skipped clips, known corrupted tracks first, and the file that lists them all."""
    known = [key for key in cache.unreadable if is_known_to_be_corrupted(key)]
    others = [key for key in cache.unreadable if not is_known_to_be_corrupted(key)]
    lines = [f"skipped   {len(known)} of tracks known to be corrupted: {', '.join(known)}"] if known else []
    if others:
        lines.append(f"skipped   {len(others)} that cannot be read:")
        lines += [f"          {cache.unreadable[key]}" for key in others[:_N_NAMED]]
        lines += [f"          and {len(others) - _N_NAMED} more"] if len(others) > _N_NAMED else []
    return [*lines, f"listed    {cache.listed}"] if lines else []


def _memory(cache: FilledCache) -> str:
    return f"{filesize.decimal(cache.process_bytes)} resident at most"
