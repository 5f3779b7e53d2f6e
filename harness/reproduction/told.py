"""What a report tells of an evaluation: rows, differences between systems, and what is to be known of them."""

from itertools import combinations

import numpy as np

from harness.evaluation.remarks import remarks
from harness.evaluation.result import Comparison, ConfigurationResult, EvaluationResult
from harness.published import PAPER_BACKBONE, SYSTEMS
from harness.reproduction.report import SystemResult
from harness.reproduction.wanted import Reproduction
from harness.results import configuration_in_words
from harness.subspace import configuration_of
from search_spaces import load


def system_result(wanted: Reproduction, name: str, found: ConfigurationResult | None) -> SystemResult:
    """Return the row of a system; None if no trial of its study has finished."""
    if found is None:
        return SystemResult(name, None, [], [], [], {})
    labels = found.finished[0].test["f1_by_label"] if found.finished else {}  # type: ignore[index]
    seconds = [seed.seconds for seed in found.finished]
    is_papers = _is_papers(wanted, name, found)
    return SystemResult(
        name=name,
        params=found.params or None,
        macro_f1=list(found.values("macro_f1").values()),
        positive_f1=list(found.values("positive_f1").values()),
        mean_average_precision=list(found.values("map").values()),
        f1_by_label={label: _mean(found, f"f1_by_label/{label}") for label in labels},
        seconds=float(np.mean(seconds)) if seconds else None,
        configuration=configuration_in_words(found.paths) + (" (the paper's)" if is_papers else ""),
        count_note=_count_note(name, found.params, backbone=wanted.backbone) if is_papers else "",
    )


def differences(wanted: Reproduction, result: EvaluationResult) -> str:
    """Return the differences of macro-F1 between systems as a Markdown list, those to the linear head first.

    Systems that share no seed, or no seed with the same test clips, are named too, and why. "" for a single system.
    """
    compared = {(comparison.one, comparison.other): comparison for comparison in result.comparisons()}
    pairs = sorted(combinations(result.configurations, 2), key=lambda pair: "none" not in {c.system for c in pair})
    lines = []
    for one, other in pairs:
        found = compared.get((one.title, other.title))
        told = _difference(found) if found else f"not paired, since {_why_apart(one, other)}"
        lines.append(f"- {_part(wanted, one)} over {_part(wanted, other)}: {told}")
    if not lines:
        return ""
    told = "Mean difference of test macro-F1 over seeds, paired by seed, with its bootstrap interval."
    return "\n".join([told, "", *lines])


def notes_of(wanted: Reproduction, result: EvaluationResult) -> list[str]:
    """Return what the evaluation found to be known of its figures, and how many test clips each had if they differ."""
    return [*result.notes, *remarks(result), *_test_clips(wanted, result)]


def _difference(comparison: Comparison) -> str:
    found = comparison.difference
    interval = "" if found.low is None else f", 95 % interval {found.low:+.3f} to {found.high:+.3f}"
    return f"{found.mean:+.3f}{interval}"


def _why_apart(one: ConfigurationResult, other: ConfigurationResult) -> str:
    """Return why two configurations have no seed to compare."""
    without = [c.title for c in (one, other) if not c.finished]
    if without:
        return "neither has a finished run" if len(without) == 2 else f"{without[0]} has no finished run"
    shared = {seed.seed_index for seed in one.finished} & {seed.seed_index for seed in other.finished}
    return "their test clips are not the same" if shared else "they have no seed in common"


def _test_clips(wanted: Reproduction, result: EvaluationResult) -> list[str]:
    counts = {
        _part(wanted, c): sorted({seed.test["n_clips"] for seed in c.finished if seed.test and "n_clips" in seed.test})
        for c in result.configurations
    }
    if len({n for of_one in counts.values() for n in of_one}) < 2:
        return []
    told = (f"{part} {' or '.join(map(str, of_one))}" for part, of_one in counts.items() if of_one)
    return [f"test clips: {', '.join(told)}"]


def _part(wanted: Reproduction, configuration: ConfigurationResult) -> str:
    """Return the system of a configuration, or another part of the reproduction that its study is."""
    return configuration.study.removeprefix(f"{wanted.name}.")


def _is_papers(wanted: Reproduction, name: str, found: ConfigurationResult) -> bool:
    """Tell whether this is the configuration that the study of the system began with."""
    space = load(name, wanted.spec(name).preset)
    return found.digest in {configuration_of(space, paper).digest() for paper in space.paper}


def _count_note(name: str, params: int | None, *, backbone: str) -> str:
    """Return why the paper counts otherwise; "" where it does not, or where the backbone alone makes another count."""
    published = SYSTEMS[name]
    if params is None or published.params_millions is None or (published.needs_backbone and backbone != PAPER_BACKBONE):
        return ""
    return "" if params == published.params else published.note


def _mean(configuration: ConfigurationResult, name: str) -> float:
    return float(np.mean(list(configuration.values(name).values())))
