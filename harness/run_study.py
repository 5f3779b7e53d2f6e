"""A study from its flags to its exit code: begin it or take it up, carry it out, say what it found."""

import json
import shlex
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import ray
import torch
from filelock import FileLock, Timeout
from optuna.exceptions import ExperimentalWarning

from harness import driver
from harness.console import StudyConsole
from harness.data.progress import track
from harness.data.sources import open_dataset, open_study_data
from harness.data.study_data import StudyData
from harness.metrics import majority_floor
from harness.models.checkpoints import backbone_digest, load_backbone
from harness.provenance import git_commit, versions
from harness.results import Row, pareto_front, ranked_rows
from harness.spec import Resources, StudyPlace, StudySpec
from harness.study import DEFAULT_STORAGE, DONE, FELL_SHORT, INTERRUPTED
from harness.subspace import explore, parse_fixed
from harness.tracker import Tracker
from search_spaces import load


@dataclass(frozen=True)
class Prepared:
    """A study that is ready to run: its data are on disk, its flags are checked."""

    spec: StudySpec
    place: StudyPlace
    labels: tuple[str, ...]
    floor: float
    console: StudyConsole


@contextmanager
def claimed(place: StudyPlace, *, is_new: bool) -> Iterator[None]:
    """Hold the study's place for one driver; the lock ends with the process, however that ends.

    A place that was made for a study which could not begin is removed.

    Raises:
        ValueError: another driver holds it, or a new study's name is taken.
    """
    place.home.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(place.home / "driver.lock", timeout=0):
            if is_new and place.spec_file.exists():
                raise ValueError(
                    f"name={place.home.name}: this study exists in {place.home}; go on with it by "
                    f"--resume {place.home.name}, or choose another --name"
                )
            try:
                yield
            except BaseException:
                if is_new and not place.has_begun():
                    shutil.rmtree(place.home)
                raise
    except Timeout:
        raise ValueError(f"study {place.home.name} is being run by another process; let it end first") from None


def run_study(
    spec: StudySpec,
    place: StudyPlace,
    *,
    assignments: Sequence[str] | None,
    resources: Resources,
    time_budget: float,
) -> int:
    """Run a new study with these `PATH=VALUE` held fixed, or one that was begun if None; return the exit code.

    Raises:
        ValueError: a flag, the data set or the backbone is not what it must be.
        OSError: a file or a cluster cannot be reached.
    """
    is_new = assignments is not None
    with claimed(place, is_new=is_new):
        prepared = begin(spec, place, assignments=assignments or []) if is_new else take_up(spec, place)
        return carry_out(prepared, resources, time_budget=time_budget)


def begin(spec: StudySpec, place: StudyPlace, *, assignments: Sequence[str]) -> Prepared:
    """Check a new study, prepare its data and write its specification, in a place that is claimed.

    Raises:
        ValueError: a flag, the data set or the backbone is not what it must be.
        FileNotFoundError: the data set or the backbone is not there.
    """
    space = load(spec.space)
    spec = replace(spec, fixed=parse_fixed(assignments, explore(space), space=spec.space))
    prepared = _prepare(spec, place)
    _write_spec(prepared.spec, place)
    return prepared


def take_up(spec: StudySpec, place: StudyPlace) -> Prepared:
    """Prepare a study that was begun, whose budget may have grown, and check that its data and backbone are the same.

    The versions and the commit become those of today, for the trials to come.

    Raises:
        ValueError: the data or the backbone has changed since.
    """
    prepared = _prepare(spec, place)
    for name in ("data_digest", "backbone_digest"):
        before, now = spec.provenance[name], prepared.spec.provenance[name]
        if before != now:
            raise ValueError(
                f"resume={spec.name}: {name} is {now[:12]}, the study began with {before[:12]}; its trials would not "
                "be comparable"
            )
    _write_spec(spec, place)
    return prepared


def carry_out(prepared: Prepared, resources: Resources, *, time_budget: float) -> int:
    """Run what the study owes, print what it found, and return the exit code."""
    spec, place, console = prepared.spec, prepared.place, prepared.console
    with _no_experimental_warnings():
        try:
            slots = driver.connect(resources)
            study = driver.open_study(spec, place)
            tracker = Tracker(study, spec, place, labels=prepared.labels)
            console.header(
                [("running", f"{slots.concurrent} at a time, {slots.cpus:g} CPU and {slots.gpus:g} GPU each")]
            )
            interrupted = driver.run(
                spec, place, study=study, slots=slots, tracker=tracker, console=console, time_budget=time_budget
            )
        finally:
            ray.shutdown()
        rows = ranked_rows(study.get_trials(deepcopy=False))
        results = _write_results(place, rows)
        closing = tracker.close(is_finished=not driver.owes(study, spec))
    _conclude(prepared, rows, tracker, results=results, undelivered=closing.message)
    _say_how_to_go_on(prepared, resources, owes=driver.owes(study, spec))
    if interrupted:
        return INTERRUPTED
    has_failed = any(row.state == "failed" for row in rows)
    return FELL_SHORT if has_failed or all(row.macro_f1 is None for row in rows) else DONE


def _write_spec(spec: StudySpec, place: StudyPlace) -> None:
    temporary = place.spec_file.with_suffix(".part")
    temporary.write_text(spec.to_json())
    temporary.replace(place.spec_file)


def _prepare(spec: StudySpec, place: StudyPlace) -> Prepared:
    """Announce the study, then load the backbone and the data as every worker will."""
    console = StudyConsole()
    space = load(spec.space)
    axes = explore(space)
    searched = tuple(path for path in axes.searched if path not in spec.fixed)
    cores = driver.cpu_count()
    held = "".join(f", {path}={value}" for path, value in spec.fixed.items())
    console.header(
        [
            ("study", f"{spec.name}, seed {spec.seed}, in {place.home}"),
            ("data", f"{spec.data.source}, {spec.data.split} validation split"),
            ("backbone", f"{spec.backbone}, frozen, {spec.precision}"),
            ("space", f"{spec.space}, {len(searched)} axes{held}: {space.summary}"),
            ("budget", f"{spec.trials} trials of {spec.epochs} epochs, stopped early by: {spec.scheduler}"),
            ("objective", spec.objective),
            ("device", f"{_device()}, {cores} CPU cores on this machine"),
        ]
    )
    backbone = load_backbone(spec.backbone)
    dataset = open_dataset(spec.data, workers=cores, progress=track)
    front_end = backbone.geometry.front_end
    data = open_study_data(spec.data, dataset, front_end=front_end, workers=cores, progress=track)
    floor = _floor(data)
    console.header(
        [
            (
                "clips",
                f"{len(data.train)} to train on, {len(data.validation)} to validate on, {len(data.labels)} labels",
            ),
            (
                "floor",
                f"macro-F1 {floor:.3f} on validation by always guessing each label's more frequent answer",
            ),
        ]
    )
    provenance = {
        "data_digest": data.digest,
        "backbone_digest": backbone_digest(backbone),
        "git_commit": git_commit(),
        **versions(),
    }
    return Prepared(replace(spec, provenance=provenance), place, data.labels, floor, console)


def _floor(data: StudyData) -> float:
    return majority_floor(
        data.train.targets,
        data.validation.targets,
        train_observed=data.train.observed,
        observed=data.validation.observed,
        labels=data.labels,
    ).macro_f1


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def _write_results(place: StudyPlace, rows: Sequence[Row]) -> Path:
    file = place.home / "results.json"
    file.write_text(json.dumps([asdict(row) for row in rows], indent=2))
    return file


def _conclude(prepared: Prepared, rows: Sequence[Row], tracker: Tracker, *, results: Path, undelivered: str) -> None:
    """Print the table and where everything is."""
    spec, say = prepared.spec, prepared.console.say
    say()
    prepared.console.table(f"Study {spec.name}: validation macro-F1 of each trial's best epoch", rows)
    if len(spec.objectives) > 1:
        ended = [row for row in rows if row.state == "done"]
        prepared.console.table(
            "Pareto front: no finished trial scores higher with fewer parameters", pareto_front(ended)
        )
    say(f"floor     {prepared.floor:.3f} by always guessing each label's more frequent answer")
    say(f"results   {results}")
    say(f"MLflow    {tracker.ui_command()}")
    say(f"          then open {tracker.ui_link()}")
    if undelivered:
        say(undelivered)


def _say_how_to_go_on(prepared: Prepared, resources: Resources, *, owes: bool) -> None:
    """Print the command that resumes the study, or that extends it."""
    spec = prepared.spec
    words = ["python", "-m", "harness.study", "--resume", spec.name]
    words += [] if spec.storage == DEFAULT_STORAGE else ["--storage", spec.storage]
    words += [word for flag, value in resources.flags().items() for word in (flag, str(value))]
    if owes:
        prepared.console.say(f"interrupted; go on with   {shlex.join(words)}")
    else:
        prepared.console.say(f"extend    {shlex.join([*words, '--trials', str(2 * spec.trials)])}")


@contextmanager
def _no_experimental_warnings() -> Iterator[None]:
    """Silence Optuna on its experimental features, which were chosen knowingly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
