"""The driver of a study, which joins Optuna's storage, Ray Tune, the console and the tracker.

The driver never reads Tune's results or restores Tune's state. Each driver starts a new Tune run from the Optuna
storage and the trials' checkpoints.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
import ray
from ray import tune

from harness.common.cli import sigterm_ends_tune_in_order
from harness.common.ray_start import start_ray
from harness.common.records import to_json
from harness.config.study import Resources, StudyPlace, StudySpec
from harness.study.console import Reporter, StudyConsole
from harness.study.plan import Plan
from harness.study.records import TrialRecord, TrialReport
from harness.study.scheduler import StudyScheduler
from harness.study.searcher import StudySearcher
from harness.study.session import TrialTask
from harness.study.storage import has_remaining_trials, requeue
from harness.study.tracker import Tracker
from harness.study.worker import run_trial

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Slots:
    """The number of trials that run at a time, and the cores and GPUs of each."""

    concurrent: int
    cpus: float
    gpus: float

    def describe(self) -> str:
        """Return the slots in words."""
        return f"{self.concurrent} at a time, {self.cpus:g} CPU and {self.gpus:g} GPU each"


@contextmanager
def connected(resources: Resources) -> Iterator[Slots]:
    """Start Ray, or join the cluster at `address`, unless this process is connected; yield the slots of the trials."""
    is_ours = not ray.is_initialized()
    try:
        if is_ours:
            start_ray(resources.address)
        yield slots(resources, ray.cluster_resources())  # type: ignore[no-untyped-call]
    finally:
        if is_ours:
            ray.shutdown()


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

    def make_task(number: int, paths: Mapping[str, Any]) -> str:
        """Return the task of one trial for a worker, as JSON."""
        planned, threads = plan.trial(number), max(1, int(slots.cpus))
        return to_json(
            TrialTask(number, paths, planned.spec, planned.seed, place.shared, threads, reads_test=plan.reads_test)
        )

    deadline = time.monotonic() + time_budget
    console.header([("running", slots.describe())])
    searcher = StudySearcher(study, plan, make_task=make_task, objectives=spec.objectives, deadline=deadline)
    reporter = Reporter(study, console, plan=plan, deadline=deadline, epochs=spec.epochs)
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
            callbacks=[_Listener(reporter, tracker)],
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
    return time.monotonic() < deadline and has_remaining_trials(study, plan.n_trials)


class _Listener(tune.Callback):
    """Passes Tune's events to the console and to the tracker; both read from the storage how a trial ended."""

    def __init__(self, reporter: Reporter, tracker: Tracker) -> None:
        self._reporter, self._tracker = reporter, tracker
        self._has_news = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out: Tune's snapshots are never read, and a study cannot be pickled."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._reporter.start(trial.config["number"])
        self._track(self._tracker.start, trial.config["number"])

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        if (report := TrialReport.from_tune(result)) is not None:
            self._reporter.epoch(report)
            self._track(self._tracker.epoch, report)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._reporter.end(trial.config["number"])
        self._has_news = True

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._reporter.lose_worker(trial.config["number"])
        self._has_news = True

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        if self._has_news:
            self._has_news = False
            self._reporter.announce()
            self._track(self._tracker.finish_ended)

    def on_experiment_end(self, trials: list[Any], **_: Any) -> None:
        self._reporter.announce()

    @staticmethod
    def _track(method: Callable[..., None], *arguments: Any) -> None:
        """Track, and log an error; as an exception in a callback it would end the study."""
        try:
            method(*arguments)
        except Exception:
            logger.exception("tracking: %s failed; the study goes on", method.__name__)


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
