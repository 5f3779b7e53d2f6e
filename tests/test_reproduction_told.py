"""What the report of a reproduction tells of an evaluation, from made-up seeds."""

from dataclasses import replace

import pytest

from harness.config import TrialConfig
from harness.evaluation.result import ConfigurationResult, SeedResult
from harness.params import paper_config
from harness.reproduction.told import system_result
from harness.reproduction.wanted import Reproduction
from harness.spec import DataSpec

LABELS = ("banjo", "cello")
WANTED = Reproduction("r", "studies", DataSpec(), ("none", "unet"), seeds=2, trials=8, epochs=12, backbone="ast-nano")


def seed(index, *, macro_f1=0.5, params=10, **test):
    figures = {"macro_f1": macro_f1, "positive_f1": 0.4, "map": 0.3, "f1_by_label": dict.fromkeys(LABELS, macro_f1)}
    return SeedResult(index, index, "done", {**figures, **test}, figures, params, 3, 2.0, 1, "")


def found(name, config=None, *, seeds=2, params=10, **test):
    config = config or paper_config(name)
    made = tuple(seed(i, macro_f1=0.5 + 0.01 * i, params=params, **test) for i in range(seeds))
    return ConfigurationResult(f"r.{name}", 3, config.name, config.digest(), config.to_paths(), {}, 1, made)


def test_a_row_says_which_configuration_it_is():
    paths = {"reprogrammer/kind": "cnn", "reprogrammer/width": 3, "mapper/kind": "fc", "optimiser/lr": 0.01}
    row = system_result(WANTED, "cnn", found("cnn", TrialConfig.from_paths(paths)))
    assert row.configuration == "cnn depth 2 width 3, normalisation none, fc mapper, paper 1.0e-02"
    assert row.count_note == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unet", "unet depth 3 width 4, normalisation none, linear mapper, paper 5.0e-05 (the paper's)"),
        ("cnn_baseline", "cnn_baseline width 8, normalisation none, paper 5.0e-05 (the paper's)"),
        ("random_forest", "random_forest n trees 100 max depth 8 (the paper's)"),
    ],
)
def test_the_papers_configuration_is_said_to_be(name, words):
    assert system_result(WANTED, name, found(name)).configuration == words


def test_why_the_papers_count_differs_is_told_only_of_the_papers_configuration_on_its_backbone():
    whole = replace(WANTED, backbone="ast-base384")
    count = {"params": 86_204_180}
    assert "two 1000-class DeiT heads" in system_result(whole, "finetune", found("finetune", **count)).count_note
    assert system_result(WANTED, "finetune", found("finetune")).count_note == ""
    assert system_result(whole, "unet", found("unet", params=18_201)).count_note == ""
    assert "no gradient reaches" in system_result(WANTED, "mean_teacher", found("mean_teacher")).count_note
