"""Configurations: read from paths, checked, written back."""

import pytest

from harness.config.components import LinearMapper
from harness.config.literature import SYSTEMS as PUBLISHED
from harness.config.trial import TrialConfig
from search_spaces import PRESETS, names
from tests.support.drawn import paper_configs


def test_the_default_configuration_survives_a_round_trip():
    config = TrialConfig()
    assert TrialConfig.from_paths(config.to_paths()) == config


@pytest.mark.parametrize("space", names())
def test_the_papers_configurations_survive_a_round_trip(space):
    for config in paper_configs(space):
        assert TrialConfig.from_paths(config.to_paths()) == config


@pytest.mark.parametrize("system", PUBLISHED)
def test_a_system_goes_by_the_name_of_its_space(system):
    assert [config.name for config in paper_configs(system)] == [system]


@pytest.mark.parametrize("system", PUBLISHED)
def test_defaults_are_the_papers_values(system):
    (config,) = paper_configs(system)
    assert config.system == type(config.system)()
    assert config.reprogrammer == type(config.reprogrammer)()
    assert config.mapper == LinearMapper()
    if config.system.inputs == "log_mel":
        recipe = TrialConfig.from_paths(PRESETS["paper"].paths)
        for part in ("normalisation", "front_end", "augmentation", "optimiser", "schedule", "training"):
            assert getattr(config, part) == getattr(recipe, part) == getattr(TrialConfig(), part)


def test_every_system_of_the_paper_is_a_configuration_of_the_space_of_all():
    assert {config.name for config in paper_configs("all")} == set(PUBLISHED)


def test_only_paths_that_mean_something_are_written():
    assert TrialConfig.from_paths({"system/kind": "random_forest"}).to_paths() == {
        "system/kind": "random_forest",
        "system/n_trees": 100,
        "system/max_depth": 8,
    }
    parts = {path.partition("/")[0] for path in TrialConfig.from_paths({"system/kind": "attention"}).to_paths()}
    assert parts == {"system", "teacher", "optimiser", "schedule", "training"}


def test_the_digest_tells_two_configurations_apart_by_one_value():
    one, other = (TrialConfig.from_paths({"optimiser/lr": lr}) for lr in (1e-3, 2e-3))
    assert one.digest() == TrialConfig.from_paths({"optimiser/lr": 1e-3}).digest()
    assert one.digest() != other.digest()


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ({"reprogrammer/kind": "unet", "reprogrammer/depth": "3"}, r"reprogrammer/depth='3': must be a whole number"),
        ({"reprogrammer/kind": "unet", "reprogrammer/depth": 3.0}, r"reprogrammer/depth=3\.0: must be a whole number"),
        ({"reprogrammer/kind": "unet", "reprogrammer/depth": True}, r"reprogrammer/depth=True: must be a whole number"),
        ({"reprogrammer/kind": "cnn", "reprogrammer/is_residual": 1}, r"is_residual=1: must be true or false"),
        ({"optimiser/lr": "fast"}, r"optimiser/lr='fast': must be a number"),
        ({"optimiser/lr": None}, r"optimiser/lr=None: must be a number"),
        ({"normalisation/kind": 1}, r"normalisation/kind=1: must be"),
        ({"depth": 3}, r"depth=3: unknown path; its first part must be one of system, reprogrammer, mapper"),
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
        ({"system/kind": "svm"}, r"system/kind='svm': must be one of reprogramming, finetune, cnn_baseline, attention"),
        (
            {"system/kind": "random_forest", "optimiser/lr": 1e-3},
            r"optimiser/lr=0\.001: means nothing with system/kind=random_forest, whose other parts are none",
        ),
        (
            {"system/kind": "finetune", "reprogrammer/kind": "unet"},
            r"reprogrammer/kind='unet': means nothing with system/kind=finetune, whose other parts are normalisation",
        ),
        ({"system/kind": "finetune", "system/backbone_lr_factor": 0.0}, r"backbone_lr_factor=0\.0: must be above 0"),
        ({"system/kind": "cnn_baseline", "system/width": 0}, r"system/width=0: must be at least 1"),
        ({"system/kind": "attention", "system/dropout": 1.0}, r"system/dropout=1\.0: must be 0 to below 1"),
        ({"system/kind": "random_forest", "system/max_depth": 0}, r"system/max_depth=0: must be at least 1"),
        ({"system/width": 8}, r"system/width=8: unknown path with system/kind=reprogramming; valid ones: none"),
        ({"front_end/via_hz": 22}, r"front_end/via_hz=22: must be 0, for no detour, or at least 1000"),
        ({"augmentation/kind": "mixup"}, r"augmentation/kind='mixup': must be one of none, specaugment"),
        ({"augmentation/kind": "specaugment", "augmentation/max_mels": 0}, r"augmentation/max_mels=0: must be at"),
        ({"system/kind": "attention", "teacher/kind": "mean", "teacher/decay": 1.0}, r"teacher/decay=1\.0: must be 0"),
        ({"system/kind": "attention", "teacher/kind": "mean", "teacher/weight": -1}, r"teacher/weight=-1: must be at"),
    ],
)
def test_what_no_trial_can_be_is_refused_by_its_path(paths, message):
    with pytest.raises(ValueError, match=message):
        TrialConfig.from_paths(paths)


def test_many_to_one_without_reprogramming_is_fine_once_something_learns():
    for extra in ({"mapper/is_calibrated": True}, {"normalisation/kind": "learned"}, {"reprogrammer/kind": "noise"}):
        TrialConfig.from_paths({"mapper/kind": "many_to_one", **extra})


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_a_recipe_and_states_all_of_it(preset):
    config = TrialConfig.from_paths(PRESETS[preset].paths)
    recipe = {path for path in config.to_paths() if not path.startswith(("system/", "reprogrammer/", "mapper/"))}
    assert recipe == set(PRESETS[preset].paths)
