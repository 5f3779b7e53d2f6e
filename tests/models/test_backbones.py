"""A backbone from outside: another architecture with another front end, added to the registry alone."""

import numpy as np
import pytest
import torch
from torch import nn

from harness.data.batches import StudyData
from harness.features.inputs import LogMel
from harness.features.log_mel import FrontEnd
from harness.models.backbones import BACKBONES, Family, backbone_digest, load_backbone, origin_of
from tests.conftest import LABELS, make_data
from tests.support.systems import learner_of

FRONT_END = FrontEnd(sample_rate=8000, n_mels=48, n_frames=20, window_ms=40.0, hop_ms=20.0)


class MeanPool(nn.Module):
    """The mean over frames, a linear layer, and a source head of six labels."""

    input_shape = (FRONT_END.n_frames, FRONT_END.n_mels)
    front_end = FRONT_END
    source_labels = ("accordion", "banjo", "double bass", "cello", "drum", "voice")
    embed_dim = 16

    def __init__(self, name):
        super().__init__()
        self.settings = {"kind": "mean_pool", "name": name}
        self.layer, self.head = nn.Linear(FRONT_END.n_mels, 16), nn.Linear(16, 6)

    def embed(self, spectrogram):
        return self.layer(spectrogram.mean(dim=1)).tanh()

    def logits(self, embedding):
        return self.head(embedding)

    def saves_memory(self, spectrogram):
        return False

    def freeze(self):
        return self.eval().requires_grad_(False)

    def trainable_copy(self):
        copied = MeanPool(self.settings["name"])
        copied.load_state_dict(self.state_dict())
        del copied.head
        return copied


def open_mean_pool(name):
    torch.manual_seed(0)
    return MeanPool(name).freeze()


@pytest.fixture
def pooled():
    BACKBONES.add("pool", Family(open_mean_pool))
    yield load_backbone("pool:small")
    BACKBONES.remove("pool")


@pytest.fixture
def data():
    """Return clips of the toy front end, in which each label raises its own band."""
    made = make_data(seed=0)
    rng = np.random.default_rng(0)
    n_clips = len(made.train) + len(made.validation)
    positive = rng.random((n_clips, len(LABELS))) < 0.5
    features = rng.normal(-6, 1, (n_clips, FRONT_END.n_frames, FRONT_END.n_mels))
    features += 4 * np.repeat(positive, FRONT_END.n_mels // len(LABELS), axis=1)[:, None, :]
    parts = []
    for part in (made.train, made.validation):
        observed = np.ones((len(part), len(LABELS)), np.bool_)
        targets = positive[part.rows].astype(np.float32)
        parts.append(type(part)(features.astype(np.float16), part.rows, targets, observed))
    return StudyData(LABELS, *parts, -6.0, 2.0, LogMel(FRONT_END))


def test_it_is_opened_by_its_family_and_has_a_digest_of_its_own(pooled):
    assert pooled.front_end == FRONT_END
    assert origin_of("pool:small") == {}
    assert backbone_digest(pooled) == backbone_digest(load_backbone("pool:small"))
    assert backbone_digest(pooled) != backbone_digest(load_backbone("pool:large"))
    assert load_backbone("pool").settings["name"] == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"reprogrammer/kind": "noise"},
        {"reprogrammer/kind": "unet", "reprogrammer/depth": 2},
        {"mapper/kind": "fc"},
        {"mapper/kind": "many_to_one", "mapper/is_calibrated": True},
        {"mapper/kind": "many_to_one", "mapper/is_calibrated": True, "mapper/assignment": "semantic"},
    ],
)
def test_a_trial_trains_around_it_and_leaves_it_untouched(pooled, data, changes):
    before = backbone_digest(pooled)
    name = "unet" if changes.get("reprogrammer/kind") == "unet" else "noise"
    learner = learner_of(name, pooled, data, epochs=4, **{"optimiser/lr": 2e-2, **changes})
    results = list(learner.run())
    assert results[-1].train_loss < results[0].train_loss
    assert backbone_digest(pooled) == before
    assert all(parameter.grad is None for parameter in pooled.parameters())
    assert learner.predict(data.validation).shape == (len(data.validation), len(LABELS))


def test_fine_tuning_learns_a_copy_of_it(pooled, data):
    before = backbone_digest(pooled)
    learner = learner_of("finetune", pooled, data, **{"optimiser/lr": 1e-2})
    list(learner.run())
    assert backbone_digest(pooled) == before
    assert not torch.equal(learner.model.backbone.layer.weight, pooled.layer.weight)
    assert not hasattr(learner.model.backbone, "head")
