"""A study from its flags to its exit code: begin or resume it, run its trials, print its results."""

import json
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial

from harness.common.cli import DEFAULT_STORAGE, EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK
from harness.common.files import unfinished
from harness.config.settings import held_digests
from harness.config.space import hold_fixed
from harness.config.study import STUDY_FILE, Resources, StudyPlace, StudySpec, make_study_directory
from harness.study import driver
from harness.study.plan import study_plan
from harness.study.prepare import Prepared, prepare
from harness.study.results import Row, axes_of, grid_of, grid_table, ranked_rows
from harness.study.storage import JOURNAL, has_remaining_trials, open_study
from harness.study.tracker import Tracker
from search_spaces import load
from tracking.paper_figures import heat_map

_LOCK = "driver.lock"


@contextmanager
def locked(place: StudyPlace, *, is_new: bool, own_file: str = STUDY_FILE) -> Iterator[None]:
    """Lock a study's directory for one driver; the lock ends with the process, however that ends.

    A directory without `own_file` must be empty. It may hold what a killed process left half-written, and an empty
    journal for Optuna. If the study cannot begin, a directory that was empty is removed.

    Raises:
        ValueError: another driver holds it, a new study's name is taken, or the directory holds something else.
        OSError: the directory cannot be made.
    """
    name = place.home.name
    make_study_directory(place.home)
    was_empty = not any(place.home.iterdir())
    is_own, leftover = (place.home / own_file).exists(), unfinished(place.home / own_file)
    if not is_own and any(file.name not in (_LOCK, leftover.name, JOURNAL) for file in place.home.iterdir()):
        raise ValueError(f"name={name}: {place.home} holds something else; choose another --name")
    try:
        with FileLock(place.home / _LOCK, timeout=0):
            if is_new and own_file == STUDY_FILE:
                place.check_is_free()
            leftover.unlink(missing_ok=True)
            try:
                yield
            except BaseException:
                if is_new and was_empty and not place.has_begun():
                    shutil.rmtree(place.home)
                raise
    except Timeout:
        raise ValueError(f"study {name} is being run by another process; let it end first") from None


def run_study(
    spec: StudySpec,
    place: StudyPlace,
    *,
    assignments: Sequence[str] | None,
    resources: Resources,
    time_budget: float,
) -> int:
    """Run a new study with these `PATH=VALUE` fixed, or resume one if None; return the exit code."""
    is_new = assignments is not None
    with locked(place, is_new=is_new):
        prepared = begin(spec, place, assignments=assignments or []) if is_new else resume(spec, place)
        outcome = run(prepared, resources, time_budget=time_budget)
        _conclude(prepared, outcome)
        _print_next_command(prepared, resources, outcome)
        return outcome.code


def begin(spec: StudySpec, place: StudyPlace, *, assignments: Sequence[str]) -> Prepared:
    """Check a new study, prepare its data and write its specification, in a locked directory."""
    spec = hold_fixed(spec, assignments)
    prepared = prepare(spec, place)
    place.write_spec(prepared.spec)
    return prepared


def resume(spec: StudySpec, place: StudyPlace) -> Prepared:
    """Prepare a study that was begun, and check that its data and its backbone are the same.

    Its budget may have grown. Later trials record today's versions and commit.

    Raises:
        ValueError: the data or the backbone has changed since.
    """
    prepared = prepare(spec, place)
    for name, now in held_digests(prepared.spec.provenance).items():
        before = spec.provenance.get(name, "")
        if before != now:
            raise ValueError(
                f"resume={spec.name}: {name} is {now[:12]}, the study began with {before[:12]}; its trials would not "
                "be comparable"
            )
    place.write_spec(spec)
    return prepared


@dataclass(frozen=True)
class Outcome:
    """One run of a study: its trials so far, and whether a signal or the time budget ended it early."""

    rows: Sequence[Row]
    results: Path
    figures: Sequence[Path]
    tracker: Tracker
    undelivered: str
    has_remaining_trials: bool
    is_interrupted: bool

    @property
    def code(self) -> int:
        """Return the exit code."""
        if self.is_interrupted:
            return EXIT_INTERRUPTED
        has_failed = any(row.state == "failed" for row in self.rows)
        is_fruitless = not self.has_remaining_trials and all(row.macro_f1 is None for row in self.rows)
        return EXIT_FAILURE if has_failed or is_fruitless else EXIT_OK


def run(prepared: Prepared, resources: Resources, *, time_budget: float = float("inf")) -> Outcome:
    """Run the remaining trials of a study and write its results."""
    spec, place, console = prepared.spec, prepared.place, prepared.console
    with driver.connected(resources) as slots:
        study, plan = open_study(spec, place), study_plan(spec)
        tracker = Tracker(study, spec, place, plan=plan, labels=prepared.labels)
        is_interrupted = driver.run(
            spec, place, plan=plan, study=study, slots=slots, tracker=tracker, console=console, time_budget=time_budget
        )
        trials = study.get_trials(deepcopy=False)
        rows = ranked_rows(trials, best=study.best_trials if len(spec.objectives) > 1 else ())
        has_remaining = has_remaining_trials(study, plan.n_trials)
        results = place.home / "results.json"
        results.write_text(json.dumps([asdict(row) for row in rows], indent=2))
        figures = _draw_grid(prepared, trials)
        closing = tracker.close(is_finished=not has_remaining, figures=figures)
    return Outcome(rows, results, figures, tracker, closing, has_remaining, is_interrupted)


def _draw_grid(prepared: Prepared, trials: Sequence[FrozenTrial]) -> list[Path]:
    """Print and draw the grid of a study whose space is a table."""
    space = load(prepared.spec.space)
    if space.cell is None:
        return []
    grid = grid_of(space, trials, fixed=prepared.spec.fixed)
    title = f"Study {prepared.spec.name}: validation macro-F1 of best epochs"
    prepared.console.say()
    prepared.console.console.print(grid_table(grid, title=f"{title}, mean ± standard deviation (trials)"))
    rows, columns = axes_of(grid)
    return heat_map(prepared.place.home / "heat_map", grid, rows=rows, columns=columns, title=title)


def _conclude(prepared: Prepared, outcome: Outcome) -> None:
    """Print the table and where everything is."""
    spec, say, rows = prepared.spec, prepared.console.say, outcome.rows
    say()
    prepared.console.table(f"Study {spec.name}: validation macro-F1 of each trial's best epoch", rows)
    if len(spec.objectives) > 1:
        front = sorted((row for row in rows if row.is_best), key=lambda row: row.params or 0)
        prepared.console.table("Pareto front: no finished trial scores higher with fewer parameters", front)
    say(f"floor     {prepared.floor:.3f} by always guessing each label's more frequent answer in training")
    say(f"results   {outcome.results}")
    for figure in outcome.figures:
        say(f"figure    {figure}")
    for title, line in zip(("MLflow", ""), outcome.tracker.ui_lines(), strict=False):
        say(f"{title:10}{line}")
    if outcome.undelivered:
        say(outcome.undelivered)


def _print_next_command(prepared: Prepared, resources: Resources, outcome: Outcome) -> None:
    """Print the command that resumes the study, or the one that extends it."""
    spec = prepared.spec
    words = ["python", "-m", "harness.study", "--resume", spec.name]
    words += [] if spec.storage == DEFAULT_STORAGE else ["--storage", spec.storage]
    words += [word for flag, value in resources.flags().items() for word in (flag, str(value))]
    if outcome.has_remaining_trials:
        ended_by = "interrupted" if outcome.is_interrupted else "time budget reached"
        prepared.console.say(f"{ended_by}; resume with   {shlex.join(words)}")
    else:
        prepared.console.say(f"extend    {shlex.join([*words, '--trials', str(2 * spec.trials)])}")
