"""The limits of an evaluation's figures, in lines to print: its own caveats, and earlier readings of the test split."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import combinations

from harness.config.study import StudyPlace, StudySpec, differing
from harness.evaluation.plan import Key, RunList, Session, evaluations_beside
from harness.evaluation.result import EvaluationResult, paired_seeds
from harness.evaluation.selection import Candidate
from harness.evaluation.statistics import COVERAGE

_ONE_SEED = "one seed has no standard deviation and no interval: give more --seeds"

_INTERVAL = "95 % bootstrap interval of the mean difference over seeds; it does not cover the choice of test clips"


def caveats(result: EvaluationResult) -> list[str]:
    """Return the limits of the figures, a line each."""
    configurations = result.configurations
    seeds = [(f"{c.title}, seed {seed.seed_index}", seed) for c in configurations for seed in c.seeds]
    lines = [
        f"{c.title}: chosen by the mean of {c.chosen_from} trials of this configuration"
        for c in configurations
        if c.chosen_from > 1
    ]
    lines += [
        f"{name}: test was read {seed.reads} times, since a worker was lost, the run failed after a reading, or the "
        "features could not be read"
        for name, seed in seeds
        if seed.reads > 1
    ]
    lines += [f"{name} failed: {seed.reason}" for name, seed in seeds if seed.state == "failed"]
    lines += _constant(result)
    lines += _unreadable_clips(result)
    lines += [
        f"{c.title}: its seeds were tested on different clips, so their mean is of no single test set"
        for c in configurations
        if not all(seed.has_same_test_clips(c.finished[0]) for seed in c.finished)
    ]
    lines += [*_unpaired(result), *_one_sided(result)]
    lines += [_ONE_SEED] if any(len(c.finished) == 1 for c in configurations) else []
    return lines + _coverage(result)


def _constant(result: EvaluationResult) -> list[str]:
    """Name the configurations whose predictions ignore the clip."""
    counts = [
        (c, sum((seed.test or {}).get("is_constant", False) for seed in c.finished)) for c in result.configurations
    ]
    return [
        f"{c.title}: constant in {n} of {plural(len(c.finished), 'seed')}, each label gets one answer on all test clips"
        for c, n in counts
        if n
    ]


def _unreadable_clips(result: EvaluationResult) -> list[str]:
    """Return the numbers of unreadable test clips, without which the test set is another."""
    titles: dict[tuple[int, int], list[str]] = {}
    for c in result.configurations:
        for test in (seed.test or {} for seed in c.finished):
            if n_skipped := test.get("n_left_out", 0):
                titles.setdefault((n_skipped, n_skipped + test["n_clips"]), []).append(c.title)
    return [
        f"{n} of {n_all} annotated test clips are unreadable and in no figure of {', '.join(dict.fromkeys(named))}"
        for (n, n_all), named in titles.items()
    ]


def _unpaired(result: EvaluationResult) -> list[str]:
    """Name the configurations that share seeds but not test clips."""
    lines = []
    for one, other in combinations(result.configurations, 2):
        left, right = ({seed.seed_index: seed for seed in c.finished} for c in (one, other))
        if unpaired := sorted((left.keys() & right.keys()) - {*paired_seeds(one, other)}):
            n, m = ((seeds[unpaired[0]].test or {})["n_clips"] for seeds in (left, right))
            why = "unreadable audio is left out for log-mel systems alone" if n != m else "the audio differs"
            lines.append(f"{one.title} and {other.title} are not paired: {n} and {m} other test clips, since {why}")
    return lines


def _one_sided(result: EvaluationResult) -> list[str]:
    tests = [seed.test or {} for c in result.configurations for seed in c.finished]
    found = {label for test in tests for label in test.get("one_sided", ())}
    named = ", ".join(label for label in result.labels if label in found)
    everywhere = "all annotated test clips have the same answer, so the means over labels leave them out"
    return [f"{named}: {everywhere}"] if found else []


def _coverage(result: EvaluationResult) -> list[str]:
    """Return how often intervals of so few seeds hold the true difference."""
    counts = sorted({c.difference.n for c in result.comparisons()} - {1})
    if not counts:
        return []
    shares = [f"{100 * COVERAGE[n]:.0f} % of cases with {n} seeds" for n in counts if n in COVERAGE]
    if not shares:
        return [_INTERVAL]
    return [f"{_INTERVAL}; with few seeds it is too narrow, and holds the true difference in {', '.join(shares)}"]


def heldout_usage(
    before: RunList | None,
    finished: Collection[int],
    chosen: Sequence[Candidate],
    *,
    sources: Mapping[str, StudySpec],
    seeds: int,
    place: StudyPlace,
) -> tuple[str, ...]:
    """Return a line for each configuration with known test figures, from here or from another evaluation beside it.

    `before` are the runs when this session began, `finished` the numbers of those that had finished. `sources` are the
    studies of the chosen. A configuration of another study counts as the same if it trains on the same settings.
    """
    lines = []
    elsewhere = dict(evaluations_beside(place))
    by_name = {**({place.home.name: before} if before else {}), **elsewhere}
    for candidate in chosen:
        if before is not None and (line := _usage_here(before, finished, candidate, seeds=seeds)):
            lines.append(line)
        for name, other in elsewhere.items():
            if session := _last_session(other, candidate.key):
                lines.append(f"{candidate.title}: evaluation {name} has it too, {_when(session)}")
        for name, evaluation in by_name.items():
            lines += [
                f"{candidate.title}: evaluation {name} has the same as {earlier}"
                for earlier in _under_other_studies(evaluation, candidate, chosen, spec=sources[candidate.study])
            ]
    return (*lines, *_other_configurations(list(by_name.values()), chosen))


def _usage_here(before: RunList, finished: Collection[int], candidate: Candidate, *, seeds: int) -> str:
    last = _last_session(before, candidate.key)
    if last is None:
        return ""
    n_read = len({before.runs[n].seed_index for n in before.numbers_of(candidate.key) if n in finished})
    line = f"{candidate.title}: evaluated before on {_minute(last.began)} with {plural(last.seeds, 'seed')}"
    if n_read >= seeds:
        return f"{line}; all {n_read} are finished: the table repeats them, test was not read again"
    if n_read < last.seeds:
        line += f", of which {n_read} finished"
    return f"{line}; {seeds - n_read} more now"


def _under_other_studies(
    evaluation: RunList, candidate: Candidate, chosen: Sequence[Candidate], *, spec: StudySpec
) -> list[str]:
    """Return trial, time and seeds of the same configuration under studies that are not chosen."""
    studies = [study for study, other in sorted(evaluation.sources.items()) if learn_the_same(other, spec)]
    found = []
    for key in ((study, candidate.digest) for study in studies):
        session = _last_session(evaluation, key)
        if session and key not in {c.key for c in chosen}:
            trial = next((f" trial {run.trial}" for run in evaluation.runs if run.key == key), "")
            found.append(f"{key[0]}{trial}, {_when(session)}")
    return found


def learn_the_same(one: StudySpec, other: StudySpec) -> bool:
    """Return whether a configuration learns the same in both studies."""
    return not differing(one, other, "shapes_learning")


def _other_configurations(evaluations: Sequence[RunList], chosen: Sequence[Candidate]) -> list[str]:
    """Warn of each study with more known test figures than those of the chosen configurations."""
    lines = []
    for study in dict.fromkeys(candidate.study for candidate in chosen):
        now: set[Key] = {candidate.key for candidate in chosen if candidate.study == study}
        earlier = {run.key for evaluation in evaluations for run in evaluation.runs if run.study == study}
        if earlier - now:
            lines.append(
                f"warning: with this evaluation, test figures are known for {len(earlier | now)} configurations of "
                f"study {study}, {len(now)} of them in this table; choosing among them by these is selection on test"
            )
    return lines


def _last_session(evaluation: RunList, key: Key) -> Session | None:
    """Return the last session that requested a configuration."""
    return next((session for session in reversed(evaluation.sessions) if key in session.configurations), None)


def _when(session: Session) -> str:
    return f"of {_minute(session.began)}, with {plural(session.seeds, 'seed')}"


def _minute(iso: str) -> str:
    """Return a time in this machine's time zone, to the minute."""
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M")


def plural(count: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
