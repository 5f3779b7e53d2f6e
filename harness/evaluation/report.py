"""What an evaluation shows: tables for the terminal, evaluation.json with every figure, evaluation.md to read."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from harness.console import StudyConsole
from harness.evaluation.remarks import procedure, remarks
from harness.evaluation.result import FIGURES, Comparison, ConfigurationResult, EvaluationResult
from harness.evaluation.runs import Session
from harness.evaluation.statistics import Difference, Summary, summarise
from harness.markdown import markdown_table
from harness.paths import write_whole

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
        spreads = [_spread(c.summary(name)) for name in ("positive_f1", "map")]
        n_seeds = f"{len(c.finished)}/{len(c.seeds)}"
        rows.append([_system(c), c.title, n_seeds, _spread(macro), *map(_figure, ends), *spreads])
    return ["system", "configuration", "seeds", "macro-F1", "min", "max", "positive F1", "mAP"], rows


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
        for name, words in FIGURES.items():
            for split in ("test", "validation"):
                s = c.summary(name, split=split)
                cells = [None] * 4 if s is None else [s.mean, s.std, s.minimum, s.maximum]
                rows.append([f"{c.title} {_system(c)}", f"{split} {words}", str(s.n if s else 0), *map(_figure, cells)])
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
    for name, words in FIGURES.items():
        if comparisons := result.comparisons(name):
            table = markdown_table(*_differences(comparisons), n_words=2)
            lines += [f"## Test {words}, paired by seed", "", table, ""]
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
            for name in FIGURES
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
        "test": {name: summary(name) for name in FIGURES},
        "validation": {name: summary(name, "validation") for name in FIGURES},
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
