"""What is to be known of an evaluation's figures before anyone trusts them, in sentences."""

from itertools import combinations

from harness.evaluation.result import EvaluationResult, paired_seeds
from harness.evaluation.statistics import COVERAGE

_ONE_SEED = "one seed has no standard deviation, and no interval: give more --seeds"
_INTERVAL = "95 % bootstrap interval of the mean difference over seeds; it says nothing of other test clips"


def remarks(result: EvaluationResult) -> list[str]:
    """Return what is to be known of the figures."""
    lines = [*_choices(result), *_readings(result), *_failures(result)]
    lines += [*left_out(result), *_changed_clips(result), *_other_clips(result), *_one_sided(result)]
    counts = {len(c.finished) for c in result.configurations}
    if 1 in counts:
        lines.append(_ONE_SEED)
    return [*lines, *_intervals(result)]


def procedure(result: EvaluationResult) -> str:
    """Say with how many seeds there was retraining, and how often the test split was read, in two sentences' ends."""
    counts = sorted({len(c.seeds) for c in result.configurations})
    seeds = (
        f"retrained with the same {_number(counts[0], 'seed')} each"
        if len(counts) == 1
        else (f"retrained with {counts[0]} to {counts[-1]} seeds each, the first of them the same for all")
    )
    has_reread = any(seed.reads > 1 for c in result.configurations for seed in c.seeds)
    often = "more than once for some runs, as the notes say" if has_reread else "once for each finished run"
    return f"{seeds}. The test split was read {often}, with the weights of the best epoch by validation."


def _choices(result: EvaluationResult) -> list[str]:
    return [
        f"{c.title}: chosen by the mean of {c.chosen_from} trials of this configuration"
        for c in result.configurations
        if c.chosen_from > 1
    ]


def _readings(result: EvaluationResult) -> list[str]:
    return [
        f"{c.title}, seed {seed.seed_index}: test was read {seed.reads} times, since a worker was lost, the run "
        "failed after a reading, or the features could not be read to their end"
        for c in result.configurations
        for seed in c.seeds
        if seed.reads > 1
    ]


def _failures(result: EvaluationResult) -> list[str]:
    return [
        f"{c.title}, seed {seed.seed_index} failed: {seed.reason}"
        for c in result.configurations
        for seed in c.seeds
        if seed.state == "failed"
    ]


def left_out(result: EvaluationResult) -> list[str]:
    """Say how many test clips are in no figure, since they cannot be read: the test set is then another."""
    titles: dict[tuple[int, int], list[str]] = {}
    for c in result.configurations:
        for test in (seed.test or {} for seed in c.finished):
            if n_left_out := test.get("n_left_out", 0):
                titles.setdefault((n_left_out, n_left_out + test["n_clips"]), []).append(c.title)
    return [
        f"{n} of {n_all} annotated test clips cannot be read and are in no figure of {', '.join(dict.fromkeys(named))}"
        for (n, n_all), named in titles.items()
    ]


def _changed_clips(result: EvaluationResult) -> list[str]:
    """Name the configurations whose own seeds do not share the clips."""
    return [
        f"{c.title}: its seeds were not all tested on the same clips, so that their mean is of no one test set"
        for c in result.configurations
        if not all(seed.has_same_test_clips(c.finished[0]) for seed in c.finished)
    ]


def _other_clips(result: EvaluationResult) -> list[str]:
    """Name the configurations that share seeds and not the clips."""
    lines = []
    for one, other in combinations(result.configurations, 2):
        left, right = ({seed.seed_index: seed for seed in c.finished} for c in (one, other))
        if unpaired := sorted((left.keys() & right.keys()) - {*paired_seeds(one, other)}):
            n, m = ((seeds[unpaired[0]].test or {})["n_clips"] for seeds in (left, right))
            why = (
                "since unreadable audio is left out for systems that hear log-mel, and only for them"
                if n != m
                else "since they do not sound the same"
            )
            lines.append(f"{one.title} and {other.title} are not paired: {n} and {m} test clips, not the same, {why}")
    return lines


def _one_sided(result: EvaluationResult) -> list[str]:
    found = {
        label for c in result.configurations for seed in c.finished for label in (seed.test or {}).get("one_sided", ())
    }
    if not found:
        return []
    return [
        f"{', '.join(label for label in result.labels if label in found)}: all annotated test clips have the same "
        "answer, so that F1 says little; mAP leaves out labels without a positive clip"
    ]


def _intervals(result: EvaluationResult) -> list[str]:
    """Say what the intervals are of, and how often intervals of so few seeds hold the true difference."""
    counts = sorted({c.difference.n for c in result.comparisons()} - {1})
    if not counts:
        return []
    told = [f"{100 * COVERAGE[n]:.0f} % of cases with {n} seeds" for n in counts if n in COVERAGE]
    narrow = f"; with few seeds it is too narrow, and holds the true difference in {', '.join(told)}" if told else ""
    return [_INTERVAL + narrow]


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
