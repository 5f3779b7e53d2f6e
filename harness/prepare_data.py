"""Preparing a data set: each machine's store filled by all of its cores, and what is in it then.

The machines of a cluster that share this one's cache, and have the same audio, fill one store together. Each of those
that have a cache of their own fills that; on those that join later, trials do it.
"""

import platform
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from harness.data.extraction import Extraction, Heard, Unopened, in_threads
from harness.data.frontend import FrontEnd
from harness.data.old_stores import bytes_on_disk
from harness.data.openmic import ClipDataset
from harness.data.progress import Progress, quiet, track
from harness.data.sources import open_dataset, stored_features, study_rows
from harness.data.store import prepare_features
from harness.data.wanted import look_at
from harness.machines import Machine, machines_beside, on, reason_of
from harness.paths import cache_dir
from harness.ray_extraction import RayExtraction, cores_of, resident_bytes
from harness.ray_start import cpu_count
from harness.spec import DataSpec


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
