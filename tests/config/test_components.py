"""Registries of components: the built-in members, and toy members that are added to the registry alone."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from harness.common.registry import Registry
from harness.config.components import Component
from harness.config.trial import AUGMENTATIONS, MAPPERS, REPROGRAMMERS, SYSTEMS, TEACHERS, TrialConfig
from harness.training.learner import make_learner
from tests.conftest import make_data
from tests.support.systems import learner_of


@dataclass(frozen=True)
class GainConfig:
    kind: ClassVar[str] = "gain"
    start: float = 1.0


@dataclass(frozen=True)
class ScaleMapperConfig:
    kind: ClassVar[str] = "scaled_sum"


class Gain(nn.Module):
    """Multiplies each mel bin by a learned gain."""

    def __init__(self, *, n_frames, n_mels, start):
        super().__init__()
        self.gain = nn.Parameter(torch.full((n_mels,), start))

    def forward(self, spectrogram):
        return spectrogram * self.gain


class ScaledSum(nn.Module):
    """Gives each label a learned multiple of the embedding's sum."""

    def __init__(self, *, n_labels, **_):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(n_labels))

    def forward(self, embedding, backbone):
        return embedding.sum(dim=-1, keepdim=True) * self.scale


@dataclass(frozen=True)
class LouderConfig:
    kind: ClassVar[str] = "louder"
    by: float = 1.0


def louder(*, inputs, by):
    """Raise a batch by the config's field; the inputs are those of the study's data."""
    assert inputs.name == "log_mel"
    return lambda log_mel: log_mel + by


@pytest.fixture
def toys():
    REPROGRAMMERS.add("gain", Component(GainConfig, f"{__name__}:Gain"))
    MAPPERS.add("scaled_sum", Component(ScaleMapperConfig, f"{__name__}:ScaledSum"))
    yield {"reprogrammer/kind": "gain", "reprogrammer/start": 0.5, "mapper/kind": "scaled_sum", "optimiser/lr": 0.1}
    REPROGRAMMERS.remove("gain")
    MAPPERS.remove("scaled_sum")


@pytest.mark.parametrize("registry", [SYSTEMS, REPROGRAMMERS, MAPPERS, AUGMENTATIONS, TEACHERS])
def test_a_member_has_the_kind_it_is_registered_as_and_a_builder(registry):
    for kind, component in registry.items():
        assert component.config.kind == kind
        assert registry is TEACHERS or callable(component.builder)


def test_toy_members_are_trained_like_the_built_in_ones(toys, tiny_backbone):
    config = TrialConfig.from_paths(toys)
    assert config.name == "gain"
    assert config.to_paths()["reprogrammer/start"] == 0.5
    learner = make_learner(
        config,
        backbone=tiny_backbone,
        data=make_data(seed=0),
        epochs=1,
        seed=0,
        device=torch.device("cpu"),
        precision="fp32",
    )
    (epoch,) = learner.run()
    assert epoch.train_loss > 0
    weights = learner.weights()
    assert (weights["reprogrammer.gain"] != 0.5).all()
    assert weights["mapper.scale"].any()
    counts = learner.parameter_counts()
    assert (counts["reprogrammer"], counts["mapper"]) == (32, 4)  # mel bins and labels


def test_a_toy_config_is_checked_like_the_built_in_ones(toys):
    with pytest.raises(ValueError, match="reprogrammer/depth=2: unknown path with reprogrammer/kind=gain"):
        TrialConfig.from_paths({**toys, "reprogrammer/depth": 2})
    with pytest.raises(ValueError, match="must be one of none, noise, cnn, unet, gain"):
        TrialConfig.from_paths({"reprogrammer/kind": "gan"})


def test_a_toy_augmentation_changes_the_training_batches(tiny_backbone, monkeypatch):
    AUGMENTATIONS.add("louder", Component(LouderConfig, f"{__name__}:louder"))
    try:
        plain, raised = (
            learner_of("cnn", tiny_backbone, make_data(seed=0), epochs=1, **paths)
            for paths in ({}, {"augmentation/kind": "louder", "augmentation/by": 3.0})
        )
        trained = {plain: [], raised: []}
        for learner, batches in trained.items():
            rewrite = learner.model.rewrite
            monkeypatch.setattr(learner.model, "rewrite", _kept(rewrite, learner.model, batches))
            list(learner.run())
        assert torch.equal(torch.cat(trained[raised]), torch.cat(trained[plain]) + 3.0)
    finally:
        AUGMENTATIONS.remove("louder")


def _kept(rewrite, model, batches):
    """Return `rewrite`, which also keeps its inputs in training."""

    def keep(batch):
        if model.training:
            batches.append(batch.detach().clone())
        return rewrite(batch)

    return keep


def test_no_package_adds_a_teacher():
    assert not isinstance(TEACHERS, Registry)
    with pytest.raises(ValueError, match="teacher/kind='twin': must be one of none, mean"):
        TrialConfig.from_paths({"system/kind": "attention", "teacher/kind": "twin"})
