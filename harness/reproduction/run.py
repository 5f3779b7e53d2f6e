"""A reproduction from what was asked for to its exit code: the studies, their evaluation, the report."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from optuna.trial import TrialState

from harness.common.cli import DONE, FELL_SHORT, INTERRUPTED
from harness.common.files import read_with, write_whole
from harness.common.progress import track
from harness.common.ray_start import cpu_count
from harness.config.literature import LABEL_COUNTS, in_words
from harness.config.space import papers_within
from harness.config.study import STUDY_FILE, Resources, StudyPlace, StudySpec, terms_of_all
from harness.data.dataset import POSITIVE, ClipDataset
from harness.evaluation.report import conclude
from harness.evaluation.result import EvaluationResult
from harness.evaluation.run import evaluate, evaluation_place
from harness.reproduction.report import (
    DataDescription,
    differences,
    notes_of,
    system_result,
    systems_table,
    write_paper_report,
)
from harness.reproduction.spec import CEILING, VGGISH_SYSTEMS, Reproduction, describe
from harness.study import driver
from harness.study.console import StudyConsole, clock
from harness.study.plan import StudyPlan
from harness.study.records import TrialRecord
from harness.study.run import begin, carry_out, claimed, connected, take_up
from harness.study.sources import open_dataset
from harness.study.tracker import experiment_of
from harness.synthetic.openmic_sized import is_stand_in
from harness.training.metrics import majority_floor
from search_spaces import load
from tracking import records
from tracking.outbox import Outbox

SETTINGS = "reproduction.json"


def reproduce(wanted: Reproduction, resources: Resources) -> int:
    """Run what is not done yet of a reproduction, write its report, and return the exit code.

    Raises:
        ValueError: a flag, the data set or the backbone is not what it must be, or not what it was.
        OSError: a file or a cluster cannot be reached.
    """
    console, began = StudyConsole(), time.monotonic()
    with claimed(wanted.place, is_new=False, own_file=SETTINGS):
        wanted = _settle(wanted)
        console.header(
            [
                ("reproduce", f"{in_words(wanted.systems)}, in {wanted.place.home}"),
                ("each", f"a study of {wanted.trials} trials, then {wanted.seeds} runs of its best on the test split"),
            ]
        )
        dataset = open_dataset(wanted.data, workers=cpu_count(), progress=track)
        _check_vggish(wanted, dataset)
        with connected(resources):
            for number, part in enumerate(wanted.parts, 1):
                console.say(f"\n{number} of {len(wanted.parts)} studies, after {clock(time.monotonic() - began)}")
                if not run_part(wanted, part, resources):
                    return _interrupted(console)
            console.say(f"\nthe evaluation of all, after {clock(time.monotonic() - began)}")
            result = _evaluate(wanted, resources, console=console)
        if result.configurations:
            conclude(result, console)
        if result.is_interrupted:
            return _interrupted(console)
        is_whole = _report(wanted, result, dataset, console=console) and not result.has_failed
        console.say(f"took      {clock(time.monotonic() - began)}")
    return DONE if is_whole else FELL_SHORT


def _interrupted(console: StudyConsole) -> int:
    console.say("interrupted; type the same command again to go on")
    return INTERRUPTED


def _settle(wanted: Reproduction) -> Reproduction:
    """Return what goes on with what began here, if something did, and write it down."""
    file = wanted.place.home / SETTINGS
    if file.exists() and any(file.parent.parent.glob(f"{wanted.name}.*/{STUDY_FILE}")):
        wanted = wanted.grown_from(read_with(Reproduction.from_json, file))
    write_whole(file, wanted.to_json())
    return wanted


def _check_vggish(wanted: Reproduction, dataset: ClipDataset) -> None:
    """Refuse systems that hear VGGish where there is none, before anything is trained."""
    deaf = [system for system in wanted.systems if system in VGGISH_SYSTEMS]
    if deaf and dataset.vggish is None:
        others = ",".join(system for system in wanted.systems if system not in VGGISH_SYSTEMS)
        raise ValueError(
            f"systems={','.join(deaf)}: hear VGGish features, and {dataset.root} has no array 'X' of them; leave them "
            f"out: --systems {others or 'none,unet'}"
        )


def _evaluate(wanted: Reproduction, resources: Resources, *, console: StudyConsole) -> EvaluationResult:
    """Evaluate the parts that have a finished trial together; say which have none, and why."""
    places = {part: wanted.place_of(part) for part in wanted.parts}
    lacking = {part: told for part, place in places.items() if (told := why_unfinished(place))}
    notes = tuple(f"{part}: {told}" for part, told in lacking.items())
    for note in notes:
        console.say(f"note      {note}")
    name = f"{wanted.name}.evaluation"
    if len(lacking) == len(places):
        return EvaluationResult(name, evaluation_place(wanted.place, name), (), (), None, notes, is_interrupted=False)
    result = evaluate(
        [place for part, place in places.items() if part not in lacking],
        seeds=wanted.seeds,
        name=name,
        skip_corrupt=wanted.skips_corrupt_tests,
        resources=resources,
        tracking_uri=wanted.tracking_uri,
        console=console,
    )
    return replace(result, notes=(*notes, *result.notes))


def _report(wanted: Reproduction, result: EvaluationResult, dataset: ClipDataset, *, console: StudyConsole) -> bool:
    """Write the report and its figures, print its table, log them to MLflow; return whether every system is in it."""
    by_part = {
        configuration.study.removeprefix(f"{wanted.name}."): configuration for configuration in result.configurations
    }
    systems = [system_result(wanted, part, by_part.get(part)) for part in wanted.systems]
    ceiling = by_part[CEILING].summary("macro_f1") if CEILING in by_part else None
    data = _describe(wanted, dataset, ceiling=ceiling.mean if ceiling else None)
    files = write_paper_report(
        wanted.place.home,
        systems,
        data=data,
        conditions=describe(wanted),
        comparisons=differences(wanted, result),
        notes=notes_of(wanted, result),
    )
    console.say(f"\n{systems_table(systems, data)}\n")
    for file in files:
        if file.suffix != ".svg":
            console.say(f"report    {file}")
    _log(wanted, result, files)
    return all(system.macro_f1 for system in systems)


def _describe(wanted: Reproduction, dataset: ClipDataset, *, ceiling: float | None) -> DataDescription:
    """Return what the report says of the data: labels by class and split, and what guessing comes to on the test."""
    train, test = dataset.train, dataset.test
    floor = majority_floor(
        dataset.targets[train],
        dataset.targets[test],
        train_observed=dataset.observed[train],
        observed=dataset.observed[test],
        labels=dataset.labels,
    )
    return DataDescription(
        name="the demo set" if wanted.data.source == "demo" else dataset.name,
        is_openmic=not is_stand_in(dataset.root)
        and _counts(dataset, test)
        == {label: (counts.test_positive, counts.test_negative) for label, counts in LABEL_COUNTS.items()},
        floor=floor.macro_f1,
        train_counts=_counts(dataset, train),
        test_counts=_counts(dataset, test),
        ceiling=ceiling,
        floor_by_label=floor.f1_by_label,
    )


def _counts(dataset: ClipDataset, rows: np.ndarray) -> dict[str, tuple[int, int]]:
    observed, positive = dataset.observed[rows], dataset.targets[rows] >= POSITIVE
    yes, no = (observed & positive).sum(axis=0), (observed & ~positive).sum(axis=0)
    return {label: (int(yes[i]), int(no[i])) for i, label in enumerate(dataset.labels)}


def _log(wanted: Reproduction, result: EvaluationResult, files: Sequence[Path]) -> None:
    """Log the report to MLflow, in the experiment of the studies."""
    specs = [wanted.place_of(part).read_spec() for part in wanted.parts]
    first = specs[0]
    uri = wanted.tracking_uri or wanted.place.default_tracking_uri
    outbox = Outbox(wanted.place.home, uri, experiment=experiment_of(first), head_start_s=0)
    tags = {"seed": wanted.seed, **first.provenance, **terms_of_all(specs)}
    outbox.add(records.open_study(outbox.study_key, name=wanted.name, tags=tags))
    metrics = {"runs": sum(len(configuration.finished) for configuration in result.configurations)}
    outbox.add(records.finish_study(outbox.study_key, status="FINISHED", metrics=metrics, artifacts={"report": files}))
    outbox.close()


def run_part(wanted: Reproduction, part: str, resources: Resources) -> bool:
    """Run what a part's study owes, or again what failed as a whole; return whether it came to its end."""
    place, spec = wanted.place_of(part), wanted.spec(part)
    is_new = not place.spec_file.exists()
    with claimed(place, is_new=is_new):
        if is_new:
            prepared = begin(spec, place, assignments=[])
        else:
            spec = place.read_spec().extended(trials=None, tracking_uri=wanted.tracking_uri)
            spec = with_another_try(spec, place, trials=wanted.trials)
            if place.has_begun() and not driver.owes(driver.open_study(spec, place), StudyPlan(spec)):
                StudyConsole().say(f"{spec.name}: done before")
                return True
            prepared = take_up(spec, place)
        outcome = carry_out(prepared, resources)
    best = outcome.rows[0] if outcome.rows else None  # none where a signal came before the first trial
    if best is not None and best.macro_f1 is not None:
        prepared.console.say(f"best      trial {best.number}, validation macro-F1 {best.macro_f1:.3f}")
    return not outcome.owes


def with_another_try(spec: StudySpec, place: StudyPlace, *, trials: int) -> StudySpec:
    """Return the study with so many more trials if all have ended and none has finished, the paper's again first.

    What failed stays in the study, as a failed run stays in an evaluation.
    """
    if not place.has_begun():
        return spec
    study = driver.open_study(spec, place)
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    n_ended = sum(state.is_finished() for state in states)
    if n_ended < spec.trials or TrialState.COMPLETE in states:
        return spec
    if n_ended == len(states):  # else they are in line, and the driver was killed then
        for paper in papers_within(load(spec.space, spec.preset), spec.fixed):
            study.enqueue_trial({**paper, **spec.fixed})
    StudyConsole().say(f"{spec.name}: none of its trials has finished; {trials} more now")
    return spec.extended(trials=n_ended + trials, tracking_uri=None)


def why_unfinished(place: StudyPlace) -> str:
    """Return why nothing of a part can be evaluated; "" if a trial of it has finished."""
    trials = driver.open_study(place.read_spec(), place).get_trials(deepcopy=False)
    if any(trial.state == TrialState.COMPLETE for trial in trials):
        return ""
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    told = "none of its trials has finished, so it is not evaluated"
    if failed:
        told += f"; trial {failed[-1].number} failed: {TrialRecord.of(failed[-1]).reason or 'for no known reason'}"
    return f"{told}; the same command tries again, see {place.home}"
