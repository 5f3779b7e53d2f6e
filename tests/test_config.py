"""Configurations: read from paths, checked, written back."""

import pytest

from harness.config import MAPPERS, REPROGRAMMERS, TrialConfig
from search_spaces import load, names


def test_the_default_configuration_survives_a_round_trip():
    config = TrialConfig()
    assert TrialConfig.from_paths(config.to_paths()) == config


@pytest.mark.parametrize("space", names())
def test_the_papers_configurations_survive_a_round_trip(space):
    for paper in load(space).paper:
        kind = {} if "reprogrammer/kind" in paper else {"reprogrammer/kind": space}
        config = TrialConfig.from_paths({**paper, **kind})
        assert TrialConfig.from_paths(config.to_paths()) == config


def test_the_digest_tells_two_configurations_apart_by_one_value():
    one, other = (TrialConfig.from_paths({"optimiser/lr": lr}) for lr in (1e-3, 2e-3))
    assert one.digest() == TrialConfig.from_paths({"optimiser/lr": 1e-3}).digest()
    assert one.digest() != other.digest()


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ({"depth": 3}, r"depth=3: unknown path; its first part must be one of reprogrammer, mapper"),
        ({"reprogrammer/kind": "gan"}, r"reprogrammer/kind='gan': must be one of none, noise, cnn, unet"),
        ({"reprogrammer/kind": "noise", "reprogrammer/depth": 3}, r"reprogrammer/depth=3: unknown path with .*noise"),
        ({"reprogrammer/kind": "unet", "reprogrammer/depth": 1}, r"reprogrammer/depth=1: must be at least 2"),
        ({"reprogrammer/kind": "cnn", "reprogrammer/kernel": 4}, r"reprogrammer/kernel=4: must be odd"),
        ({"reprogrammer/kind": "cnn", "reprogrammer/norm": "group"}, r"reprogrammer/norm='group': must be one of"),
        ({"reprogrammer/kind": "noise", "reprogrammer/init_scale": -1}, r"init_scale=-1: must be at least 0"),
        (
            {"reprogrammer/kind": "unet", "reprogrammer/init_scale": 0.0},
            r"init_scale=0\.0 with reprogrammer/output_activation=relu: the reprogrammer would never learn",
        ),
        (
            {"reprogrammer/kind": "cnn", "reprogrammer/init_scale": 0, "reprogrammer/output_activation": "relu"},
            r"init_scale=0 with reprogrammer/output_activation=relu: the reprogrammer would never learn",
        ),
        ({"mapper/kind": "many_to_one"}, r"nothing in this trial learns"),
        ({"mapper/kind": "fc", "mapper/reads": "audio"}, r"mapper/reads='audio': must be one of logits"),
        ({"schedule/kind": "step"}, r"schedule/kind='step': must be one of paper"),
        ({"schedule/warmup": 0.9}, r"schedule/warmup=0\.9: a fraction of the steps"),
        ({"optimiser/lr": 0.0}, r"optimiser/lr=0\.0: must be above 0"),
        ({"optimiser/lr": float("nan")}, r"optimiser/lr=nan: must be above 0"),
        ({"optimiser/beta2": 1.0}, r"optimiser/beta2=1\.0: must be 0 to below 1"),
        ({"normalisation/kind": "batch"}, r"normalisation/kind='batch': must be one of none, audioset"),
        ({"training/batch_size": 0}, r"training/batch_size=0: must be at least 1"),
        ({"training/targets": "fuzzy"}, r"training/targets='fuzzy': must be one of hard, soft"),
    ],
)
def test_what_no_trial_can_be_is_refused_by_its_path(paths, message):
    with pytest.raises(ValueError, match=message):
        TrialConfig.from_paths(paths)


def test_many_to_one_without_reprogramming_is_fine_once_something_learns():
    for extra in ({"mapper/is_calibrated": True}, {"normalisation/kind": "learned"}, {"reprogrammer/kind": "noise"}):
        TrialConfig.from_paths({"mapper/kind": "many_to_one", **extra})


@pytest.mark.parametrize("kinds", [REPROGRAMMERS, MAPPERS])
def test_every_part_is_listed_under_its_own_kind(kinds):
    assert {name: cls.kind for name, cls in kinds.items()} == {name: name for name in kinds}
