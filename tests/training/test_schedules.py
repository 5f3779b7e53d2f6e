"""The learning-rate schedules."""

from itertools import pairwise

import pytest

from harness.config.recipe import SCHEDULES
from harness.training.optimisation import learning_rate_factor


def course(kind, *, n_steps=50, warmup=0.0):
    return [learning_rate_factor(kind, step=step, n_steps=n_steps, warmup=warmup) for step in range(n_steps)]


@pytest.mark.parametrize("kind", SCHEDULES)
def test_every_factor_is_above_zero_and_at_most_one(kind):
    assert all(0 < factor <= 1 for factor in course(kind))


def test_the_papers_schedule_holds_ten_of_fifty_epochs_then_halves_every_five():
    expected = [1.0] * 10 + [0.5 ** (1 + k) for k in range(8) for _ in range(5)]
    assert course("paper") == expected


def test_the_released_schedule_falls_after_each_of_epochs_5_to_25_of_30():
    assert course("released", n_steps=30) == pytest.approx([1.0] * 5 + [0.85**k for k in range(1, 22)] + [0.85**21] * 4)


def test_the_stepped_schedule_halves_every_30_of_100_epochs():
    assert course("stepped", n_steps=100) == [0.5 ** (epoch // 30) for epoch in range(100)]


@pytest.mark.parametrize("kind", ["paper", "released", "stepped", "cosine"])
def test_a_decaying_schedule_never_rises(kind):
    factors = course(kind)
    assert all(later <= earlier for earlier, later in pairwise(factors))


def test_one_cycle_rises_to_one_and_ends_near_zero():
    factors = course("one_cycle", n_steps=100)
    assert factors[0] == pytest.approx(1 / 25)
    assert max(factors) == pytest.approx(1)
    assert factors.index(max(factors)) == 30
    assert factors[-1] < 0.01


def test_warm_up_rises_linearly_over_its_share_of_the_steps():
    assert course("constant", n_steps=10, warmup=0.4) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1])
