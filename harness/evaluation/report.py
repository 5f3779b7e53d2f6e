"""Report an evaluation: tables for the terminal, evaluation.md to read, evaluation.json with every figure."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from harness.common.files import write_whole
from harness.common.tables import Column, fitted_table
from harness.common.text import markdown_table
from harness.evaluation.caveats import caveats, plural
from harness.evaluation.plan import Session
from harness.evaluation.result import Comparison, ConfigurationResult, EvaluationResult
from harness.evaluation.statistics import Summary
from harness.study.console import StudyConsole
from harness.training.metrics import METRICS, OF_RECORD

_MAX_COLUMNS = 6

_WHICH = [Column("system", is_number=False), Column("configuration", is_number=False)]

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
    lines = {"note": caveats(result), "floor": _floor(result), "report": result.reports, "MLflow": result.tracking}
    for name, texts in lines.items():
        for text in texts:
            console.say(f"{name:10}{text}")


def _floor(result: EvaluationResult) -> list[str]:
    """Return the macro-F1 of always guessing on both splits, as far as it is known."""
    known = []
    if floors := result.test_floors:
        known.append(f"{' to '.join(map(_figure, floors))} on test")
    if result.floor is not None:
        known.append(f"{_figure(result.floor)} on validation")
    by = "by always guessing each label's more frequent answer in training"
    return [f"macro-F1 {', '.join(known)} {by}"] if known else []


def _on_test(result: EvaluationResult) -> Section:
    others = [name for name in METRICS if name != OF_RECORD]
    rows = []
    for c in result.configurations:
        macro = c.summary(OF_RECORD)
        ends = [None, None] if macro is None else [macro.minimum, macro.maximum]
        spreads = [_spread(c.summary(name)) for name in others]
        rows.append([_system(c), c.title, f"{len(c.finished)}/{len(c.seeds)}", _spread(macro)])
        rows[-1] += [*map(_figure, ends), *spreads]
    record = [Column("seeds"), Column(METRICS[OF_RECORD].title), Column("min", drop=100), Column("max", drop=99)]
    further = [Column(METRICS[name].title, drop=number) for number, name in enumerate(others, 1)]
    return [*_WHICH, *record, *further], rows


def _training(result: EvaluationResult) -> Section:
    rows = [
        [
            _system(c),
            c.title,
            _spread(c.summary(OF_RECORD, split="validation")),
            "-" if c.params is None else f"{c.params:,}",
            "-" if c.seconds is None else f"{c.seconds.mean:.1f}",
        ]
        for c in result.configurations
    ]
    return [*_WHICH, Column("validation macro-F1"), Column("trained parameters"), Column("seconds a run", drop=1)], rows


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
    columns = [Column(heading, drop=number) for number, heading in enumerate(headings)]
    return [Column("label", is_number=False), *columns], rows


def _differences(comparisons: Iterable[Comparison]) -> Section:
    rows = []
    for c in comparisons:
        found = c.difference
        no_interval = found.low is None or found.high is None
        interval = "- (one seed)" if no_interval else f"{found.low:+.3f} to {found.high:+.3f}"
        rows.append([c.one, c.other, str(found.n), f"{found.mean:+.3f}", interval])
    words = [Column("one", is_number=False), Column("other", is_number=False)]
    return [*words, Column("seeds"), Column("one - other"), Column("95 % interval")], rows


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
    return [Column("configuration", is_number=False), Column("figure", is_number=False), Column("seeds"), *_ENDS], rows


def _full_by_label(c: ConfigurationResult, labels: Sequence[str]) -> Section:
    rows = [[label, *_ends(c.summary(f"f1_by_label/{label}"))] for label in labels]
    return [Column("label", is_number=False), *_ENDS], rows


def _ends(s: Summary | None) -> list[str]:
    return list(map(_figure, [None] * 4 if s is None else [s.mean, s.std, s.minimum, s.maximum]))


def _as_markdown(result: EvaluationResult, session: Session) -> str:
    best = f"The best {session.top} of each system of each study by validation {session.by}"
    lines = [
        f"# Evaluation {result.name}",
        f"{best}, {_procedure(result)}",
        _markdown(_on_test(result)),
        _markdown(_training(result)),
        "\n".join(f"- {line}" for line in (*result.notes, *caveats(result))),
        *(f"Floor: {floor}." for floor in _floor(result)),
        "## Every figure",
        _markdown(_full(result)),
    ]
    for name, metric in METRICS.items():
        if comparisons := result.comparisons(name):
            lines += [f"## Test {metric.title}, paired by seed", _markdown(_differences(comparisons))]
    for c in result.configurations:
        lines += [f"## Test F1 by label: {c.title}, {_system(c)}", _markdown(_full_by_label(c, result.labels))]
    return "\n\n".join(line for line in lines if line) + "\n"


def _procedure(result: EvaluationResult) -> str:
    """Return the ends of two sentences: the seeds of the retrainings, and the readings of the test split."""
    counts = sorted({len(c.seeds) for c in result.configurations})
    seeds = f"retrained with the same {plural(counts[0], 'seed')} each"
    if len(counts) > 1:
        seeds = f"retrained with {counts[0]} to {counts[-1]} seeds each, the first of them the same for all"
    has_reread = any(seed.reads > 1 for c in result.configurations for seed in c.seeds)
    often = "more than once for some runs (see the notes)" if has_reread else "once for each finished run"
    return f"{seeds}. The test split was read {often}, with the weights of the best epoch by validation."


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
        "seconds": None if c.seconds is None else asdict(c.seconds),
    }


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _spread(summary: Summary | None) -> str:
    return "-" if summary is None else summary.describe()
