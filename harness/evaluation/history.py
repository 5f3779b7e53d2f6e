"""What was read of the test split before: a second look at a configuration, or at others of its study, is said."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from harness.evaluation.choosing import Candidate
from harness.evaluation.runs import Key, RunList, Session, evaluations_beside
from harness.spec import StudyPlace, StudySpec

_DECIDE = ("data_digest", "backbone_digest")


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
    """Tell whether a configuration is the same in both studies: the same data and backbone, for as many epochs."""
    digests = all(one.provenance.get(name) == other.provenance.get(name) for name in _DECIDE)
    return digests and one.epochs == other.epochs and one.data.reveals_all == other.data.reveals_all


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
