"""The driver of a study, which joins Optuna's storage, Ray Tune and the trackers.

The driver never reads Tune's results or restores Tune's state. Each driver starts a new Tune run from the Optuna
storage and the trials' checkpoints.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
import ray
from optuna.study import StudyDirection
from ray import tune

from harness.common.cli import sigterm_ends_tune_in_order
from harness.common.ray_start import start_ray
from harness.config.space import papers_within
from harness.config.study import Resources, StudyPlace, StudySpec
from harness.config.trial import SYSTEMS
from harness.study.console import ProgressCallback, StudyConsole
from harness.study.plan import Plan
from harness.study.records import TrialRecord
from harness.study.scheduler import StudyScheduler
from harness.study.searcher import StudySearcher, make_sampler, requeue
from harness.study.session import TrialTask
from harness.study.storage import open_storage
from harness.study.tracker import Tracker, TrackingCallback
from harness.study.worker import run_trial
from search_spaces import load


@dataclass(frozen=True)
class Slots:
    """The number of trials that run at a time, and the cores and GPUs of each."""

    concurrent: int
    cpus: float
    gpus: float


def open_study(spec: StudySpec, place: StudyPlace) -> optuna.Study:
    """Return the Optuna study; a new one has the paper's configurations enqueued."""
    storage = open_storage(place.home)
    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][: len(spec.objectives)]
    study = optuna.create_study(storage=storage, study_name=spec.name, directions=directions, load_if_exists=True)
    trials = study.get_trials(deepcopy=False)
    study.sampler = make_sampler(spec.seed, n_trials_so_far=len(trials), fixed=spec.fixed)
    for paper in _first_in_line(spec)[len(trials) :]:
        study.enqueue_trial({**paper, **spec.fixed})
    return study


def _first_in_line(spec: StudySpec) -> list[Mapping[str, Any]]:
    """Return the first configurations of a study: the paper's, or its whole budget if its space is a table."""
    space = load(spec.space, spec.preset)
    papers = papers_within(space, spec.fixed)
    return papers if space.cell is None else [papers[number % len(papers)] for number in range(spec.trials)]


def connect(resources: Resources) -> Slots:
    """Start Ray on this machine, or join the cluster at `address`; return the slots of its trials.

    Raises:
        ValueError: no trial would fit.
    """
    start_ray(resources.address)
    return slots(resources, ray.cluster_resources())  # type: ignore[no-untyped-call]


def slots(resources: Resources, available: Mapping[str, float]) -> Slots:
    """Return the slots of a cluster with these resources.

    Raises:
        ValueError: no trial would fit.
    """
    cpus, gpus = available.get("CPU", 0.0), available.get("GPU", 0.0)
    per_trial = resources.gpus_per_trial if resources.gpus_per_trial is not None else float(gpus > 0)
    concurrent = resources.concurrent or int(gpus / per_trial if per_trial else cpus / (resources.cpus_per_trial or 1))
    is_local = resources.address is None
    too_much = is_local and ((resources.cpus_per_trial or 0) > cpus or per_trial > gpus)
    if concurrent < 1 or too_much:
        grows = "" if is_local else ", or --concurrent as well if the cluster grows on demand"
        raise ValueError(
            f"a trial with {resources.cpus_per_trial or 1} CPUs and {per_trial:g} GPUs does not fit: there are "
            f"{cpus:g} CPUs and {gpus:g} GPUs; give other --cpus-per-trial and --gpus-per-trial{grows}"
        )
    if resources.cpus_per_trial is not None or not is_local:
        return Slots(concurrent, resources.cpus_per_trial or 1, per_trial)
    return Slots(concurrent, cpus // concurrent or cpus / concurrent, per_trial)


def run(
    spec: StudySpec,
    place: StudyPlace,
    *,
    plan: Plan,
    study: optuna.Study,
    slots: Slots,
    tracker: Tracker,
    console: StudyConsole,
    time_budget: float = float("inf"),
) -> bool:
    """Run the remaining trials of the plan; return whether a signal ended the run.

    Raises:
        RuntimeError: the study's storage, or a trial's, cannot be written.
    """
    deadline = time.monotonic() + time_budget
    progress = ProgressCallback(study, console, plan=plan, deadline=deadline, epochs=spec.epochs)
    searcher = StudySearcher(
        study,
        plan.suggest,
        make_task=lambda number, paths: make_task(plan, place, number=number, paths=paths, slots=slots),
        objectives=spec.objectives,
        n_trials=plan.n_trials,
        epochs=lambda number: plan.terms(number).epochs,
        reads_test=plan.reads_test,
        deadline=deadline,
    )
    history = {t.number: TrialRecord.of(t).values for t in study.get_trials(deepcopy=False)}
    tuner = tune.Tuner(
        tune.with_resources(run_trial, {"cpu": slots.cpus, "gpu": slots.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=StudyScheduler(spec.scheduler, epochs=spec.epochs, history=history),
            num_samples=-1,  # the searcher counts, over all drivers of the study
            max_concurrent_trials=slots.concurrent,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=place.shared,
            verbose=0,
            stop=_StopWhen(lambda: searcher.error is not None or time.monotonic() >= deadline),
            failure_config=tune.FailureConfig(max_failures=0),  # the searcher hands the trial out again
            callbacks=[progress, TrackingCallback(tracker)],
        ),
    )
    with sigterm_ends_tune_in_order():
        console.start()
        try:
            tuner.fit()
        finally:
            console.stop()
            with contextlib.suppress(*((Exception,) if searcher.error else ())):
                requeue(study)
    if searcher.error:
        raise RuntimeError(f"{place.home}: {searcher.error}; no finished epoch is lost")
    return time.monotonic() < deadline and has_remaining_trials(study, plan)


def has_remaining_trials(study: optuna.Study, plan: Plan) -> bool:
    """Return whether a trial of the plan has not ended."""
    return sum(t.state.is_finished() for t in study.get_trials(deepcopy=False)) < plan.n_trials


def make_task(plan: Plan, place: StudyPlace, *, number: int, paths: Mapping[str, Any], slots: Slots) -> str:
    """Return the task of one trial for a worker, as JSON."""
    terms = plan.terms(number)
    inputs = SYSTEMS[paths.get("system/kind", "reprogramming")].config.inputs
    return TrialTask(
        number=number,
        paths=paths,
        epochs=terms.epochs,
        seed=plan.seed(number),
        backbone=terms.backbone,
        backbone_digest=terms.provenance["backbone_digest"],
        data=terms.data,
        data_digest=terms.provenance[f"{inputs}_digest"],
        precision=terms.precision,
        shared=place.shared,
        threads=max(1, int(slots.cpus)),
        provenance=terms.provenance,
        reads_test=plan.reads_test,
    ).to_json()


class _StopWhen(tune.Stopper):
    """Stops every trial once a condition holds."""

    def __init__(self, condition: Callable[[], bool]) -> None:
        self._condition = condition

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out: Tune's snapshots are never read."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._condition()

    def stop_all(self) -> bool:
        return self._condition()


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.config['number']:03d}"
