"""The list of an evaluation's runs: one for each configuration and seed. Run `i` is Optuna trial `i`.

The list lies beside the evaluation's storage and keeps each run that has begun, with the time and the request of each
session. So every reading of the test split stays known.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from harness.common.records import read_record, write_record
from harness.config.settings import held_digests
from harness.config.study import StudyPlace, StudySpec, differing
from harness.evaluation.selection import Candidate
from harness.study.plan import Plan, PlannedTrial
from harness.study.records import TrialRecord
from tracking import names

RUNS_FILE = "runs.json"

_FIRST_SEED = 1_000_000_000  # far from the seeds of any study's trials, so no retraining repeats a trial


Key = tuple[str, str]


@dataclass(frozen=True)
class Run:
    """One retraining. `trial` is the source study's, `seed_index` counts the seeds from 0."""

    study: str
    trial: int
    system: str
    digest: str
    seed_index: int
    paths: Mapping[str, Any]

    @property
    def key(self) -> Key:
        """Return the identity of the configuration."""
        return self.study, self.digest


@dataclass(frozen=True)
class Session:
    """One call of the command: its time (ISO 8601, UTC) and its request."""

    began: str
    seeds: int
    top: int
    by: str
    configurations: tuple[Key, ...]


@dataclass(frozen=True)
class RunList:
    """An evaluation's runs, their studies, and the sessions that requested them."""

    sources: Mapping[str, StudySpec]
    runs: tuple[Run, ...] = ()
    sessions: tuple[Session, ...] = ()
    labels: tuple[str, ...] = ()
    floor: float | None = None
    tracking_uri: str | None = None

    def extended(
        self,
        chosen: Sequence[Candidate],
        *,
        session: Session,
        sources: Mapping[str, StudySpec],
        n_begun: int,
        failed: Collection[int],
    ) -> "RunList":
        """Return the runs that have begun, then those that the session adds; a failed run is tried again.

        The order is seed by seed, so the finished runs of different configurations pair at any time.

        Raises:
            ValueError: a study differs from the one that its runs began with.
        """
        for name in sources.keys() & self.sources.keys():
            _check_same(self.sources[name], sources[name])
        begun = self.runs[:n_begun]
        there = {(*run.key, run.seed_index) for number, run in enumerate(begun) if number not in failed}
        new = [
            Run(c.study, c.trial, c.system, c.digest, index, c.paths)
            for index in range(session.seeds)
            for c in chosen
            if (*c.key, index) not in there
        ]
        return replace(
            self,
            sources={**self.sources, **sources},
            runs=(*begun, *new),
            sessions=(*self.sessions, session),
        )

    def numbers_of(self, key: Key) -> list[int]:
        """Return the numbers of a configuration's runs."""
        return [number for number, run in enumerate(self.runs) if run.key == key]

    def write(self, place: StudyPlace) -> None:
        """Write the list, whole or not at all."""
        write_record(place.home / RUNS_FILE, self)


def terms_of(source: StudySpec, *, skip_corrupt: bool) -> StudySpec:
    """Return the settings of a study's retrainings: its own, and perhaps to leave out unreadable clips.

    That affects test clips alone, since the study's digests pin the clips that it trains and validates on.
    """
    return replace(source, data=replace(source.data, skips_corrupt=source.data.skips_corrupt or skip_corrupt))


def read_runs(home: Path) -> RunList | None:
    """Return the list in a folder, or None if there is none."""
    file = home / RUNS_FILE
    return read_record(RunList, file) if file.exists() else None


def evaluations_beside(place: StudyPlace) -> Iterator[tuple[str, RunList]]:
    """Yield name and runs of the other evaluations in the same storage."""
    for file in sorted(place.home.parent.glob(f"*/{RUNS_FILE}")):
        if file.parent != place.home and (runs := read_runs(file.parent)) is not None:
            yield file.parent.name, runs


def evaluation_plan(listed: RunList) -> Plan:
    """Return the plan of an evaluation's runs: nothing is drawn, and seed `i` is the same for all configurations."""

    def planned(number: int) -> PlannedTrial:
        run = listed.runs[number]
        title = f"{run.study} trial {run.trial}, seed {run.seed_index}"
        return PlannedTrial(
            replace(listed.sources[run.study], scheduler="none"),
            seed=_FIRST_SEED + run.seed_index,
            title=title,
            run_name=title,
            tags={
                names.SOURCE_STUDY: run.study,
                names.SOURCE_TRIAL: run.trial,
                names.SEED_INDEX: run.seed_index,
                names.CONFIG_DIGEST: run.digest,
            },
        )

    return Plan(len(listed.runs), suggest=lambda trial: listed.runs[trial.number].paths, trial=planned, reads_test=True)


def _check_same(before: StudySpec, now: StudySpec) -> None:
    """Refuse a study whose runs would no longer be comparable with those there are."""
    if replace(before.data, skips_corrupt=True) == replace(now.data, skips_corrupt=True) and before.data != now.data:
        began, change = ("with", "give it again") if before.data.skips_corrupt else ("without", "leave it out")
        raise ValueError(
            f"skip-corrupt: the evaluation of study {now.name} began {began} it, and its runs are to be tested on the "
            f"same clips; {change}, or give the evaluation another --name"
        )
    if names := differing(before, now, "fixes_retraining"):
        raise ValueError(
            f"study={now.name}: differs in {', '.join(names)} from the study of this name that was evaluated "
            "before; give the evaluation another --name"
        )


def check_same_test_clips(trials: Iterable[FrozenTrial], provenance: Mapping[str, str], *, name: str) -> None:
    """Refuse to test further runs on other clips than the finished runs."""
    reports = [TrialRecord.of(trial).report for trial in trials]
    tests = [report.test for report in reports if report and report.test]
    ends = "_test_digest"
    for inputs, now in ((key.removesuffix(ends), value) for key, value in provenance.items() if key.endswith(ends)):
        n_other = sum(test.get(f"{inputs}_digest", now) != now for test in tests)
        if n_other:
            raise ValueError(
                f"name={name}: the test clips are not what {n_other} of its {len(tests)} runs were tested on, by their "
                "sound or their labels; bring those back, or give the evaluation another --name"
            )


def check_unchanged(source: StudySpec, provenance: Mapping[str, str]) -> None:
    """Refuse data or a backbone other than those that the configurations were chosen with."""
    for digest, before in held_digests(source.provenance).items():
        now = provenance.get(digest, before)
        if now != before:
            chosen = "with another backbone" if digest == "backbone_digest" else "on other data"
            raise ValueError(
                f"study={source.name}: {digest} is {now[:12]}, the study began with {before[:12]}; its configurations "
                f"were chosen {chosen}"
            )
