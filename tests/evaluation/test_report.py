"""Results and reports of evaluations, from made-up runs."""

import json
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from harness.evaluation.caveats import caveats
from harness.evaluation.plan import RunList
from harness.evaluation.report import tables, write_report
from harness.evaluation.result import EvaluationResult, collect
from harness.study.files import TrialFiles
from harness.study.heldout import READS
from harness.study.records import TrialRecord
from tests.support.evaluations import LABELS, chosen_in, extended, make_study, place_beside, session
from tests.support.records import make_report


@pytest.fixture
def place(tmp_path):
    return make_study(tmp_path)


def result_of(place, *, n_seeds=2, reads=1, first=None, second=None):
    """Return an evaluation in which the second configuration is better on validation by 0.1, on test by 0.05.

    `first` and `second` are what their readings of the test split hold besides.
    """
    chosen = chosen_in(place)[:2]
    listed = extended(RunList({}), chosen, seeds=n_seeds)
    trials = []
    for number, run in enumerate(listed.runs):
        is_second = run.key == chosen[1].key
        figures = {"positive_f1": 0.3, "map": 0.2, "f1_by_label": {"banjo": 0.4, "cello": 0.6}}
        macro_f1 = 0.5 + 0.1 * is_second
        test = {"macro_f1": 0.4 + 0.05 * is_second + 0.01 * run.seed_index, **figures, "reads": reads}
        test |= (second if is_second else first) or {}
        report = make_report(number, 3, macro_f1, test=test, **figures)
        attributes = TrialRecord(paths=run.paths, report=report).attributes()
        trial = optuna.trial.create_trial(value=macro_f1, user_attrs=attributes)
        trial.number = number
        trials.append(trial)
    beside = place_beside(place)
    beside.home.mkdir(exist_ok=True)
    found = collect(listed, trials, chosen, place=beside)
    return EvaluationResult("s.evaluation", beside, found, LABELS, 0.35, (), is_interrupted=False)


def test_configurations_are_in_the_order_of_validation_with_all_their_figures(place):
    result = result_of(place)
    assert [(c.system, c.paper_name) for c in result.configurations] == [("cnn", "AST-CNNRP"), ("unet", "AST-URP")]
    best = result.configurations[0]
    assert best.values("macro_f1") == pytest.approx({0: 0.45, 1: 0.46})
    assert best.values("f1_by_label/cello") == {0: 0.6, 1: 0.6}
    assert best.values("macro_f1", split="validation") == {0: 0.6, 1: 0.6}
    assert (best.params, best.summary("macro_f1").n) == (10, 2)
    (comparison,) = result.comparisons()
    assert comparison.difference.mean == pytest.approx(0.05)


def test_the_report_holds_every_figure_and_reads_back(place):
    result = result_of(place)
    chosen = chosen_in(place)[:2]
    data, text = (file.read_text() for file in write_report(result, session(chosen)))
    stored = json.loads(data)
    first = stored["configurations"][0]
    assert first["test"]["macro_f1"] == pytest.approx(
        {"n": 2, "mean": 0.455, "std": 0.0070710678, "minimum": 0.45, "maximum": 0.46}
    )
    assert set(first["test_f1"]) == set(LABELS)
    assert [seed["seed_index"] for seed in first["seeds"]] == [0, 1]
    assert {c["figure"] for c in stored["comparisons"]} == {"macro_f1", "positive_f1", "map"}
    for part in ("cnn (AST-CNNRP)", "0.455 ± 0.007", "| cello | 0.600 |", "+0.050", "0.350 on validation"):
        assert part in text


def test_one_seed_gives_no_interval(place):
    result = result_of(place, n_seeds=1)
    assert any("one seed has no standard deviation" in line for line in caveats(result))
    data, text = (file.read_text() for file in write_report(result, session(chosen_in(place)[:2], seeds=1)))
    assert json.loads(data)["comparisons"][0]["low"] is None
    assert "| 0.450 |" in text
    assert "- (one seed)" in text


ONE_SIDED = {"one_sided": ["cello"]}
CONSTANT = {"is_constant": True}
LEFT_OUT = {"n_clips": 5, "clips": "a", "n_left_out": 2}


@pytest.mark.parametrize(
    ("changes", "caveat", "is_there"),
    [
        ({"n_seeds": 2}, "holds the true difference in 50 % of cases with 2 seeds", True),
        ({"n_seeds": 10}, "holds the true difference in 90 % of cases with 10 seeds", True),
        ({"n_seeds": 11}, "too narrow", False),
        ({"reads": 2}, "s trial 1, seed 0: test was read 2 times", True),
        ({"reads": 1}, "test was read", False),
        ({"first": ONE_SIDED, "second": ONE_SIDED}, "cello: all annotated test clips have the same answer", True),
        ({}, "same answer", False),
        ({"first": LEFT_OUT}, "2 of 7 annotated test clips are unreadable and in no figure of s trial 2", True),
        ({"first": LEFT_OUT, "second": LEFT_OUT}, "in no figure of s trial 1, s trial 2", True),
        ({}, "unreadable", False),
        (
            {"first": CONSTANT},
            "s trial 2: constant in 2 of 2 seeds, each label gets one answer on all test clips",
            True,
        ),
        ({"first": {"is_constant": False}}, "each label gets one answer", False),
        ({}, "s trial 2: chosen by the mean of 2 trials of this configuration", True),
    ],
)
def test_each_limit_of_the_figures_is_a_caveat(place, changes, caveat, is_there):
    result = result_of(place, **changes)
    assert any(caveat in line for line in caveats(result)) == is_there
    if is_there and "n_seeds" not in changes:
        assert any(caveat in file.read_text() for file in write_report(result, session(chosen_in(place))))


def test_configurations_with_other_test_clips_are_not_compared(place):
    log_mel, vggish = {"n_clips": 5, "clips": "a"}, {"n_clips": 6, "clips": "b"}
    result = result_of(place, first=log_mel, second=vggish)
    assert result.comparisons() == []
    (caveat,) = caveats(result)[1:]
    assert caveat.startswith("s trial 1 and s trial 2 are not paired: 6 and 5 other test clips, since unreadable")
    assert caveat in write_report(result, session(chosen_in(place)))[1].read_text()
    assert result_of(place, first=log_mel, second={**log_mel, "clips": "b"}).comparisons() == []
    heard, otherwise = ({**log_mel, "log_mel_digest": digest} for digest in "de")
    result = result_of(place, first=heard, second=otherwise)
    assert result.comparisons() == []
    assert "5 and 5 other test clips, since the audio differs" in caveats(result)[1]
    assert len(result_of(place, first=heard, second={**log_mel, "vggish_digest": "v"}).comparisons()) == 1
    for second in (log_mel, {"n_clips": 5}):  # what an earlier version stored has no digest
        result = result_of(place, first=log_mel, second=second)
        assert len(result.comparisons()) == 1
        assert not any("not paired" in line for line in caveats(result))


@pytest.mark.parametrize("differing", ["n_clips", "clips", "log_mel_digest", "embedding_digest"])
def test_seeds_with_other_test_clips_are_reported(place, differing):
    result = result_of(place)
    first, other = result.configurations
    seeds = [replace(seed, test={**seed.test, differing: 7 - seed.seed_index}) for seed in first.seeds]
    changed = replace(result, configurations=(replace(first, seeds=tuple(seeds)), other))
    lines = [line for line in caveats(changed) if line.endswith("of no single test set")]
    assert [line.partition(":")[0] for line in lines] == ["s trial 1"]
    assert not any("no single test set" in line for line in caveats(result))


def floor(macro_f1):
    return {"floor": {"macro_f1": macro_f1, "positive_f1": 0.2, "map": 0.4, "f1_by_label": {"banjo": 0.3}}}


@pytest.mark.parametrize(
    ("first", "second", "stored", "text"),
    [
        (floor(0.3551), floor(0.3551), [0.3551, 0.3551], "macro-F1 0.355 on test, 0.350 on validation"),
        (floor(0.36), floor(0.34), [0.34, 0.36], "macro-F1 0.340 to 0.360 on test, 0.350 on"),
        ({}, {}, [None, None], "macro-F1 0.350 on validation"),  # readings of an earlier version
    ],
)
def test_the_floor_is_that_of_the_readings_of_the_test_split(place, first, second, stored, text):
    result = result_of(place, first=first, second=second)
    data, report = (file.read_text() for file in write_report(result, session(chosen_in(place))))
    assert [c["test_floor"] for c in json.loads(data)["configurations"]] == stored
    assert f"Floor: {text}" in report


@pytest.mark.parametrize(("reads", "words"), [(1, "was read once for each"), (2, "was read more than once for some")])
def test_the_report_has_the_number_of_seeds_whatever_the_last_request(place, reads, words):
    _, file = write_report(result_of(place, reads=reads), session(chosen_in(place), seeds=1))
    assert f"retrained with the same 2 seeds each. The test split {words}" in file.read_text()


def test_a_reading_of_a_failed_run_counts(place):
    chosen = chosen_in(place)[:1]
    beside = place_beside(place)
    TrialFiles(beside.shared, 0).write(READS, json.dumps(["2026-11-22T14:03:00+00:00"]).encode())
    failed = optuna.trial.create_trial(state=TrialState.FAIL)
    once = extended(RunList({}), chosen, seeds=1)
    (seed,) = collect(once, [failed], chosen, place=beside)[0].seeds
    assert (seed.state, seed.reads) == ("failed", 1)
    again = extended(once, chosen, seeds=1, n_begun=1, failed={0})
    attributes = TrialRecord(report=make_report(1, 3, 0.5, test={"reads": 1})).attributes()
    done = optuna.trial.create_trial(value=0.5, user_attrs=attributes)
    (seed,) = collect(again, [failed, done], chosen, place=beside)[0].seeds
    assert (seed.state, seed.reads) == ("done", 2)


def test_an_evaluation_without_a_finished_run_has_tables(place):
    chosen = chosen_in(place)
    found = collect(extended(RunList({}), chosen), [], chosen, place=place_beside(place))
    result = EvaluationResult("e", place, found, (), None, (), is_interrupted=True)
    assert {seed.state for c in found for seed in c.seeds} == {"remaining"}
    assert len(tables(result, width=80)) == 3
    assert result.comparisons() == []


@pytest.mark.parametrize("width", [80, 120])
def test_configurations_and_numbers_are_never_cut(place, width):
    console = Console(width=width, record=True, color_system=None)
    result = result_of(place)
    for table in tables(result, width=width):
        console.print(table)
    text = console.export_text()
    assert "…" not in text
    for c in result.configurations:
        assert text.count(c.title) >= 3
        assert f"{c.summary('macro_f1').mean:.3f} ± {c.summary('macro_f1').std:.3f}" in text
    assert ("too narrow for" in text) == (width == 80)
