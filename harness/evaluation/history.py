"""What was read of the test split before: a second look at a configuration, or at others of its study, is said."""

from collections.abc import Collection, Sequence
from datetime import datetime

from harness.evaluation.choosing import Candidate
from harness.evaluation.runs import Key, RunList, evaluations_beside
from harness.spec import StudyPlace


def notes_on(
    before: RunList | None, finished: Collection[int], chosen: Sequence[Candidate], *, seeds: int, place: StudyPlace
) -> tuple[str, ...]:
    """Return a line for each configuration that was evaluated before, here or in another evaluation beside it.

    `before` and `finished` are the runs and the numbers of those that had finished when this session began.
    """
    lines = []
    elsewhere = dict(evaluations_beside(place))
    for candidate in chosen:
        if before is not None and (line := _here(before, finished, candidate, seeds=seeds)):
            lines.append(line)
        for name, other in elsewhere.items():
            if session := next((s for s in reversed(other.sessions) if candidate.key in s.configurations), None):
                lines.append(
                    f"{candidate.title}: evaluation {name} has it too, of {_clock(session.began)}, "
                    f"with {_seeds(session.seeds)}"
                )
    everything = [*([before] if before else []), *elsewhere.values()]
    return (*lines, *_other_configurations(everything, chosen))


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


def _clock(iso: str) -> str:
    """Return a time as this machine's clock shows it, to the minute."""
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M")


def _seeds(number: int) -> str:
    return f"{number} seed{'' if number == 1 else 's'}"
