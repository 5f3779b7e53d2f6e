"""Choose a study's best configurations, by their validation figures alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from harness.config.study import StudyPlace, StudySpec, differing
from harness.config.trial import TrialConfig
from harness.study.records import TrialRecord
from harness.study.storage import open_storage
from harness.training.metrics import METRICS

_CEILING = "-ceiling"


@dataclass(frozen=True)
class Candidate:
    """A configuration that finished trials tried; `trial` is the first of them.

    A system trained with all labels revealed is a ceiling, such as `none-ceiling`, and stands apart. `figures` are
    those of the best epoch on validation: the mean over all `n_trials`, since the best of several is partly luck.
    """

    study: str
    trial: int
    system: str
    digest: str
    paths: Mapping[str, Any]
    figures: Mapping[str, float]
    n_trials: int = 1

    @property
    def key(self) -> tuple[str, str]:
        """Return the identity of the configuration, whichever trial tried it."""
        return self.study, self.digest

    @property
    def title(self) -> str:
        """Return the configuration's name in tables."""
        return f"{self.study} trial {self.trial}"


def check_comparable(sources: Mapping[str, StudySpec]) -> None:
    """Refuse studies whose runs would not pair: other data, another split, another backbone."""
    first, *others = sources.values()
    for other in others:
        if names := differing(first, other, "pairs_runs"):
            raise ValueError(
                f"studies {first.name} and {other.name} differ in {', '.join(names)}: their runs would not pair; "
                "evaluate them apart"
            )


def candidates(place: StudyPlace, spec: StudySpec) -> list[Candidate]:
    """Return the configurations of a study's finished trials, each once, with its mean over the trials that tried it.

    The figures are those that all of its trials have, since a metric may be newer than some of them.

    Raises:
        ValueError: no trial has finished.
    """
    trials: Sequence[FrozenTrial] = []
    if place.has_begun():  # opening a storage creates one
        study = optuna.load_study(study_name=spec.name, storage=open_storage(place.home))
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not trials:
        raise ValueError(f"study={spec.name}: none of its trials has finished, so there is nothing to evaluate")
    found: dict[str, list[Candidate]] = {}
    for trial in trials:
        candidate = _candidate(trial, spec)
        found.setdefault(candidate.digest, []).append(candidate)
    merged = []
    for tried in found.values():
        names = [name for name in tried[0].figures if all(name in candidate.figures for candidate in tried)]
        figures = {name: fmean(candidate.figures[name] for candidate in tried) for name in names}
        merged.append(replace(tried[0], figures=figures, n_trials=len(tried)))
    return merged


def choose(among: Iterable[Candidate], *, top: int, by: str) -> list[Candidate]:
    """Return the best `top` of each system, the best first.

    Raises:
        ValueError: a candidate lacks the figure.
    """
    chosen: dict[str, list[Candidate]] = {}
    found = list(among)
    if unknown := [candidate.title for candidate in found if by not in candidate.figures]:
        raise ValueError(f"by={by!r}: {unknown[0]} was trained before this metric existed")
    sign = -1 if METRICS[by].higher_is_better else 1
    for candidate in sorted(found, key=lambda c: (sign * c.figures[by], c.trial)):
        of_system = chosen.setdefault(candidate.system, [])
        if len(of_system) < top:
            of_system.append(candidate)
    return [candidate for of_system in chosen.values() for candidate in of_system]


def check_systems(systems: Sequence[str] | None, among: Iterable[Candidate]) -> None:
    """Refuse a system without a candidate."""
    valid = sorted({candidate.system for candidate in among})
    for name in systems or []:
        if name not in valid:
            raise ValueError(f"systems={name!r}: no finished trial of it; must be one of {', '.join(valid)}")


def _candidate(trial: FrozenTrial, spec: StudySpec) -> Candidate:
    record = TrialRecord.of(trial)
    assert record.paths is not None, "it has finished"
    assert record.report is not None, "it has finished"
    config = TrialConfig.from_paths(record.paths)
    best = record.report.best.figures
    figures = {name: best[name] for name in METRICS if name in best}
    system = f"{config.name}{_CEILING}" if spec.data.reveals_all else config.name
    return Candidate(spec.name, trial.number, system, config.digest(), config.to_paths(), figures)
