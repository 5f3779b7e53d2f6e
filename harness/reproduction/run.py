"""Run a reproduction: its studies, their evaluation and its report."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from optuna.trial import TrialState

from harness.common.cli import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK
from harness.common.progress import track
from harness.common.ray_start import cpu_count
from harness.common.records import read_record, write_record
from harness.config.literature import LABEL_COUNTS, describe_systems
from harness.config.space import papers_within
from harness.config.study import Resources, StudyPlace, StudySpec, terms_of_all
from harness.data.check import count_labels
from harness.data.dataset import ClipDataset
from harness.evaluation.caveats import caveats
from harness.evaluation.report import conclude
from harness.evaluation.request import Request
from harness.evaluation.result import EvaluationResult
from harness.evaluation.run import evaluate
from harness.reproduction.report import (
    DataDescription,
    differences,
    system_result,
    systems_table,
    write_paper_report,
)
from harness.reproduction.spec import CEILING, SETTINGS, VGGISH_SYSTEMS, Reproduction, describe_conditions
from harness.study.console import StudyConsole, clock
from harness.study.driver import connected
from harness.study.heldout import floor_on_test
from harness.study.records import TrialRecord
from harness.study.run import begin, locked, resume, run
from harness.study.sources import open_dataset
from harness.study.storage import has_remaining_trials, open_study
from harness.study.tracker import experiment_of
from harness.synthetic.openmic_sized import is_stand_in
from search_spaces import load
from tracking import records
from tracking.outbox import Outbox

_INTERRUPTED = "interrupted; type the same command again to continue"


def reproduce(reproduction: Reproduction, resources: Resources) -> int:
    """Run the remaining parts of a reproduction, write its report, and return the exit code."""
    console, began = StudyConsole(), time.monotonic()
    with locked(reproduction.place, is_new=False, own_file=SETTINGS):
        reproduction = _settle(reproduction)
        each = f"a study of {reproduction.trials} trials, then {reproduction.seeds} runs of its best on test"
        systems = f"{describe_systems(reproduction.systems)}, in {reproduction.place.home}"
        console.header([("reproduce", systems), ("each", each)])
        dataset = open_dataset(reproduction.data, workers=cpu_count(), progress=track)
        _check_vggish(reproduction, dataset)
        with connected(resources):
            for number, part in enumerate(reproduction.parts, 1):
                console.say(f"\n{number} of {len(reproduction.parts)} studies, after {clock(time.monotonic() - began)}")
                if not run_part(reproduction, part, resources):
                    console.say(_INTERRUPTED)
                    return EXIT_INTERRUPTED
            console.say(f"\nthe evaluation of all, after {clock(time.monotonic() - began)}")
            result = _evaluate(reproduction, resources, console=console)
        if result.configurations:
            conclude(result, console)
        if result.is_interrupted:
            console.say(_INTERRUPTED)
            return EXIT_INTERRUPTED
        is_whole = _report(reproduction, result, dataset, console=console) and not result.has_failed
        console.say(f"took      {clock(time.monotonic() - began)}")
    return EXIT_OK if is_whole else EXIT_FAILURE


def _settle(reproduction: Reproduction) -> Reproduction:
    """Return the reproduction with the systems that began here, and write its settings."""
    if reproduction.has_begun:
        reproduction = reproduction.grown_from(read_record(Reproduction, reproduction.file))
    write_record(reproduction.file, reproduction)
    return reproduction


def _check_vggish(reproduction: Reproduction, dataset: ClipDataset) -> None:
    """Refuse systems that need VGGish features where there are none, before any training."""
    needy = [system for system in reproduction.systems if system in VGGISH_SYSTEMS]
    if needy and dataset.vggish is None:
        others = ",".join(system for system in reproduction.systems if system not in VGGISH_SYSTEMS)
        raise ValueError(
            f"systems={','.join(needy)}: need VGGish features, and {dataset.root} has no array 'X' of them; leave them "
            f"out: --systems {others or 'none,unet'}"
        )


def _evaluate(reproduction: Reproduction, resources: Resources, *, console: StudyConsole) -> EvaluationResult:
    """Evaluate all parts with a finished trial together; note the others, and why they have none."""
    places = {part: reproduction.place_of(part) for part in reproduction.parts}
    lacking = {part: reason for part, place in places.items() if (reason := why_unfinished(place))}
    notes = tuple(f"{part}: {reason}" for part, reason in lacking.items())
    for note in notes:
        console.say(f"note      {note}")
    name = f"{reproduction.name}.evaluation"
    if len(lacking) == len(places):
        place = reproduction.place_of("evaluation")
        return EvaluationResult(name, place, (), (), None, notes, is_interrupted=False)
    result = evaluate(
        Request(
            tuple(place for part, place in places.items() if part not in lacking),
            seeds=reproduction.seeds,
            name=name,
            skips_corrupt=reproduction.skips_corrupt_tests,
        ),
        resources=resources,
        tracking_uri=reproduction.tracking_uri,
        console=console,
    )
    return replace(result, notes=(*notes, *result.notes))


def _report(
    reproduction: Reproduction, result: EvaluationResult, dataset: ClipDataset, *, console: StudyConsole
) -> bool:
    """Write, print and log the report; return whether every system has a result."""
    by_part = {reproduction.part_of(c.study): c for c in result.configurations}
    systems = [system_result(reproduction, part, by_part.get(part)) for part in reproduction.systems]
    ceiling = by_part[CEILING].summary("macro_f1") if CEILING in by_part else None
    data = _describe(reproduction, dataset, ceiling=ceiling.mean if ceiling else None)
    files = write_paper_report(
        reproduction.place.home,
        systems,
        data=data,
        conditions=describe_conditions(reproduction),
        comparisons=differences(reproduction, result),
        notes=[*result.notes, *caveats(result)],
    )
    console.say(f"\n{systems_table(systems, data)}\n")
    for file in files:
        if file.suffix != ".svg":
            console.say(f"report    {file}")
    _log(reproduction, result, files)
    return all(system.macro_f1 for system in systems)


def _describe(reproduction: Reproduction, dataset: ClipDataset, *, ceiling: float | None) -> DataDescription:
    """Return the label counts by split, and the floor on the test split."""
    counts, test = count_labels(dataset), dataset.test
    floor = floor_on_test(dataset, dataset.targets[test], observed=dataset.observed[test])
    published = {label: (found.test_positive, found.test_negative) for label, found in LABEL_COUNTS.items()}
    return DataDescription(
        name="the demo set" if reproduction.data.source == "demo" else dataset.name,
        is_openmic=not is_stand_in(dataset.root) and counts["test"] == published,
        floor=floor.macro_f1,
        train_counts=counts["train"],
        test_counts=counts["test"],
        ceiling=ceiling,
        floor_by_label=floor.f1_by_label,
    )


def _log(reproduction: Reproduction, result: EvaluationResult, files: Sequence[Path]) -> None:
    """Log the report to MLflow, in the experiment of the studies."""
    specs = [reproduction.place_of(part).read_spec() for part in reproduction.parts]
    first = specs[0]
    uri = reproduction.tracking_uri or reproduction.place.default_tracking_uri
    outbox = Outbox(reproduction.place.home, uri, experiment=experiment_of(first), head_start_s=0)
    tags = {"seed": reproduction.seed, **first.provenance, **terms_of_all(specs)}
    outbox.add(records.open_study(outbox.study_key, name=reproduction.name, tags=tags))
    metrics = {"runs": sum(len(configuration.finished) for configuration in result.configurations)}
    outbox.add(records.finish_study(outbox.study_key, status="FINISHED", metrics=metrics, artifacts={"report": files}))
    outbox.close()


def run_part(reproduction: Reproduction, part: str, resources: Resources) -> bool:
    """Run the remaining trials of a part's study, or all again if all failed; return whether none remains."""
    place, spec = reproduction.place_of(part), reproduction.spec(part)
    is_new = not place.spec_file.exists()
    with locked(place, is_new=is_new):
        if is_new:
            prepared = begin(spec, place, assignments=[])
        else:
            spec = place.read_spec().extended(trials=None, tracking_uri=reproduction.tracking_uri)
            spec = with_another_try(spec, place, trials=reproduction.trials)
            if place.has_begun() and not has_remaining_trials(open_study(spec, place), spec.trials):
                StudyConsole().say(f"{spec.name}: done before")
                return True
            prepared = resume(spec, place)
        outcome = run(prepared, resources)
    best = outcome.rows[0] if outcome.rows else None  # no row if a signal came before the first trial
    if best is not None and best.macro_f1 is not None:
        prepared.console.say(f"best      trial {best.number}, validation macro-F1 {best.macro_f1:.3f}")
    return not outcome.has_remaining_trials


def with_another_try(spec: StudySpec, place: StudyPlace, *, trials: int) -> StudySpec:
    """Return the study with `trials` more if all have ended and none has finished; the paper's configuration is first.

    Failed trials stay in the study, as failed runs stay in an evaluation.
    """
    if not place.has_begun():
        return spec
    study = open_study(spec, place)
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    n_ended = sum(state.is_finished() for state in states)
    if n_ended < spec.trials or TrialState.COMPLETE in states:
        return spec
    if n_ended == len(states):  # else a driver that was killed has enqueued them
        for paper in papers_within(load(spec.space, spec.preset), spec.fixed):
            study.enqueue_trial({**paper, **spec.fixed})
    StudyConsole().say(f"{spec.name}: none of its trials has finished; {trials} more now")
    return spec.extended(trials=n_ended + trials, tracking_uri=None)


def why_unfinished(place: StudyPlace) -> str:
    """Return why a part cannot be evaluated, or "" if one of its trials has finished."""
    trials = open_study(place.read_spec(), place).get_trials(deepcopy=False)
    if any(trial.state == TrialState.COMPLETE for trial in trials):
        return ""
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    reason = "none of its trials has finished, so it is not evaluated"
    if failed:
        lost = failed[-1]
        reason += f"; trial {lost.number} failed: {TrialRecord.of(lost).reason or 'for no known reason'}"
    return f"{reason}; the same command tries again, see {place.home}"
