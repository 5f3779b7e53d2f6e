"""Spread over seeds, and differences paired by seed."""

import numpy as np
import pytest
from scipy import stats

from harness.evaluation.statistics import COVERAGE, Summary, paired_difference


def test_a_summary_is_what_the_textbook_says():
    summary = Summary.of([0.5, 0.7, 0.6])
    assert (summary.n, summary.minimum, summary.maximum) == (3, 0.5, 0.7)
    assert summary.mean == pytest.approx(0.6)
    assert summary.std == pytest.approx(0.1)  # n - 1 in the denominator


def test_one_seed_has_no_spread_and_no_interval():
    assert Summary.of([0.5]).std is None
    difference = paired_difference([0.6], [0.5])
    assert difference.mean == pytest.approx(0.1)
    assert (difference.low, difference.high) == (None, None)


def test_pairing_takes_out_what_seeds_have_in_common():
    rng = np.random.default_rng(0)
    common = rng.normal(0.6, 0.1, 10)
    one, other = common + 0.02 + rng.normal(0, 0.005, 10), common
    difference = paired_difference(one.tolist(), other.tolist())
    assert 0.01 < difference.low < 0.02 < difference.high < 0.03
    shuffled = paired_difference(one.tolist(), other[::-1].tolist())
    assert shuffled.low < 0 < shuffled.high


def test_an_interval_is_the_same_each_time_and_the_other_way_round_has_the_other_sign():
    one, other = [0.5, 0.6, 0.4, 0.7], [0.4, 0.65, 0.3, 0.5]
    forth, back = paired_difference(one, other), paired_difference(other, one)
    assert forth == paired_difference(one, other)
    assert forth.mean == pytest.approx(-back.mean)
    assert (forth.low, forth.high) == (pytest.approx(-back.high, abs=1e-9), pytest.approx(-back.low, abs=1e-9))
    same = paired_difference(one, one)
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    n_covered = 0
    for _ in range(200):
        difference = paired_difference(rng.normal(0.1, 1, 20).tolist(), [0.0] * 20)
        n_covered += difference.low <= 0.1 <= difference.high
    assert 0.86 < n_covered / 200 < 0.99


def test_values_without_a_counterpart_no_values_and_no_numbers_are_refused():
    with pytest.raises(ValueError, match="paired difference: 2 and 1 values"):
        paired_difference([0.5, 0.6], [0.5])
    for values in ([], [0.5, float("nan")]):
        with pytest.raises(ValueError, match="must be at least one number, and all finite"):
            Summary.of(values)


def test_the_interval_of_three_seeds_holds_the_truth_as_seldom_as_is_said():
    rng = np.random.default_rng(0)
    found = [paired_difference(values, [0.0] * 3) for values in rng.normal(size=(400, 3)).tolist()]
    share = np.mean([difference.low <= 0 <= difference.high for difference in found])
    assert share == pytest.approx(COVERAGE[3], abs=0.07)  # three standard errors


@pytest.mark.parametrize("n", [n for n in COVERAGE if n > 3])
def test_the_shares_of_the_interval_are_near_those_of_students_t(n):
    within = 2 * stats.t(n - 1).cdf(1.96 * np.sqrt((n - 1) / n)) - 1
    assert COVERAGE[n] == pytest.approx(within, abs=0.02)
