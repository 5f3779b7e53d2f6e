"""What a report tells of an evaluation: a row for each system."""

import numpy as np

from harness.evaluation.result import ConfigurationResult
from harness.params import PAPER_BACKBONE
from harness.published import SYSTEMS
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
