"""Report an evaluation: tables for the terminal, evaluation.md to read, evaluation.json with every figure."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.table import Table

from harness.common.files import write_whole
from harness.common.tables import Column, fitted_table
from harness.common.text import markdown_table
from harness.config.study import StudyPlace, StudySpec, differing
from harness.evaluation.plan import Key, RunList, Session, evaluations_beside
from harness.evaluation.result import Comparison, ConfigurationResult, EvaluationResult, paired_seeds
from harness.evaluation.selection import Candidate
from harness.evaluation.statistics import COVERAGE, Difference, Summary
from harness.study.console import StudyConsole
from harness.training.metrics import METRICS, OF_RECORD

_MAX_COLUMNS = 6

_ENDS = [Column(name) for name in ("mean", "std", "min", "max")]

Section = tuple[list[Column], list[list[str]]]
"""The columns and the rows of a table."""


def write_report(result: EvaluationResult, session: Session) -> list[Path]:
    """Write evaluation.json and evaluation.md into the evaluation's folder; return their paths."""
    contents = {
        "evaluation.json": json.dumps(_as_json(result, session), indent=2) + "\n",
        "evaluation.md": _as_markdown(result, session),
    }
    files = [result.place.home / name for name in contents]
    for file in files:
        write_whole(file, contents[file.name])
    return files


def tables(result: EvaluationResult, *, width: int) -> list[Table]:
    """Return the tables for a terminal of this width: configurations, F1 by label, differences of macro-F1."""
    title = f"Evaluation {result.name}: figures on the test split, mean ± std over seeds"
    sections = [(title, *_on_test(result)), ("Training", *_training(result))]
    if len(result.configurations) <= _MAX_COLUMNS:
        sections.append(("F1 by label on the test split", *_by_label(result)))
    if comparisons := result.comparisons():
        if len(result.configurations) > _MAX_COLUMNS:
            comparisons = [c for c in comparisons if c.one == result.configurations[0].title]
        sections.append(("Test macro-F1, paired by seed", *_differences(comparisons)))
    return [fitted_table(title, columns, rows, width=width) for title, columns, rows in sections]


def conclude(result: EvaluationResult, console: StudyConsole) -> None:
    """Print the tables, the caveats and the places of all files."""
    console.say()
    for table in tables(result, width=console.console.width):
        console.console.print(table, soft_wrap=False)
    for line in caveats(result):
        console.say(f"note      {line}")
    if floor := _floor(result):
        console.say(f"floor     {floor}")
    for file in result.reports:
        console.say(f"report    {file}")
    for line in result.tracking:
        console.say(f"MLflow    {line}")


def _floor(result: EvaluationResult) -> str:
    """Return the macro-F1 of always guessing on both splits, as far as it is known."""
    known = []
    if floors := result.test_floors:
        known.append(f"{' to '.join(map(_figure, floors))} on test")
    if result.floor is not None:
        known.append(f"{_figure(result.floor)} on validation")
    by = "by always guessing each label's more frequent answer in training"
    return f"macro-F1 {', '.join(known)} {by}" if known else ""


def _on_test(result: EvaluationResult) -> Section:
    others = [name for name in METRICS if name != OF_RECORD]
    rows = []
    for c in result.configurations:
        macro = c.summary(OF_RECORD)
        ends = [None, None] if macro is None else [macro.minimum, macro.maximum]
        spreads = [_spread(c.summary(name)) for name in others]
        n_seeds = f"{len(c.finished)}/{len(c.seeds)}"
        rows.append([_system(c), c.title, n_seeds, _spread(macro), *map(_figure, ends), *spreads])
    record = [Column("seeds"), Column(METRICS[OF_RECORD].title), Column("min", drop=100), Column("max", drop=99)]
    further = [Column(METRICS[name].title, drop=number) for number, name in enumerate(others, 1)]
    return [_words("system"), _words("configuration"), *record, *further], rows


def _training(result: EvaluationResult) -> Section:
    rows = [
        [
            _system(c),
            c.title,
            _spread(c.summary(OF_RECORD, split="validation")),
            "-" if c.params is None else f"{c.params:,}",
            f"{_seconds(c).mean:.1f}" if c.finished else "-",
        ]
        for c in result.configurations
    ]
    numbers = [Column("validation macro-F1"), Column("trained parameters"), Column("seconds a run", drop=1)]
    return [_words("system"), _words("configuration"), *numbers], rows


def _system(c: ConfigurationResult) -> str:
    """Return the system's name, and the paper's."""
    return c.system if c.paper_name == "-" else f"{c.system} ({c.paper_name})"


def _by_label(result: EvaluationResult) -> Section:
    rows = [
        [label, *(_spread(c.summary(f"f1_by_label/{label}")) for c in result.configurations)] for label in result.labels
    ]
    headings = [f"{c.system}\n{c.paper_name}" for c in result.configurations]
    if len(set(headings)) < len(headings):
        headings = [f"{heading}\n{c.title}" for heading, c in zip(headings, result.configurations, strict=True)]
    return [_words("label"), *(Column(heading, drop=number) for number, heading in enumerate(headings))], rows


def _differences(comparisons: Iterable[Comparison]) -> Section:
    rows = [
        [c.one, c.other, str(c.difference.n), f"{c.difference.mean:+.3f}", _interval(c.difference)] for c in comparisons
    ]
    return [_words("one"), _words("other"), Column("seeds"), Column("one - other"), Column("95 % interval")], rows


def _words(name: str) -> Column:
    return Column(name, is_number=False)


def _markdown(section: Section) -> str:
    columns, rows = section
    return markdown_table([c.name for c in columns], rows, n_words=sum(not c.is_number for c in columns))


def _full(result: EvaluationResult) -> Section:
    """Return mean, standard deviation, min and max of each metric on both splits."""
    rows = [
        [f"{c.title} {_system(c)}", f"{split} {metric.title}", str(s.n if s else 0), *_ends(s)]
        for c in result.configurations
        for name, metric in METRICS.items()
        for split in ("test", "validation")
        for s in [c.summary(name, split=split)]
    ]
    return [_words("configuration"), _words("figure"), Column("seeds"), *_ENDS], rows


def _full_by_label(c: ConfigurationResult, labels: Sequence[str]) -> Section:
    return [_words("label"), *_ENDS], [[label, *_ends(c.summary(f"f1_by_label/{label}"))] for label in labels]


def _ends(s: Summary | None) -> list[str]:
    return list(map(_figure, [None] * 4 if s is None else [s.mean, s.std, s.minimum, s.maximum]))


def _as_markdown(result: EvaluationResult, session: Session) -> str:
    best = f"The best {session.top} of each system of each study by validation {session.by}"
    lines = [
        f"# Evaluation {result.name}",
        f"{best}, {procedure(result)}",
        _markdown(_on_test(result)),
        _markdown(_training(result)),
        "\n".join(f"- {line}" for line in (*result.notes, *caveats(result))),
    ]
    if floor := _floor(result):
        lines.append(f"Floor: {floor}.")
    lines += ["## Every figure", _markdown(_full(result))]
    for name, metric in METRICS.items():
        if comparisons := result.comparisons(name):
            lines += [f"## Test {metric.title}, paired by seed", _markdown(_differences(comparisons))]
    for c in result.configurations:
        lines += [f"## Test F1 by label: {c.title}, {_system(c)}", _markdown(_full_by_label(c, result.labels))]
    return "\n\n".join(line for line in lines if line) + "\n"


def _as_json(result: EvaluationResult, session: Session) -> dict[str, Any]:
    return {
        "name": result.name,
        "session": asdict(session),
        "labels": result.labels,
        "validation_floor": result.floor,
        "notes": [*result.notes, *caveats(result)],
        "configurations": [_configuration_json(c, result.labels) for c in result.configurations],
        "comparisons": [
            {"figure": name, "one": c.one, "other": c.other, **asdict(c.difference)}
            for name in METRICS
            for c in result.comparisons(name)
        ],
    }


def _configuration_json(c: ConfigurationResult, labels: Sequence[str]) -> dict[str, Any]:
    def summary(name: str, split: str = "test") -> dict[str, Any] | None:
        found = c.summary(name, split=split)
        return None if found is None else asdict(found)

    return {
        **asdict(c),
        "paper_name": c.paper_name,
        "params": c.params,
        "test_floor": c.test_floor,
        "test": {name: summary(name) for name in METRICS},
        "validation": {name: summary(name, "validation") for name in METRICS},
        "test_f1": {label: summary(f"f1_by_label/{label}") for label in labels},
        "seconds": asdict(_seconds(c)) if c.finished else None,
    }


def _seconds(c: ConfigurationResult) -> Summary:
    return Summary.of([seed.seconds for seed in c.finished])


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _spread(summary: Summary | None) -> str:
    return "-" if summary is None else f"{summary.mean:.3f} ± {_figure(summary.std)}"


def _interval(difference: Difference) -> str:
    if difference.low is None or difference.high is None:
        return "- (one seed)"
    return f"{difference.low:+.3f} to {difference.high:+.3f}"


_ONE_SEED = "one seed has no standard deviation and no interval: give more --seeds"

_INTERVAL = "95 % bootstrap interval of the mean difference over seeds; it does not cover the choice of test clips"


def caveats(result: EvaluationResult) -> list[str]:
    """Return the limits of the figures, a line each."""
    lines = [*_choices(result), *_rereadings(result), *_failures(result)]
    lines += [*unreadable_clips(result), *_changed_clips(result), *_unpaired(result), *_one_sided(result)]
    if any(len(c.finished) == 1 for c in result.configurations):
        lines.append(_ONE_SEED)
    return [*lines, *_coverage(result)]


def procedure(result: EvaluationResult) -> str:
    """Return the ends of two sentences: the seeds of the retrainings, and the readings of the test split."""
    counts = sorted({len(c.seeds) for c in result.configurations})
    seeds = (
        f"retrained with the same {_number(counts[0], 'seed')} each"
        if len(counts) == 1
        else (f"retrained with {counts[0]} to {counts[-1]} seeds each, the first of them the same for all")
    )
    has_reread = any(seed.reads > 1 for c in result.configurations for seed in c.seeds)
    often = "more than once for some runs (see the notes)" if has_reread else "once for each finished run"
    return f"{seeds}. The test split was read {often}, with the weights of the best epoch by validation."


def _choices(result: EvaluationResult) -> list[str]:
    return [
        f"{c.title}: chosen by the mean of {c.chosen_from} trials of this configuration"
        for c in result.configurations
        if c.chosen_from > 1
    ]


def _rereadings(result: EvaluationResult) -> list[str]:
    return [
        f"{c.title}, seed {seed.seed_index}: test was read {seed.reads} times, since a worker was lost, the run failed "
        "after a reading, or reading the features failed"
        for c in result.configurations
        for seed in c.seeds
        if seed.reads > 1
    ]


def _failures(result: EvaluationResult) -> list[str]:
    return [
        f"{c.title}, seed {seed.seed_index} failed: {seed.reason}"
        for c in result.configurations
        for seed in c.seeds
        if seed.state == "failed"
    ]


def unreadable_clips(result: EvaluationResult) -> list[str]:
    """Return the numbers of unreadable test clips: without them the test set is another."""
    titles: dict[tuple[int, int], list[str]] = {}
    for c in result.configurations:
        for test in (seed.test or {} for seed in c.finished):
            if n_skipped := test.get("n_left_out", 0):
                titles.setdefault((n_skipped, n_skipped + test["n_clips"]), []).append(c.title)
    return [
        f"{n} of {n_all} annotated test clips are unreadable and in no figure of {', '.join(dict.fromkeys(named))}"
        for (n, n_all), named in titles.items()
    ]


def _changed_clips(result: EvaluationResult) -> list[str]:
    return [
        f"{c.title}: its seeds were tested on different clips, so their mean is of no single test set"
        for c in result.configurations
        if not all(seed.has_same_test_clips(c.finished[0]) for seed in c.finished)
    ]


def _unpaired(result: EvaluationResult) -> list[str]:
    """Name the configurations that share seeds but not test clips."""
    lines = []
    for one, other in combinations(result.configurations, 2):
        left, right = ({seed.seed_index: seed for seed in c.finished} for c in (one, other))
        if unpaired := sorted((left.keys() & right.keys()) - {*paired_seeds(one, other)}):
            n, m = ((seeds[unpaired[0]].test or {})["n_clips"] for seeds in (left, right))
            why = "unreadable audio is left out for log-mel systems alone" if n != m else "the audio differs"
            lines.append(f"{one.title} and {other.title} are not paired: {n} and {m} other test clips, since {why}")
    return lines


def _one_sided(result: EvaluationResult) -> list[str]:
    found = {
        label for c in result.configurations for seed in c.finished for label in (seed.test or {}).get("one_sided", ())
    }
    if not found:
        return []
    return [
        f"{', '.join(label for label in result.labels if label in found)}: all annotated test clips have the same "
        "answer, so the means over labels leave them out"
    ]


def _coverage(result: EvaluationResult) -> list[str]:
    """Return how often intervals of so few seeds hold the true difference."""
    counts = sorted({c.difference.n for c in result.comparisons()} - {1})
    if not counts:
        return []
    shares = [f"{100 * COVERAGE[n]:.0f} % of cases with {n} seeds" for n in counts if n in COVERAGE]
    if not shares:
        return [_INTERVAL]
    return [f"{_INTERVAL}; with few seeds it is too narrow, and holds the true difference in {', '.join(shares)}"]


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def heldout_usage(
    before: RunList | None,
    finished: Collection[int],
    chosen: Sequence[Candidate],
    *,
    sources: Mapping[str, StudySpec],
    seeds: int,
    place: StudyPlace,
) -> tuple[str, ...]:
    """Return a line for each configuration with known test figures, from here or from another evaluation beside it.

    `before` are the runs when this session began, `finished` the numbers of those that had finished. `sources` are the
    studies of the chosen. A configuration of another study counts as the same if it trains on the same settings.
    """
    lines = []
    elsewhere = dict(evaluations_beside(place))
    by_name = {**({place.home.name: before} if before else {}), **elsewhere}
    for candidate in chosen:
        if before is not None and (line := _usage_here(before, finished, candidate, seeds=seeds)):
            lines.append(line)
        for name, other in elsewhere.items():
            if session := _last_session(other, candidate.key):
                lines.append(f"{candidate.title}: evaluation {name} has it too, {_when(session)}")
        lines += _in_other_studies(by_name, candidate, chosen, sources=sources)
    return (*lines, *_other_configurations(list(by_name.values()), chosen))


def _in_other_studies(
    evaluations: Mapping[str, RunList],
    candidate: Candidate,
    chosen: Sequence[Candidate],
    *,
    sources: Mapping[str, StudySpec],
) -> list[str]:
    """Name the evaluations that hold the same configuration under a study that is not chosen."""
    lines = []
    for name, evaluation in evaluations.items():
        same = {s for s, spec in evaluation.sources.items() if _learn_the_same(spec, sources[candidate.study])}
        others = {(study, candidate.digest) for study in same} - {c.key for c in chosen}
        lines += [
            f"{candidate.title}: evaluation {name} has the same as {earlier}"
            for earlier in _sessions_of(evaluation, others)
        ]
    return lines


def _sessions_of(evaluation: RunList, keys: Collection[Key]) -> list[str]:
    """Return trial, time and seeds of those of these configurations that an evaluation holds."""
    found = []
    for key in sorted(keys):
        if session := _last_session(evaluation, key):
            trial = next((f" trial {run.trial}" for run in evaluation.runs if run.key == key), "")
            found.append(f"{key[0]}{trial}, {_when(session)}")
    return found


def _learn_the_same(one: StudySpec, other: StudySpec) -> bool:
    """Return whether a configuration learns the same in both studies."""
    return not differing(one, other, "shapes_learning")


def _last_session(evaluation: RunList, key: Key) -> Session | None:
    """Return the last session that asked for a configuration."""
    return next((session for session in reversed(evaluation.sessions) if key in session.configurations), None)


def _usage_here(before: RunList, finished: Collection[int], candidate: Candidate, *, seeds: int) -> str:
    sessions = [session for session in before.sessions if candidate.key in session.configurations]
    if not sessions:
        return ""
    n_read = len({before.runs[n].seed_index for n in before.numbers_of(candidate.key) if n in finished})
    last = sessions[-1]
    line = f"{candidate.title}: evaluated before on {_clock(last.began)} with {_number(last.seeds, 'seed')}"
    if n_read >= seeds:
        return f"{line}; all {n_read} are finished: the table repeats them, test was not read again"
    if n_read < last.seeds:
        line += f", of which {n_read} finished"
    return f"{line}; {seeds - n_read} more now"


def _other_configurations(evaluations: Sequence[RunList], chosen: Sequence[Candidate]) -> list[str]:
    """Warn of each study of which more configurations have known test figures than the chosen ones."""
    lines = []
    for study in dict.fromkeys(candidate.study for candidate in chosen):
        now: set[Key] = {candidate.key for candidate in chosen if candidate.study == study}
        earlier = {run.key for evaluation in evaluations for run in evaluation.runs if run.study == study}
        if earlier - now:
            lines.append(
                f"warning: with this evaluation, test figures are known for {len(earlier | now)} configurations of "
                f"study {study}, {len(now)} of them in this table; choosing among them by these is selection on test"
            )
    return lines


def _when(session: Session) -> str:
    return f"of {_clock(session.began)}, with {_number(session.seeds, 'seed')}"


def _clock(iso: str) -> str:
    """Return a time in this machine's time zone, to the minute."""
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M")
