"""What an evaluation shows: tables for the terminal, evaluation.json with every figure, evaluation.md to read."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.table import Table

from harness.common.files import write_whole
from harness.common.text import markdown_table
from harness.config.study import StudyPlace, StudySpec, differing
from harness.evaluation.plan import Key, RunList, Session, evaluations_beside
from harness.evaluation.result import Comparison, ConfigurationResult, EvaluationResult, paired_seeds
from harness.evaluation.selection import Candidate
from harness.evaluation.statistics import COVERAGE, Difference, Summary, summarise
from harness.study.console import StudyConsole
from harness.training.metrics import METRICS, OF_RECORD

_MAX_COLUMNS = 6


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


def tables(result: EvaluationResult) -> list[Table]:
    """Return what is printed: the configurations, their F1 by label, the differences of their macro-F1."""
    shown = [
        _table(f"Evaluation {result.name}: figures on the test split, mean ± std over seeds", *_on_test(result)),
        _table("Training", *_training(result)),
    ]
    if len(result.configurations) <= _MAX_COLUMNS:
        shown.append(_table("F1 by label on the test split", *_by_label(result)))
    if comparisons := result.comparisons():
        if len(result.configurations) > _MAX_COLUMNS:
            comparisons = [c for c in comparisons if c.one == result.configurations[0].title]
        shown.append(_table("Test macro-F1, paired by seed", *_differences(comparisons)))
    return shown


def conclude(result: EvaluationResult, console: StudyConsole) -> None:
    """Print the tables, what is to be known of them, and where everything is."""
    console.say()
    for table in tables(result):
        console.console.print(table, soft_wrap=False)
    for line in remarks(result):
        console.say(f"note      {line}")
    if floor := _floor(result):
        console.say(f"floor     {floor}")
    for file in result.reports:
        console.say(f"report    {file}")
    for line in result.tracking:
        console.say(f"MLflow    {line}")


def _floor(result: EvaluationResult) -> str:
    """Say what always guessing comes to, as far as that is known."""
    known = []
    if floors := result.test_floors:
        known.append(f"{' to '.join(map(_figure, floors))} on test")
    if result.floor is not None:
        known.append(f"{_figure(result.floor)} on validation")
    by = "by always guessing each label's more frequent answer in training"
    return f"macro-F1 {', '.join(known)} {by}" if known else ""


def _on_test(result: EvaluationResult) -> tuple[list[str], list[list[str]]]:
    rows = []
    for c in result.configurations:
        macro = c.summary("macro_f1")
        ends = [None, None] if macro is None else [macro.minimum, macro.maximum]
        spreads = [_spread(c.summary(name)) for name in METRICS if name != OF_RECORD]
        n_seeds = f"{len(c.finished)}/{len(c.seeds)}"
        rows.append([_system(c), c.title, n_seeds, _spread(macro), *map(_figure, ends), *spreads])
    others = [metric.title for name, metric in METRICS.items() if name != OF_RECORD]
    return ["system", "configuration", "seeds", METRICS[OF_RECORD].title, "min", "max", *others], rows


def _training(result: EvaluationResult) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            _system(c),
            c.title,
            _spread(c.summary("macro_f1", split="validation")),
            "-" if c.params is None else f"{c.params:,}",
            f"{_seconds(c).mean:.1f}" if c.finished else "-",
        ]
        for c in result.configurations
    ]
    return ["system", "configuration", "validation macro-F1", "trained parameters", "seconds a run"], rows


def _system(c: ConfigurationResult) -> str:
    """Return the system's name, and the paper's."""
    return c.system if c.paper_name == "-" else f"{c.system} ({c.paper_name})"


def _by_label(result: EvaluationResult) -> tuple[list[str], list[list[str]]]:
    rows = [
        [label, *(_spread(c.summary(f"f1_by_label/{label}")) for c in result.configurations)] for label in result.labels
    ]
    headings = [f"{c.system}\n{c.paper_name}" for c in result.configurations]
    if len(set(headings)) < len(headings):
        headings = [f"{heading}\n{c.title}" for heading, c in zip(headings, result.configurations, strict=True)]
    return ["label", *headings], rows


def _differences(comparisons: Iterable[Comparison]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [c.one, c.other, str(c.difference.n), f"{c.difference.mean:+.3f}", _interval(c.difference)] for c in comparisons
    ]
    return ["one", "other", "seeds", "one - other", "95 % interval"], rows


def _full(result: EvaluationResult) -> tuple[list[str], list[list[str]]]:
    """Return mean, standard deviation, min and max of every figure that is not of one label."""
    rows = []
    for c in result.configurations:
        for name, metric in METRICS.items():
            for split in ("test", "validation"):
                s = c.summary(name, split=split)
                cells = [None] * 4 if s is None else [s.mean, s.std, s.minimum, s.maximum]
                rows.append(
                    [f"{c.title} {_system(c)}", f"{split} {metric.title}", str(s.n if s else 0), *map(_figure, cells)]
                )
    return ["configuration", "figure", "seeds", "mean", "std", "min", "max"], rows


def _full_by_label(c: ConfigurationResult, labels: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for label in labels:
        s = c.summary(f"f1_by_label/{label}")
        rows.append([label, *map(_figure, [None] * 4 if s is None else [s.mean, s.std, s.minimum, s.maximum])])
    return ["label", "mean", "std", "min", "max"], rows


def _as_markdown(result: EvaluationResult, session: Session) -> str:
    lines = [
        f"# Evaluation {result.name}",
        "",
        f"The best {session.top} of each system of each study by validation {session.by}, {procedure(result)}",
        "",
        markdown_table(*_on_test(result), n_words=2),
        "",
        markdown_table(*_training(result), n_words=2),
        "",
        *(f"- {line}" for line in (*result.notes, *remarks(result))),
        "",
    ]
    if floor := _floor(result):
        lines += [f"Floor: {floor}.", ""]
    lines += ["## Every figure", "", markdown_table(*_full(result), n_words=2), ""]
    for name, metric in METRICS.items():
        if comparisons := result.comparisons(name):
            table = markdown_table(*_differences(comparisons), n_words=2)
            lines += [f"## Test {metric.title}, paired by seed", "", table, ""]
    for c in result.configurations:
        table = markdown_table(*_full_by_label(c, result.labels), n_words=1)
        lines += [f"## Test F1 by label: {c.title}, {_system(c)}", "", table, ""]
    return "\n".join(lines)


def _as_json(result: EvaluationResult, session: Session) -> dict[str, Any]:
    return {
        "name": result.name,
        "session": asdict(session),
        "labels": result.labels,
        "validation_floor": result.floor,
        "notes": [*result.notes, *remarks(result)],
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
    return summarise([seed.seconds for seed in c.finished])


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in header:
        table.add_column(name, no_wrap="\n" not in name and name not in ("configuration", "one", "other"))
    for row in rows:
        table.add_row(*row)
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _spread(summary: Summary | None) -> str:
    return "-" if summary is None else f"{summary.mean:.3f} ± {_figure(summary.std)}"


def _interval(difference: Difference) -> str:
    if difference.low is None or difference.high is None:
        return "- (one seed)"
    return f"{difference.low:+.3f} to {difference.high:+.3f}"


_ONE_SEED = "one seed has no standard deviation, and no interval: give more --seeds"

_INTERVAL = "95 % bootstrap interval of the mean difference over seeds; it says nothing of other test clips"


def remarks(result: EvaluationResult) -> list[str]:
    """Return what is to be known of the figures."""
    lines = [*_choices(result), *_readings(result), *_failures(result)]
    lines += [*left_out(result), *_changed_clips(result), *_other_clips(result), *_one_sided(result)]
    counts = {len(c.finished) for c in result.configurations}
    if 1 in counts:
        lines.append(_ONE_SEED)
    return [*lines, *_intervals(result)]


def procedure(result: EvaluationResult) -> str:
    """Say with how many seeds there was retraining, and how often the test split was read, in two sentences' ends."""
    counts = sorted({len(c.seeds) for c in result.configurations})
    seeds = (
        f"retrained with the same {_number(counts[0], 'seed')} each"
        if len(counts) == 1
        else (f"retrained with {counts[0]} to {counts[-1]} seeds each, the first of them the same for all")
    )
    has_reread = any(seed.reads > 1 for c in result.configurations for seed in c.seeds)
    often = "more than once for some runs, as the notes say" if has_reread else "once for each finished run"
    return f"{seeds}. The test split was read {often}, with the weights of the best epoch by validation."


def _choices(result: EvaluationResult) -> list[str]:
    return [
        f"{c.title}: chosen by the mean of {c.chosen_from} trials of this configuration"
        for c in result.configurations
        if c.chosen_from > 1
    ]


def _readings(result: EvaluationResult) -> list[str]:
    return [
        f"{c.title}, seed {seed.seed_index}: test was read {seed.reads} times, since a worker was lost, the run "
        "failed after a reading, or the features could not be read to their end"
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


def left_out(result: EvaluationResult) -> list[str]:
    """Say how many test clips are in no figure, since they cannot be read: the test set is then another."""
    titles: dict[tuple[int, int], list[str]] = {}
    for c in result.configurations:
        for test in (seed.test or {} for seed in c.finished):
            if n_left_out := test.get("n_left_out", 0):
                titles.setdefault((n_left_out, n_left_out + test["n_clips"]), []).append(c.title)
    return [
        f"{n} of {n_all} annotated test clips cannot be read and are in no figure of {', '.join(dict.fromkeys(named))}"
        for (n, n_all), named in titles.items()
    ]


def _changed_clips(result: EvaluationResult) -> list[str]:
    """Name the configurations whose own seeds do not share the clips."""
    return [
        f"{c.title}: its seeds were not all tested on the same clips, so that their mean is of no one test set"
        for c in result.configurations
        if not all(seed.has_same_test_clips(c.finished[0]) for seed in c.finished)
    ]


def _other_clips(result: EvaluationResult) -> list[str]:
    """Name the configurations that share seeds and not the clips."""
    lines = []
    for one, other in combinations(result.configurations, 2):
        left, right = ({seed.seed_index: seed for seed in c.finished} for c in (one, other))
        if unpaired := sorted((left.keys() & right.keys()) - {*paired_seeds(one, other)}):
            n, m = ((seeds[unpaired[0]].test or {})["n_clips"] for seeds in (left, right))
            why = (
                "since unreadable audio is left out for systems that hear log-mel, and only for them"
                if n != m
                else "since they do not sound the same"
            )
            lines.append(f"{one.title} and {other.title} are not paired: {n} and {m} test clips, not the same, {why}")
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


def _intervals(result: EvaluationResult) -> list[str]:
    """Say what the intervals are of, and how often intervals of so few seeds hold the true difference."""
    counts = sorted({c.difference.n for c in result.comparisons()} - {1})
    if not counts:
        return []
    told = [f"{100 * COVERAGE[n]:.0f} % of cases with {n} seeds" for n in counts if n in COVERAGE]
    narrow = f"; with few seeds it is too narrow, and holds the true difference in {', '.join(told)}" if told else ""
    return [_INTERVAL + narrow]


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def notes_on(
    before: RunList | None,
    finished: Collection[int],
    chosen: Sequence[Candidate],
    *,
    sources: Mapping[str, StudySpec],
    seeds: int,
    place: StudyPlace,
) -> tuple[str, ...]:
    """Return a line for each configuration that was evaluated before, here or in another evaluation beside it.

    `before` and `finished` are the runs and the numbers of those that had finished when this session began. `sources`
    are the studies of the chosen. Another study's configuration counts as the same where it learns the same.
    """
    lines = []
    elsewhere = dict(evaluations_beside(place))
    by_name = {**({place.home.name: before} if before else {}), **elsewhere}
    for candidate in chosen:
        if before is not None and (line := _here(before, finished, candidate, seeds=seeds)):
            lines.append(line)
        for name, other in elsewhere.items():
            if session := _last_session(other, candidate.key):
                lines.append(f"{candidate.title}: evaluation {name} has it too, {_when(session)}")
        lines += _under_other_studies(by_name, candidate, chosen, sources=sources)
    return (*lines, *_other_configurations(list(by_name.values()), chosen))


def _under_other_studies(
    evaluations: Mapping[str, RunList],
    candidate: Candidate,
    chosen: Sequence[Candidate],
    *,
    sources: Mapping[str, StudySpec],
) -> list[str]:
    """Say which evaluations, by name, had what is the same configuration under another study, if that is not chosen."""
    lines = []
    for name, evaluation in evaluations.items():
        same = {s for s, spec in evaluation.sources.items() if _learn_the_same(spec, sources[candidate.study])}
        others = {(study, candidate.digest) for study in same} - {c.key for c in chosen}
        lines += [
            f"{candidate.title}: evaluation {name} has the same as {told}" for told in _asked_for(evaluation, others)
        ]
    return lines


def _asked_for(evaluation: RunList, keys: Collection[Key]) -> list[str]:
    """Say as what trial, when and with how many seeds an evaluation had these configurations, those that it had."""
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


def _here(before: RunList, finished: Collection[int], candidate: Candidate, *, seeds: int) -> str:
    sessions = [session for session in before.sessions if candidate.key in session.configurations]
    if not sessions:
        return ""
    n_read = len({before.runs[n].seed_index for n in before.numbers_of(candidate.key) if n in finished})
    said = f"{candidate.title}: evaluated before on {_clock(sessions[-1].began)} with {_seeds(sessions[-1].seeds)}"
    if n_read >= seeds:
        return f"{said}; all {n_read} were read before: the table repeats them, test was not read again"
    if n_read < sessions[-1].seeds:
        said += f", of which {n_read} finished"
    return f"{said}; {seeds - n_read} more now"


def _other_configurations(evaluations: Sequence[RunList], chosen: Sequence[Candidate]) -> list[str]:
    """Warn of each study whose test figures are known for more configurations than the chosen ones."""
    lines = []
    for study in dict.fromkeys(candidate.study for candidate in chosen):
        now: set[Key] = {candidate.key for candidate in chosen if candidate.study == study}
        earlier = {run.key for evaluation in evaluations for run in evaluation.runs if run.study == study}
        if earlier - now:
            lines.append(
                f"warning: with this evaluation, test has been looked at for {len(earlier | now)} configurations of "
                f"study {study}, {len(now)} of them in this table; choosing among them by test would be selection on "
                "test"
            )
    return lines


def _when(session: Session) -> str:
    return f"of {_clock(session.began)}, with {_seeds(session.seeds)}"


def _clock(iso: str) -> str:
    """Return a time as this machine's clock shows it, to the minute."""
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M")


def _seeds(number: int) -> str:
    return f"{number} seed{'' if number == 1 else 's'}"
