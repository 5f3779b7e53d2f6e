"""Rows, differences and notes of a reproduction's report, from made-up seeds."""

from dataclasses import replace

import pytest

from harness.config.study import DataSpec
from harness.config.trial import TrialConfig
from harness.evaluation.result import ConfigurationResult, EvaluationResult, SeedResult
from harness.params import paper_config
from harness.reproduction.report import differences, system_result
from harness.reproduction.spec import Reproduction

LABELS = ("banjo", "cello")
REPRODUCTION = Reproduction(
    "r", "studies", DataSpec(), ("none", "unet"), seeds=2, trials=8, epochs=12, backbone="ast-nano"
)


def seed(index, *, macro_f1=0.5, params=10, **test):
    figures = {"macro_f1": macro_f1, "positive_f1": 0.4, "map": 0.3, "f1_by_label": dict.fromkeys(LABELS, macro_f1)}
    return SeedResult(index, index, "done", {**figures, "n_clips": 5, **test}, figures, params, 3, 2.0, 1, "")


def found(name, config=None, *, seeds=2, first=0, params=10, **test):
    config = config or paper_config(name)
    made = tuple(seed(i + first, macro_f1=0.5 + 0.01 * i, params=params, **test) for i in range(seeds))
    return ConfigurationResult(f"r.{name}", 3, config.name, config.digest(), config.to_paths(), {}, 1, made)


def test_a_row_names_its_configuration():
    paths = {"reprogrammer/kind": "cnn", "reprogrammer/width": 3, "mapper/kind": "fc", "optimiser/lr": 0.01}
    row = system_result(REPRODUCTION, "cnn", found("cnn", TrialConfig.from_paths(paths)))
    assert row.configuration == "cnn depth 2 width 3, normalisation none, fc mapper, paper 1.0e-02"
    assert row.count_note == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unet", "unet depth 3 width 4, normalisation none, linear mapper, paper 5.0e-05 (the paper's)"),
        ("cnn_baseline", "cnn_baseline width 8, normalisation none, paper 5.0e-05 (the paper's)"),
        ("random_forest", "random_forest trees 100 depth 8 (the paper's)"),
    ],
)
def test_the_papers_configuration_is_marked(name, words):
    assert system_result(REPRODUCTION, name, found(name)).configuration == words


def test_a_difference_from_the_papers_count_is_explained_for_its_configuration_on_its_backbone():
    whole = replace(REPRODUCTION, backbone="ast-base384")
    count = {"params": 86_204_180}
    assert "two 1000-class DeiT heads" in system_result(whole, "finetune", found("finetune", **count)).count_note
    assert system_result(REPRODUCTION, "finetune", found("finetune")).count_note == ""
    assert system_result(whole, "unet", found("unet", params=18_201)).count_note == ""
    assert "no gradient reaches" in system_result(REPRODUCTION, "mean_teacher", found("mean_teacher")).count_note


def evaluated(*configurations):
    return EvaluationResult("r.evaluation", REPRODUCTION.place, configurations, LABELS, 0.3, (), is_interrupted=False)


def test_differences_to_the_linear_head_stand_first_with_their_interval():
    result = evaluated(found("unet"), found("cnn"), found("none"))
    lines = differences(REPRODUCTION, result).splitlines()[2:]
    assert lines[0] == "- unet over none: +0.000, 95 % interval +0.000 to +0.000"
    assert [line.split(":")[0] for line in lines] == ["- unet over none", "- cnn over none", "- unet over cnn"]


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (found("random_forest", n_clips=6, clips="b"), "their test clips are not the same"),
        (found("random_forest", seeds=0), "r.random_forest trial 3 has no finished run"),
        (found("random_forest", first=5), "they have no seed in common"),
    ],
)
def test_systems_that_could_not_be_paired_are_named(other, why):
    result = evaluated(found("none", n_clips=5, clips="a"), other)
    assert f"- none over random_forest: not paired, since {why}" in differences(REPRODUCTION, result)
