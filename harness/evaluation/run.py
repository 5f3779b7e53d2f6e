"""The paper's protocol: the best configurations by validation, retrained with several seeds, each tested once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import optuna
from optuna.trial import FrozenTrial, TrialState

from harness.config.study import DataSpec, Resources, StudyPlace, StudySpec
from harness.config.trial import TrialConfig
from harness.evaluation.plan import (
    RUNS_FILE,
    EvaluationPlan,
    RunList,
    Session,
    check_same_test_clips,
    check_unchanged,
    read_runs,
    terms_of,
)
from harness.evaluation.report import notes_on, write_report
from harness.evaluation.result import EvaluationResult, collect
from harness.evaluation.selection import (
    Candidate,
    candidates,
    check_choice,
    check_comparable,
    check_systems,
    choose,
    read_source,
)
from harness.study import driver
from harness.study.console import StudyConsole
from harness.study.prepare import prepare_for
from harness.study.run import claimed, connected
from harness.study.storage import open_storage
from harness.study.tracker import Tracker
from tracking import names


def evaluate(
    studies: Sequence[StudyPlace],
    *,
    top: int = 1,
    seeds: int = 10,
    systems: Sequence[str] | None = None,
    by: str = "macro_f1",
    name: str | None = None,
    skip_corrupt: bool = False,
    resources: Resources | None = None,
    tracking_uri: str | None = None,
    console: StudyConsole | None = None,
) -> EvaluationResult:
    """Evaluate the best `top` configurations of each system of each study with this many seeds.

    What an evaluation of this name has finished is neither retrained nor read again. Ray is joined where this process
    is connected to it. `skip_corrupt` leaves out unreadable test clips, which a study of a fraction has not met.

    Raises:
        ValueError: a flag is not what it must be, or the studies are not comparable.
        OSError: a file or a cluster cannot be reached.
    """
    check_choice(by=by, top=top)
    if seeds < 1:
        raise ValueError(f"seeds={seeds}: must be at least 1")
    places = {place.home.name: place for place in studies}
    sources = {study: read_source(place) for study, place in places.items()}
    check_comparable(sources)
    found = {study: candidates(places[study], source) for study, source in sources.items()}
    check_systems(systems, (candidate for of_study in found.values() for candidate in of_study))
    chosen = [
        candidate
        for of_study in found.values()
        for candidate in choose((c for c in of_study if systems is None or c.system in systems), top=top, by=by)
    ]
    place = evaluation_place(next(iter(places.values())), name)
    replace(next(iter(sources.values())), name=name or place.home.name)  # a name that no study can have is refused
    began = datetime.now(UTC).isoformat(timespec="seconds")
    session = Session(began, seeds, top, by, tuple(candidate.key for candidate in chosen))
    with claimed(place, is_new=not place.has_begun(), own_file=RUNS_FILE):
        return _carry_out(
            {study: terms_of(source, skip_corrupt=skip_corrupt) for study, source in sources.items()},
            chosen,
            place,
            session=session,
            resources=resources or Resources(),
            tracking_uri=tracking_uri,
            console=console or StudyConsole(),
        )


def evaluation_place(first: StudyPlace, name: str | None) -> StudyPlace:
    """Return the place of an evaluation, beside its first study; its name is that study's with `.evaluation`.

    Raises:
        ValueError: a study has the name.
    """
    name = name or f"{first.home.name}.evaluation"
    place = StudyPlace(first.home.parent / name, f"{first.shared.rpartition('/')[0]}/{name}")
    if place.spec_file.exists():
        raise ValueError(f"name={name}: a study has this name; give the evaluation another --name")
    return place


def _carry_out(
    sources: Mapping[str, StudySpec],
    chosen: Sequence[Candidate],
    place: StudyPlace,
    *,
    session: Session,
    resources: Resources,
    tracking_uri: str | None,
    console: StudyConsole,
) -> EvaluationResult:
    """Extend the list of runs, run what it owes, and write down what there is."""
    before = read_runs(place.home)
    trials = _open(place).get_trials(deepcopy=False) if place.has_begun() else []
    finished, failed = (_numbers(trials, state) for state in (TrialState.COMPLETE, TrialState.FAIL))
    notes = notes_on(before, finished, chosen, sources=sources, seeds=session.seeds, place=place)
    listed = (before or RunList({})).extended(
        chosen, session=session, sources=sources, n_begun=len(trials), failed=failed
    )
    spec = _spec_of(listed, place, tracking_uri=tracking_uri)
    listed = replace(listed, tracking_uri=spec.tracking_uri)
    _announce(console, spec, place, chosen=chosen, session=session, notes=notes)
    if len(finished) + len(failed) < len(listed.runs):
        listed, spec = _prepare(listed, spec, place, trials=trials, console=console)
    listed.write(place)
    study, plan = _open(place), EvaluationPlan(listed)
    tracker = Tracker(study, spec, place, plan=plan, labels=listed.labels)
    is_interrupted = False
    if driver.owes(study, plan):
        is_interrupted = _run(plan, spec, place, study=study, tracker=tracker, resources=resources, console=console)
    found = collect(listed, study.get_trials(deepcopy=False), chosen, place=place)
    result = EvaluationResult(place.home.name, place, found, listed.labels, listed.floor, notes, is_interrupted)
    reports = write_report(result, session)
    closing = tracker.close(is_finished=not driver.owes(study, plan), metrics=_metrics(result), reports=reports)
    shown = (*tracker.ui_lines(), *closing.splitlines())
    return replace(result, reports=tuple(reports), tracking=shown)


def _run(
    plan: EvaluationPlan,
    spec: StudySpec,
    place: StudyPlace,
    *,
    study: optuna.Study,
    tracker: Tracker,
    resources: Resources,
    console: StudyConsole,
) -> bool:
    """Run what the plan owes; return whether a signal ended it before."""
    with connected(resources) as slots:
        console.header([("running", f"{slots.concurrent} at a time, {slots.cpus:g} CPU and {slots.gpus:g} GPU each")])
        return driver.run(spec, place, plan=plan, study=study, slots=slots, tracker=tracker, console=console)


def _open(place: StudyPlace) -> optuna.Study:
    """Return the evaluation's Optuna study: its values are the runs' macro-F1 on validation, and nothing is drawn."""
    return optuna.create_study(
        storage=open_storage(place.home),
        study_name=place.home.name,
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
        load_if_exists=True,
    )


def _numbers(trials: Sequence[FrozenTrial], state: TrialState) -> set[int]:
    return {trial.number for trial in trials if trial.state == state}


def _spec_of(listed: RunList, place: StudyPlace, *, tracking_uri: str | None) -> StudySpec:
    """Return what the evaluation is as a study of its own; each run has the terms of the study it comes from."""
    # a ceiling only if all are: the evaluation belongs beside the honest ones
    first = min(listed.sources.values(), key=lambda source: source.data.reveals_all)
    return replace(
        first,
        name=place.home.name,
        epochs=max(source.epochs for source in listed.sources.values()),
        objective="f1",
        scheduler="none",
        preset=None,
        fixed={},
        tracking_uri=tracking_uri or listed.tracking_uri or first.tracking_uri,
    )


def _announce(
    console: StudyConsole,
    spec: StudySpec,
    place: StudyPlace,
    *,
    chosen: Sequence[Candidate],
    session: Session,
    notes: Sequence[str],
) -> None:
    """Say what is to be evaluated, and what was read before."""
    unread = " but for clips that cannot be read" if spec.data.skips_corrupt else ""
    console.header(
        [
            ("evaluation", f"{spec.name}, in {place.home}"),
            ("data", f"{spec.data.in_words()}, and once for each run the whole test split{unread}"),
            ("backbone", f"{spec.backbone}, {spec.precision}"),
            ("chosen by", f"validation {session.by}, the best {session.top} of each system of each study"),
            *(("", _choice(c, session.by)) for c in chosen),
            ("seeds", f"{session.seeds} for each, the same for all"),
            *(("note", note) for note in notes),
        ]
    )


def _choice(candidate: Candidate, by: str) -> str:
    """Say what a configuration was chosen by."""
    mean = "" if candidate.n_trials == 1 else f", the mean of {candidate.n_trials} trials of this configuration"
    return f"{candidate.title}: {candidate.system}, validation {by} {candidate.figures[by]:.3f}{mean}"


def _prepare(
    listed: RunList, spec: StudySpec, place: StudyPlace, *, trials: Sequence[FrozenTrial], console: StudyConsole
) -> tuple[RunList, StudySpec]:
    """Compute the features that the runs hear, on test too; return list and spec with what that told.

    `trials` are those of the runs that have begun.

    Raises:
        ValueError: the data or the backbone are no longer those of a study, or the test clips those of its runs.
    """
    wanted = {run.study for run in listed.runs}
    groups: dict[tuple[str, DataSpec], list[StudySpec]] = {}
    for source in (source for name, source in listed.sources.items() if name in wanted):
        groups.setdefault((source.backbone, source.data), []).append(source)
    for sources in groups.values():
        studies = {source.name for source in sources}
        configs = [TrialConfig.from_paths(run.paths) for run in listed.runs if run.study in studies]
        prepared = prepare_for(sources[0], place, configs, console=console, reads_test=True)
        for source in sources:
            check_unchanged(source, prepared.spec.provenance)
        tested = [trial for trial in trials if listed.runs[trial.number].study in studies]
        check_same_test_clips(tested, prepared.spec.provenance, name=spec.name)
        listed = replace(listed, labels=prepared.labels, floor=prepared.floor)
        spec = replace(spec, provenance={**spec.provenance, **prepared.spec.provenance})
    return listed, spec


def _metrics(result: EvaluationResult) -> dict[str, float]:
    """Return what the evaluation's run in MLflow sums up: the mean test macro-F1 of each configuration, its spread."""
    metrics: dict[str, float] = {"runs": sum(len(c.finished) for c in result.configurations)}
    for configuration in result.configurations:
        if (summary := configuration.summary("macro_f1")) is not None:
            metrics[names.test_mean(configuration.title)] = summary.mean
            if summary.std is not None:
                metrics[names.test_std(configuration.title)] = summary.std
    return metrics
