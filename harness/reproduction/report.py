"""The paper's tables and figures with the results measured here: one Markdown file and its pictures.

Conventions: F1 are fractions, as measured, and so are the paper's beside them.

Source: Chen and Lerch, "Music Instrument Classification Reprogrammed", MMM 2023: Table 1, Figs. 3 to 5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from harness.common.text import markdown_table
from harness.config.literature import F1_BY_LABEL, F1_CORRELATION_WITH_POSITIVES, PAPER_BACKBONE, SYSTEMS
from harness.config.space import configuration_of
from harness.evaluation.result import ConfigurationResult, EvaluationResult
from harness.evaluation.statistics import Difference, Summary
from harness.reproduction.spec import Reproduction
from harness.study.results import describe_configuration
from harness.training.metrics import METRICS, OF_RECORD
from search_spaces import load
from tracking import paper_figures
from tracking.figures import SUFFIXES, words

REPORT = "report.md"


_MISSING = "-"


@dataclass(frozen=True)
class SystemResult:
    """The results of a system on the test split.

    `name` is the system's search space. `params` counts trainable parameters, None for trees. `figures` holds each
    metric for all finished seeds. `f1_by_label` is the mean over seeds, `seconds` the mean time of a run.
    `configuration` describes the chosen one in words. `count_note` explains a difference from the paper's count, if the
    paper's configuration was chosen.
    """

    name: str
    params: int | None = None
    figures: Mapping[str, Sequence[float]] = field(default_factory=dict)
    f1_by_label: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    configuration: str = _MISSING
    count_note: str = ""

    @property
    def macro_f1(self) -> Sequence[float]:
        """Return the macro-F1 of each finished seed."""
        return self.figures.get(OF_RECORD, ())

    @property
    def title(self) -> str:
        """Return the system's name with the paper's."""
        return f"{self.name} ({SYSTEMS[self.name].paper_name})"


@dataclass(frozen=True)
class DataDescription:
    """The data behind the results. Counts are positive and negative annotations by label.

    `floor` is the macro-F1 of always giving a label's more frequent answer, on the test split; `ceiling` that of the
    linear head trained with all labels revealed. The report shows the paper's F1 only if `is_openmic`.
    """

    name: str
    is_openmic: bool
    floor: float
    train_counts: Mapping[str, tuple[int, int]]
    test_counts: Mapping[str, tuple[int, int]] | None = None
    ceiling: float | None = None
    floor_by_label: Mapping[str, float] | None = None


def write_paper_report(
    folder: Path,
    results: Sequence[SystemResult],
    *,
    data: DataDescription,
    conditions: str = "",
    comparisons: str = "",
    notes: Sequence[str] = (),
    suffixes: Sequence[str] = SUFFIXES,
) -> list[Path]:
    """Write the report and its figures, systems in the order given, and return the files, the report first.

    `conditions` describes the making of the results, `comparisons` is Markdown about differences between systems, and
    `notes` are the caveats.
    """
    figures = _draw(folder, results, data=data, suffixes=suffixes)
    sections = [
        f"# The paper's systems on {data.name}",
        f"## Table 1: parameters and macro-F1\n\n{systems_table(results, data)}\n\n{_legend(results, data)}",
        f"## Fig. 5: F1 by label\n\n{label_table(results, data)}",
        f"## Positive clips and F1\n\n{correlation_table(results, data)}",
    ]
    if conditions:
        sections.insert(1, conditions)
    if comparisons:
        sections.append(f"## Differences between systems\n\n{comparisons.strip()}")
    if notes:
        sections.append("## Notes\n\n" + "\n".join(f"- {note}" for note in notes))
    pictures = [f"![{words(path.stem)}]({path.name})" for path in figures if path.suffix == suffixes[0]]
    sections.append("## Figures\n\n" + "\n\n".join(pictures))
    report = folder / REPORT
    report.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return [report, *figures]


def systems_table(results: Sequence[SystemResult], data: DataDescription) -> str:
    """Return the paper's Table 1 with the results measured here, as Markdown."""
    others = [name for name in METRICS if name != OF_RECORD]
    headings = ["system", "in the paper", "configuration", "trainable parameters", "the paper's (M)"]
    headings += [METRICS[OF_RECORD].title, "min to max", "seeds", *(METRICS[name].title for name in others)]
    headings += ["the paper's median", "seconds"] if data.is_openmic else ["seconds"]
    rows = []
    for result in results:
        published = SYSTEMS[result.name]
        cells = [result.name, published.paper_name, result.configuration, _formatted(result.params, "{:,}")]
        f1 = result.macro_f1
        cells += [_formatted(published.params_millions, "{:.3f}"), _spread(f1)]
        cells += [f"{min(f1):.3f} to {max(f1):.3f}" if f1 else _MISSING, str(len(f1))]
        cells += [_spread(result.figures.get(name, ())) for name in others]
        cells += [f"{published.macro_f1 / 100:.3f}"] if data.is_openmic else []
        rows.append([*cells, _formatted(result.seconds, "{:,.0f}")])
    return markdown_table(headings, rows, n_words=3)


def label_table(results: Sequence[SystemResult], data: DataDescription) -> str:
    """Return the mean F1 of each label with each system as Markdown, the paper's in brackets where it has them."""
    scored = _scored(results)

    def cell(result: SystemResult, label: str) -> str:
        published = F1_BY_LABEL.get(result.name, {}).get(label) if data.is_openmic else None
        return f"{result.f1_by_label[label]:.3f}" + ("" if published is None else f" ({published / 100:.3f})")

    rows = [
        [words(label), str(positive), *(cell(result, label) for result in scored)]
        for label, (positive, _) in data.train_counts.items()
    ]
    means = [f"{np.mean(list(result.f1_by_label.values())):.3f}" for result in scored]
    headings = ["label", "positive training clips", *(result.title for result in scored)]
    return markdown_table(headings, [*rows, ["mean", "", *means]], n_words=1)


def correlation_table(results: Sequence[SystemResult], data: DataDescription) -> str:
    """Return the correlation of a label's positive training clips with its F1, for each system, as Markdown."""
    scored = _scored(results)
    published = f"The paper reports {F1_CORRELATION_WITH_POSITIVES} for {SYSTEMS['none'].paper_name} on OpenMIC-2018."
    if _is_even(data):
        return (
            f"Here every label has as many positive training clips as any other: there is no correlation. {published}"
        )
    rows = [[result.title, _formatted(correlation_with_positives(result, data), "{:.2f}")] for result in scored]
    return f"{markdown_table(['system', 'r'], rows, n_words=1)}\n\n{published}"


def correlation_with_positives(result: SystemResult, data: DataDescription) -> float | None:
    """Return Pearson's r between the labels' positive training clips and their F1; None where either is constant."""
    positives = [float(data.train_counts[label][0]) for label in result.f1_by_label]
    f1 = list(result.f1_by_label.values())
    if np.ptp(positives) == 0 or np.ptp(f1) == 0:
        return None
    return float(np.corrcoef(positives, f1)[0, 1])


def _draw(
    folder: Path, results: Sequence[SystemResult], *, data: DataDescription, suffixes: Sequence[str]
) -> list[Path]:
    """Draw the figures; without a finished run only that of the labels."""
    files = paper_figures.label_distribution(
        folder / "fig3_labels", data.train_counts, test=data.test_counts, title=data.name, suffixes=suffixes
    )
    scored = _scored(results)
    if not scored:
        return files
    published = {result.title: SYSTEMS[result.name].macro_f1 / 100 for result in results}
    files += paper_figures.macro_f1_box_plot(
        folder / "fig4_macro_f1",
        {result.title: result.macro_f1 for result in results},
        published=published if data.is_openmic else None,
        floor=data.floor,
        ceiling=data.ceiling,
        title=f"Macro-F1 on {data.name}",
        suffixes=suffixes,
    )
    files += paper_figures.macro_f1_against_params(
        folder / "macro_f1_against_params",
        {result.name: result.macro_f1 for result in results},
        params={result.name: result.params for result in results},
        floor=data.floor,
        title=f"Macro-F1 against size on {data.name}",
        suffixes=suffixes,
    )
    files += paper_figures.f1_by_label_and_system(
        folder / "fig5_f1_by_label",
        {result.title: result.f1_by_label for result in scored},
        floor=data.floor_by_label,
        title=f"F1 by label on {data.name}",
        suffixes=suffixes,
    )
    if _is_even(data):
        return files
    shown = next((result for result in scored if result.name == "none"), scored[0])
    correlation = correlation_with_positives(shown, data)
    return files + paper_figures.positives_against_f1(
        folder / "positives_against_f1",
        {label: positive for label, (positive, _) in data.train_counts.items()},
        f1=shown.f1_by_label,
        correlation=float("nan") if correlation is None else correlation,
        title=f"{shown.title} on {data.name}",
        suffixes=suffixes,
    )


def _is_even(data: DataDescription) -> bool:
    return len({positive for positive, _ in data.train_counts.values()}) == 1


def _scored(results: Sequence[SystemResult]) -> list[SystemResult]:
    return [result for result in results if result.f1_by_label]


def _legend(results: Sequence[SystemResult], data: DataDescription) -> str:
    """Return the legend of the first table."""
    lines = [
        "Macro-F1: both classes' F1, averaged over labels; mean ± standard deviation over seeds, test split.",
        f"Always giving a label's more frequent answer has {data.floor:.3f}.",
    ]
    if data.ceiling is not None:
        lines.append(f"The linear head, trained with all labels revealed, has {data.ceiling:.3f}.")
    lines += [
        "Trainable parameters are those of the configuration in the table, on this backbone.",
        "`python -m harness.params` counts the paper's own configurations and explains differences.",
    ]
    lines += [f"{result.title}: {result.count_note}." for result in results if result.count_note]
    return " ".join(lines)


def _spread(values: Sequence[float]) -> str:
    return Summary.of(values).describe() if values else _MISSING


def _formatted(value: float | None, form: str) -> str:
    return _MISSING if value is None else form.format(value)


def system_result(reproduction: Reproduction, name: str, found: ConfigurationResult | None) -> SystemResult:
    """Return the row of a system; None if no trial of its study has finished."""
    if found is None:
        return SystemResult(name)
    labels = found.finished[0].test["f1_by_label"] if found.finished else {}  # type: ignore[index]
    f1_by_label = {label: found.summary(f"f1_by_label/{label}") for label in labels}
    space = load(name, reproduction.spec(name).preset)
    is_papers = found.digest in {configuration_of(space, paper).digest() for paper in space.paper}
    return SystemResult(
        name=name,
        params=found.params or None,
        figures={metric: list(found.values(metric).values()) for metric in METRICS},
        f1_by_label={label: summary.mean for label, summary in f1_by_label.items() if summary},
        seconds=found.seconds.mean if found.seconds else None,
        configuration=describe_configuration(found.paths) + (" (the paper's)" if is_papers else ""),
        count_note=_count_note(name, found.params, backbone=reproduction.backbone) if is_papers else "",
    )


def differences(reproduction: Reproduction, result: EvaluationResult) -> str:
    """Return the differences of macro-F1 between systems as a Markdown list, those to the linear head first.

    The list gives a reason for systems that share no seed with the same test clips. "" for a single system.
    """
    compared = {(comparison.one, comparison.other): comparison for comparison in result.comparisons()}
    pairs = sorted(combinations(result.configurations, 2), key=lambda pair: "none" not in {c.system for c in pair})
    lines = []
    for one, other in pairs:
        found = compared.get((one.title, other.title))
        difference = _difference(found.difference) if found else f"not paired, since {_why_apart(one, other)}"
        lines.append(f"- {reproduction.part_of(one.study)} over {reproduction.part_of(other.study)}: {difference}")
    if not lines:
        return ""
    legend = "Mean difference of test macro-F1 over seeds, paired by seed, with its bootstrap interval."
    return "\n".join([legend, "", *lines])


def _difference(found: Difference) -> str:
    interval = "" if found.low is None else f", 95 % interval {found.low:+.3f} to {found.high:+.3f}"
    return f"{found.mean:+.3f}{interval}"


def _why_apart(one: ConfigurationResult, other: ConfigurationResult) -> str:
    """Return why two configurations have no seed to compare."""
    without = [c.title for c in (one, other) if not c.finished]
    if without:
        return "neither has a finished run" if len(without) == 2 else f"{without[0]} has no finished run"
    shared = {seed.seed_index for seed in one.finished} & {seed.seed_index for seed in other.finished}
    return "their test clips are not the same" if shared else "they have no seed in common"


def _count_note(name: str, params: int | None, *, backbone: str) -> str:
    """Return why the paper's count differs; "" if it does not, or if the backbone alone explains it."""
    published = SYSTEMS[name]
    if params is None or published.params_millions is None or (published.needs_backbone and backbone != PAPER_BACKBONE):
        return ""
    return "" if params == published.params else published.note
