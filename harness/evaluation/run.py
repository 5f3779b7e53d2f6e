"""The paper's protocol: the best configurations by validation, retrained with several seeds, each tested once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import optuna
from optuna.trial import FrozenTrial, TrialState

from harness.config.study import DataSpec, Resources, StudyPlace, StudySpec
from harness.config.trial import TrialConfig
from harness.evaluation.caveats import heldout_usage
from harness.evaluation.plan import (
    RUNS_FILE,
    RunList,
    Session,
    check_same_test_clips,
    check_unchanged,
    evaluation_plan,
    read_runs,
    terms_of,
)
from harness.evaluation.report import write_report
from harness.evaluation.request import Request
from harness.evaluation.result import EvaluationResult, collect
from harness.evaluation.selection import (
    Candidate,
    candidates,
    check_comparable,
    check_systems,
    choose,
)
from harness.study import driver
from harness.study.console import StudyConsole
from harness.study.prepare import prepare_for
from harness.study.run import locked
from harness.study.storage import has_remaining_trials, open_storage
from harness.study.tracker import Tracker
from tracking import names


def evaluate(
    request: Request,
    *,
    resources: Resources | None = None,
    tracking_uri: str | None = None,
    console: StudyConsole | None = None,
) -> EvaluationResult:
    """Run the retrainings that a request still lacks, and return the result of all of them.

    Finished runs of this evaluation are neither retrained nor read again. A process that is connected to Ray uses that
    connection.
    """
    sources = request.read_sources()
    check_comparable(sources)
    found = {place.home.name: candidates(place, sources[place.home.name]) for place in request.studies}
    check_systems(request.systems, (candidate for of_study in found.values() for candidate in of_study))
    chosen = [
        candidate
        for of_study in found.values()
        for candidate in choose(
            (c for c in of_study if request.systems is None or c.system in request.systems),
            top=request.top,
            by=request.by,
        )
    ]
    place = request.place
    replace(next(iter(sources.values())), name=request.name or place.home.name)  # refuses a name that no study can have
    began = datetime.now(UTC).isoformat(timespec="seconds")
    session = Session(began, request.seeds, request.top, request.by, tuple(candidate.key for candidate in chosen))
    with locked(place, is_new=not place.has_begun(), own_file=RUNS_FILE):
        return _run_session(
            {study: terms_of(source, skip_corrupt=request.skips_corrupt) for study, source in sources.items()},
            chosen,
            place,
            session=session,
            resources=resources or Resources(),
            tracking_uri=tracking_uri,
            console=console or StudyConsole(),
        )


def _run_session(
    sources: Mapping[str, StudySpec],
    chosen: Sequence[Candidate],
    place: StudyPlace,
    *,
    session: Session,
    resources: Resources,
    tracking_uri: str | None,
    console: StudyConsole,
) -> EvaluationResult:
    """Extend the list of runs, run the remaining ones, and write the report."""
    before, name = read_runs(place.home), place.home.name
    if missing := sorted(set(before.sources if before else ()) - set(sources)):
        raise ValueError(
            f"name={name}: this evaluation also holds {', '.join(missing)}, which its report would lose; name all of "
            "its studies, or give another --name"
        )
    trials = _open(place).get_trials(deepcopy=False) if place.has_begun() else []
    finished, failed = (
        {trial.number for trial in trials if trial.state == state} for state in (TrialState.COMPLETE, TrialState.FAIL)
    )
    notes = heldout_usage(before, finished, chosen, sources=sources, seeds=session.seeds, place=place)
    listed = (before or RunList({})).extended(
        chosen, session=session, sources=sources, n_begun=len(trials), failed=failed
    )
    spec = _spec_of(listed, place, tracking_uri=tracking_uri)
    listed = replace(listed, tracking_uri=spec.tracking_uri)
    _announce(console, spec, place, chosen=chosen, session=session, notes=notes)
    if len(finished) + len(failed) < len(listed.runs):
        listed, spec = _prepare(listed, spec, place, trials=trials, console=console)
    listed.write(place)
    study, plan = _open(place), evaluation_plan(listed)
    tracker = Tracker(study, spec, place, plan=plan, labels=listed.labels)
    is_interrupted = False
    if has_remaining_trials(study, plan.n_trials):
        with driver.connected(resources) as slots:
            is_interrupted = driver.run(
                spec, place, plan=plan, study=study, slots=slots, tracker=tracker, console=console
            )
    found = collect(listed, study.get_trials(deepcopy=False), chosen, place=place)
    result = EvaluationResult(name, place, found, listed.labels, listed.floor, notes, is_interrupted)
    reports = write_report(result, session)
    closing = tracker.close(
        is_finished=not has_remaining_trials(study, plan.n_trials), metrics=_metrics(result), reports=reports
    )
    return replace(result, reports=tuple(reports), tracking=(*tracker.ui_lines(), *closing.splitlines()))


def _open(place: StudyPlace) -> optuna.Study:
    """Return the evaluation's Optuna study, which draws nothing. Its values are the runs' macro-F1 on validation."""
    return optuna.create_study(
        storage=open_storage(place.home),
        study_name=place.home.name,
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
        load_if_exists=True,
    )


def _spec_of(listed: RunList, place: StudyPlace, *, tracking_uri: str | None) -> StudySpec:
    """Return the evaluation as a study of its own; each run keeps the settings of its source study."""
    # a study with all labels revealed only if all are: it has another experiment
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
    """Print the configurations, and the earlier readings of the test split."""
    unread = " but for clips that cannot be read" if spec.data.skips_corrupt else ""
    choices = [f"{c.title}: {c.system}, validation {session.by} {c.figures[session.by]:.3f}{_mean(c)}" for c in chosen]
    console.header(
        [
            ("evaluation", f"{spec.name}, in {place.home}"),
            ("data", f"{spec.data.describe()}, and once for each run the whole test split{unread}"),
            ("backbone", f"{spec.backbone}, {spec.precision}"),
            ("chosen by", f"validation {session.by}, the best {session.top} of each system of each study"),
            *(("", choice) for choice in choices),
            ("seeds", f"{session.seeds} for each, the same for all"),
            *([("MLflow", spec.tracking_uri)] if spec.tracking_uri else []),
            *(("note", note) for note in notes),
        ]
    )


def _mean(candidate: Candidate) -> str:
    return "" if candidate.n_trials == 1 else f", the mean of {candidate.n_trials} trials of this configuration"


def _prepare(
    listed: RunList, spec: StudySpec, place: StudyPlace, *, trials: Sequence[FrozenTrial], console: StudyConsole
) -> tuple[RunList, StudySpec]:
    """Compute the features of all runs, test clips included; return list and spec with labels, floor and digests.

    `trials` are the runs that have begun.
    """
    groups: dict[tuple[str, DataSpec], list[StudySpec]] = {}
    for name in dict.fromkeys(run.study for run in listed.runs):
        source = listed.sources[name]
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
    """Return the metrics of the evaluation's run in MLflow: mean and spread of each configuration's test macro-F1."""
    metrics: dict[str, float] = {"runs": sum(len(c.finished) for c in result.configurations)}
    for configuration in result.configurations:
        if (summary := configuration.summary("macro_f1")) is not None:
            metrics[names.labelled("test_mean", configuration.title)] = summary.mean
            if summary.std is not None:
                metrics[names.labelled("test_std", configuration.title)] = summary.std
    return metrics
