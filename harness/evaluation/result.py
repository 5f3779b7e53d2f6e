"""Results of an evaluation: the seeds of each configuration, and the differences between configurations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from harness.config.literature import SYSTEMS
from harness.config.study import StudyPlace
from harness.evaluation.plan import RunList
from harness.evaluation.selection import Candidate
from harness.evaluation.statistics import Difference, Summary, paired_difference
from harness.study.files import TrialFiles
from harness.study.heldout import readings_of
from harness.study.records import TrialRecord


@dataclass(frozen=True)
class SeedResult:
    """One retraining. `test` and `validation` hold the figures of `METRICS` and f1_by_label, those of the best epoch.

    Both are None without one. `test` also identifies the clips by `n_clips` and their digest `clips`, their features by
    `log_mel_digest` or `vggish_digest`, and holds the number of unreadable clips as `n_left_out`, the `one_sided`
    labels, and the figures of always guessing as `floor`. `reads` counts the readings of the test split for this
    configuration and seed.
    """

    seed_index: int
    run: int
    state: str
    test: Mapping[str, Any] | None
    validation: Mapping[str, Any] | None
    params: int | None
    epochs: int
    seconds: float
    reads: int
    reason: str

    def has_same_test_clips(self, other: "SeedResult") -> bool:
        """Return whether both were tested on the same clips, as far as their readings record them.

        The log-mel of one system and the VGGish features of another are taken to be of the same audio.
        """
        one, two = self.test or {}, other.test or {}
        known = (key for key in one.keys() & two.keys() if key in ("n_clips", "clips") or key.endswith("_digest"))
        return all(one[key] == two[key] for key in known)


@dataclass(frozen=True)
class ConfigurationResult:
    """One configuration with its origin and its seeds in order.

    `chosen_by` holds its validation figures: means over `chosen_from` trials of its study.
    """

    study: str
    trial: int
    system: str
    digest: str
    paths: Mapping[str, Any]
    chosen_by: Mapping[str, float]
    chosen_from: int
    seeds: tuple[SeedResult, ...]

    @property
    def title(self) -> str:
        """Return the configuration's name in tables."""
        return f"{self.study} trial {self.trial}"

    @property
    def paper_name(self) -> str:
        """Return the system's name in the paper, or "-"."""
        return SYSTEMS[self.system].paper_name if self.system in SYSTEMS else "-"

    @property
    def finished(self) -> tuple[SeedResult, ...]:
        """Return the seeds whose test figures are known."""
        return tuple(seed for seed in self.seeds if seed.test is not None)

    @property
    def params(self) -> int | None:
        """Return the number of trained parameters."""
        return next((seed.params for seed in self.seeds if seed.params), None)

    @property
    def seconds(self) -> Summary | None:
        """Return the time of a run, over the finished seeds."""
        return Summary.of([seed.seconds for seed in self.finished]) if self.finished else None

    @property
    def test_floor(self) -> float | None:
        """Return the test macro-F1 of always guessing; None if no reading has stored it."""
        return next((seed.test["floor"]["macro_f1"] for seed in self.seeds if seed.test and "floor" in seed.test), None)

    def values(self, name: str, *, split: str = "test") -> dict[int, float]:
        """Return a figure by seed, such as `macro_f1` or `f1_by_label/banjo`, over the finished seeds."""
        first, _, label = name.partition("/")
        found = {}
        for seed in self.finished:
            figures = (seed.test if split == "test" else seed.validation) or {}
            if first not in figures:  # a metric that was added since
                continue
            found[seed.seed_index] = float(figures[first][label] if label else figures[first])
        return found

    def summary(self, name: str, *, split: str = "test") -> Summary | None:
        """Return mean and spread of a figure over the finished seeds, or None if there is none."""
        values = list(self.values(name, split=split).values())
        return Summary.of(values) if values else None


@dataclass(frozen=True)
class Comparison:
    """How much higher `one` scored than `other` on the test split, over the seeds that both have."""

    one: str
    other: str
    difference: Difference


@dataclass(frozen=True)
class EvaluationResult:
    """The results of an evaluation so far.

    `floor` is the validation macro-F1 of always guessing the commoner answer; the readings hold that of the test split.
    `notes` name earlier readings of the test split, `reports` are the files written, `tracking` are lines about MLflow.
    """

    name: str
    place: StudyPlace
    configurations: tuple[ConfigurationResult, ...]
    labels: tuple[str, ...]
    floor: float | None
    notes: tuple[str, ...]
    is_interrupted: bool
    reports: tuple[Path, ...] = ()
    tracking: tuple[str, ...] = ()

    @property
    def has_failed(self) -> bool:
        """Return whether a run failed."""
        return any(seed.state == "failed" for c in self.configurations for seed in c.seeds)

    @property
    def test_floors(self) -> list[float]:
        """Return the lowest and the highest test floor, or one figure if they agree to three digits."""
        known = [c.test_floor for c in self.configurations if c.test_floor is not None]
        return sorted({round(floor, 3) for floor in (min(known), max(known))}) if known else []

    def comparisons(self, name: str = "macro_f1") -> list[Comparison]:
        """Return the paired differences of a figure between all configurations that were tested on the same clips."""
        found = []
        for one, other in combinations(self.configurations, 2):
            left, right = one.values(name), other.values(name)
            if common := [seed for seed in paired_seeds(one, other) if seed in left and seed in right]:
                difference = paired_difference([left[i] for i in common], [right[i] for i in common])
                found.append(Comparison(one.title, other.title, difference))
        return found


def paired_seeds(one: ConfigurationResult, other: ConfigurationResult) -> list[int]:
    """Return the seeds that both have finished, on the same test clips."""
    there = {seed.seed_index: seed for seed in one.finished}
    common = [seed for seed in other.finished if seed.seed_index in there]
    return [seed.seed_index for seed in common if seed.has_same_test_clips(there[seed.seed_index])]


_STATES = {TrialState.COMPLETE: "done", TrialState.FAIL: "failed"}


def collect(
    listed: RunList, trials: Sequence[FrozenTrial], chosen: Sequence[Candidate], *, place: StudyPlace
) -> tuple[ConfigurationResult, ...]:
    """Return the chosen configurations with all of their seeds, the best by mean validation macro-F1 first."""
    found = []
    for candidate in chosen:
        by_seed: dict[int, list[int]] = {}
        for number in listed.numbers_of(candidate.key):
            by_seed.setdefault(listed.runs[number].seed_index, []).append(number)
        seeds = tuple(_seed(index, by_seed[index], trials, place=place) for index in sorted(by_seed))
        first = listed.runs[listed.numbers_of(candidate.key)[0]]
        found.append(
            ConfigurationResult(
                study=first.study,
                trial=first.trial,
                system=first.system,
                digest=first.digest,
                paths=first.paths,
                chosen_by=candidate.figures,
                chosen_from=candidate.n_trials,
                seeds=seeds,
            )
        )
    return tuple(sorted(found, key=_rank))


def _rank(configuration: ConfigurationResult) -> float:
    summary = configuration.summary("macro_f1", split="validation")
    return -summary.mean if summary else 0.0


def _seed(index: int, numbers: Sequence[int], trials: Sequence[FrozenTrial], *, place: StudyPlace) -> SeedResult:
    """Return the result of one seed: its last run, which is the only one unless others failed before it."""
    number = numbers[-1]
    trial = trials[number] if number < len(trials) else None
    record = TrialRecord() if trial is None else TrialRecord.of(trial)
    report = record.report
    test = report.test if report else None
    uncounted = numbers[:-1] if test else numbers  # a failed run may have read the split
    reads = sum(len(readings_of(TrialFiles(place.shared, n))) for n in uncounted)
    return SeedResult(
        seed_index=index,
        run=number,
        state="remaining" if trial is None else _STATES.get(trial.state, "remaining"),
        test=test,
        validation={**report.best.figures, "f1_by_label": report.best.f1_by_label} if report else None,
        params=report.params if report else None,
        epochs=report.last.epoch if report else 0,
        seconds=report.seconds if report else 0.0,
        reads=reads + (test["reads"] if test else 0),
        reason=record.reason,
    )
