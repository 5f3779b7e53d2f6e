"""Preparation of features on the nodes of a Ray cluster."""

import platform
import shlex
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from rich import filesize

from harness.common.files import cache_dir
from harness.common.progress import Progress, quiet, track
from harness.common.ray_start import cpu_count
from harness.config.study import DataSpec
from harness.data.dataset import ClipDataset
from harness.data.extraction import Extraction, Heard, Unopened, in_threads
from harness.data.left_out import LEFT_OUT, is_known_to_be_corrupted
from harness.data.old_stores import bytes_on_disk
from harness.data.openmic import audio_name
from harness.data.store import prepare_features
from harness.data.wanted import look_at
from harness.features.log_mel import FrontEnd
from harness.features.machines import Machine, machines_beside, on, reason_of
from harness.features.ray_extraction import RayExtraction, cores_of, resident_bytes
from harness.study.sources import open_dataset, stored_features, study_rows


@dataclass(frozen=True)
class Prepared:
    """What a machine's store holds of the clips that a study needs.

    `n_computed` of them were heard now, in `seconds`; `unreadable` says why others are left out, by key. `digest` is
    that of the features, and equal on machines that hold the same files. `n_bytes` is the whole store's room on disk;
    `process_bytes` and `worker_bytes` are the largest resident memory of who stored and of a Ray worker who heard.
    """

    host: str
    path: str
    cores: int
    n_bytes: int
    n_clips: int
    n_computed: int
    unreadable: Mapping[str, str]
    seconds: float
    digest: str
    process_bytes: int
    worker_bytes: int = 0


Outcome = tuple[str, Prepared | str]
"""A machine, and what its store holds or why it is not ready."""


def prepare_everywhere(
    spec: DataSpec, dataset: ClipDataset, front_end: FrontEnd, *, say: Callable[[str], object]
) -> list[Outcome]:
    """Fill the stores of this machine, which comes first, and of all that do not share its cache. Ray is connected.

    What comes of each is told, and of each machine that shares the cache but has not the same audio.

    Raises:
        OSError: this machine's audio cannot be read or its cache not be written.
        ValueError: the data set is not what it must be, or clips cannot be read and `spec.skips_corrupt` is False.
    """
    machines = machines_beside(look_at(dataset, study_rows(spec, dataset)).paths)
    strangers = [machine for machine in machines if not machine.shares_cache]
    deaf = [machine for machine in machines if machine.shares_cache and machine.trouble]
    for machine in deaf:
        say(f"{machine.host} shares this machine's cache and is given no work, since there {machine.trouble}")
    begun = [(machine, _begin(machine, spec, front_end)) for machine in strangers]
    if begun:
        say(f"{len(begun)} machines that do not share this one's cache fill their own: {_hosts(strangers)}")
    ours = _prepare_with_ray(spec, dataset, front_end, machines)
    outcomes: list[Outcome] = [(ours.host, ours), *((machine.host, machine.trouble) for machine in deaf)]
    for machine, task in begun:
        say(f"waiting for {machine.host}")
        outcomes.append((machine.host, _outcome(task, ours)))
    return outcomes


def _prepare_with_ray(
    spec: DataSpec, dataset: ClipDataset, front_end: FrontEnd, machines: Sequence[Machine]
) -> Prepared:
    """Fill this machine's store with the cores of all that share it and have the same audio.

    Threads do it where Ray may use no core of these.
    """
    nodes = None
    helpers = [machine for machine in machines if machine.shares_cache and not machine.trouble]
    if len(helpers) < len(machines):
        nodes = [ray.get_runtime_context().get_node_id(), *(machine.node for machine in helpers)]
    cores = int(cores_of(nodes))
    if cores < 1:
        return _prepare(spec, dataset, front_end, compute=in_threads(cpu_count()), cores=cpu_count(), progress=track)
    extraction = RayExtraction(nodes)
    done = _prepare(spec, dataset, front_end, compute=extraction, cores=cores, progress=track)
    return replace(done, worker_bytes=extraction.worker_bytes)


def _prepare(
    spec: DataSpec,
    dataset: ClipDataset,
    front_end: FrontEnd,
    *,
    compute: Extraction,
    cores: int,
    progress: Progress,
) -> Prepared:
    rows = study_rows(spec, dataset)
    n_computed = 0

    def counting(paths: Sequence[Path], front_end: FrontEnd, /) -> Generator[tuple[int, Heard | Unopened]]:
        nonlocal n_computed
        n_computed = len(paths)
        return compute(paths, front_end)

    began = time.monotonic()
    store = prepare_features(
        dataset,
        front_end,
        cache=cache_dir(),
        rows=rows,
        compute=counting,
        skip_corrupt=spec.skips_corrupt,
        progress=progress,
    )
    seconds = time.monotonic() - began
    return Prepared(
        host=platform.node(),
        path=str(store.path),
        cores=cores,
        n_bytes=bytes_on_disk(store.path),
        n_clips=len(dataset.keys) if rows is None else len(rows),
        n_computed=n_computed,
        unreadable=store.unreadable(rows),
        seconds=seconds,
        digest=stored_features(spec, dataset, store, rows).digest,
        process_bytes=resident_bytes(),
    )


# Other machines


def _begin(machine: Machine, spec: DataSpec, front_end: FrontEnd) -> Any:
    """Have a machine fill its own store with all of its cores, as soon as they are free; return the task."""
    return on(machine.node, _prepare_own, cpus=machine.cores).remote(spec, front_end, max(1, machine.cores))


def _prepare_own(spec: DataSpec, front_end: FrontEnd, cores: int) -> Prepared:
    dataset = open_dataset(spec, workers=cores)
    return _prepare(spec, dataset, front_end, compute=in_threads(cores), cores=cores, progress=quiet)


def _outcome(task: Any, ours: Prepared) -> Prepared | str:
    """Return what a machine made, or why it is of no use to a study that is prepared here."""
    try:
        theirs: Prepared = ray.get(task)
    except RayError as error:
        return reason_of(error)
    if theirs.digest != ours.digest:
        return f"its data are others than here: {theirs.digest[:12]}, not {ours.digest[:12]}"
    return theirs


def _hosts(machines: Sequence[Machine]) -> str:
    return ", ".join(machine.host for machine in machines)


_N_NAMED = 20


def lines_of(outcomes: Sequence[Outcome], flags: Sequence[str]) -> list[str]:
    """Return the report: this machine's store, the others' beside it, and the study that the flags prepare for."""
    (_, ours), *others = outcomes
    assert isinstance(ours, Prepared)
    lines = [
        f"store     {ours.path}, {filesize.decimal(ours.n_bytes)} on disk",
        f"clips     {_clips(ours)}",
        *_left_out(ours),
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
        return f"{there}, all of them before"
    rate = prepared.n_computed / prepared.seconds
    cores = f"{prepared.cores} cores" if prepared.cores > 1 else "1 core"
    return f"{there}; {prepared.n_computed:,} computed in {prepared.seconds:,.0f} s, {rate:.1f} clips/s on {cores}"


def _left_out(prepared: Prepared) -> list[str]:
    """Return which clips are left out, known corrupted tracks apart, and where all are listed."""
    known = [key for key in prepared.unreadable if is_known_to_be_corrupted(key)]
    others = [key for key in prepared.unreadable if not is_known_to_be_corrupted(key)]
    lines = [f"left out  {len(known)} of tracks known to be corrupted: {', '.join(known)}"] if known else []
    if others:
        lines.append(f"left out  {len(others)} that cannot be read:")
        lines += [f"          {audio_name(key)}: {prepared.unreadable[key]}" for key in others[:_N_NAMED]]
        lines += [f"          and {len(others) - _N_NAMED} more"] if len(others) > _N_NAMED else []
    return [*lines, f"listed    {prepared.path}/{LEFT_OUT}"] if lines else []


def _memory(prepared: Prepared) -> str:
    text = f"{filesize.decimal(prepared.process_bytes)} resident at most"
    worker = f", {filesize.decimal(prepared.worker_bytes)} in each of Ray's workers"
    return text + (worker if prepared.worker_bytes else "")


def _machine(outcome: Prepared | str) -> str:
    if isinstance(outcome, str):
        return f"not ready, {outcome}; its trials compute what is missing if they find the audio"
    return f"{outcome.path}: {_clips(outcome)}; {_memory(outcome)}"
