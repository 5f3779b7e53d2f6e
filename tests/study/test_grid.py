"""The table of a study whose space is one."""

import pytest
from optuna.trial import TrialState, create_trial

from harness.config.trial import TrialConfig
from harness.study.__main__ import default_trials
from harness.study.records import TrialRecord
from harness.study.results import axes_of, grid_of, grid_table, mean_and_spread
from search_spaces import load
from tests.support.drawn import paper_configs

SPACE = load("normalisation")


def trial(config, value, *, state=TrialState.COMPLETE):
    attributes = TrialRecord(paths=config.to_paths()).attributes()
    value = value if state == TrialState.COMPLETE else None
    return create_trial(state=state, value=value, user_attrs=attributes, intermediate_values={1: value or 0.0})


def with_lr(config, lr):
    return TrialConfig.from_paths({**config.to_paths(), "optimiser/lr": lr})


def test_what_is_fixed_is_the_tables_own():
    fixed = {"normalisation/kind": "none", "optimiser/lr": 3e-3}
    config = with_lr(paper_configs("normalisation")[0], 3e-3)
    grid = grid_of(SPACE, [trial(config, 0.4)], fixed=fixed)
    assert len(grid) == 5
    assert grid["no reprogrammer", "none"] == [0.4]
    assert default_trials(SPACE, ["normalisation/kind=none", "optimiser/lr=3e-3"]) == 15


def test_every_cell_is_there_in_the_tables_order_with_the_figures_of_its_finished_trials():
    configs = paper_configs("normalisation")
    trials = [trial(configs[0], 0.5), trial(configs[20], 0.7), trial(configs[1], 0.6)]
    trials.append(trial(configs[2], 0.9, state=TrialState.PRUNED))
    trials.append(trial(with_lr(configs[0], 3e-3), 0.1))  # no repeat of the first
    grid = grid_of(SPACE, trials, fixed={})
    assert grid["no reprogrammer", "none"] == [0.5, 0.7]
    assert grid["no reprogrammer", "AudioSet"] == [0.6]
    assert grid["no reprogrammer", "data set"] == []
    rows, columns = axes_of(grid)
    assert rows == ["no reprogrammer", "noise", "CNN", "CNN + BatchNorm", "U-Net"]
    assert columns == ["none", "AudioSet", "data set", "learned affine"]
    assert len(grid) == 20
    assert grid_table(grid, title="t").row_count == 5


@pytest.mark.parametrize(("values", "words"), [([], "-"), ([0.5], "0.500 (1)"), ([0.5, 0.7], "0.600 ± 0.141 (2)")])
def test_a_cell_says_its_mean_spread_and_number(values, words):
    assert mean_and_spread(values) == words
