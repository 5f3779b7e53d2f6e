"""Fine-tuning and the CNN without AST: what they are made of, what they leave alone, how fast their parts learn."""

import pytest
import torch

from harness.models.systems import CnnModel, FineTuned
from tests.conftest import make_data
from tests.support.systems import learner_of


def finetuned(backbone, **changes):
    return learner_of("finetune", backbone, make_data(seed=0), epochs=2, **changes)


def test_fine_tuning_learns_a_copy_and_leaves_the_workers_backbone_as_it_is(tiny_backbone):
    before = {key: tensor.clone() for key, tensor in tiny_backbone.state_dict().items()}
    versions = [tensor._version for tensor in tiny_backbone.state_dict().values()]
    learner = finetuned(tiny_backbone, **{"optimiser/lr": 1e-2})
    list(learner.run())
    assert all(torch.equal(before[key], tensor) for key, tensor in tiny_backbone.state_dict().items())
    assert [tensor._version for tensor in tiny_backbone.state_dict().values()] == versions
    assert not any(p.requires_grad or p.grad is not None for p in tiny_backbone.parameters())
    assert not tiny_backbone.training
    storages = {p.data_ptr() for p in tiny_backbone.parameters()}
    assert not storages & {p.data_ptr() for p in learner.model.parameters()}


def test_fine_tuning_starts_from_the_backbones_weights_and_has_no_source_head(tiny_backbone):
    model = FineTuned(torch.nn.Identity(), tiny_backbone, n_labels=4)
    spectrogram = torch.randn(2, 32, 32)
    taken = model.backbone.state_dict()
    assert all(torch.equal(tensor, tiny_backbone.state_dict()[name]) for name, tensor in taken.items())
    # the same weights elsewhere in memory: some processors' kernels then differ in the last bit
    assert torch.allclose(model.backbone.embed(spectrogram), tiny_backbone.embed(spectrogram), atol=1e-5)
    head = sum(p.numel() for part in (tiny_backbone.head_norm, tiny_backbone.head) for p in part.parameters())
    whole = sum(p.numel() for p in tiny_backbone.parameters())
    assert finetuned(tiny_backbone).parameter_counts() == {
        "normalisation": 0,
        "backbone": whole - head,
        "mapper": 64 + 33 * 4,
    }
    assert not any("head" in key for key in model.state_dict())


def test_training_and_evaluation_mode_of_a_fine_tuned_ast_are_the_same(tiny_backbone):
    model = FineTuned(torch.nn.Identity(), tiny_backbone, n_labels=4)
    spectrogram = torch.randn(2, 32, 32)
    assert torch.equal(model.train()(spectrogram, None), model.eval()(spectrogram, None))


@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_the_backbone_learns_at_its_share_of_the_rate_in_every_step(factor, tiny_backbone):
    changes = {"system/backbone_lr_factor": factor, "schedule/kind": "one_cycle"}
    learner = finetuned(tiny_backbone, **changes)
    backbone = {id(p) for p in learner.model.backbone.parameters()}
    rates, step = [], learner._step

    def watched(batch, index):
        rates.append({id(p): group["lr"] for group in learner._optimiser.param_groups for p in group["params"]})
        return step(batch, index)

    learner._step = watched
    results = list(learner.run())
    assert len({tuple(set(rate.values())) for rate in rates}) > 10
    for rate in rates:
        assert set(rate) == {id(p) for p in learner.model.parameters()}
        (fast,) = {lr for p, lr in rate.items() if p not in backbone}
        assert {lr for p, lr in rate.items() if p in backbone} == {fast * factor}
    assert results[-1].lr == fast


def test_a_restored_fine_tuning_keeps_its_rates_apart(tiny_backbone):
    changes = {"system/backbone_lr_factor": 0.1}
    one, two = (finetuned(tiny_backbone, **changes) for _ in range(2))
    next(one.run())
    two.restore(one.state())
    list(two.run())
    fast, slow = (group["lr"] for group in two._optimiser.param_groups)
    assert slow == fast * 0.1


@pytest.mark.parametrize(("width", "total"), [(8, 16_524), (4, 4_528)])
def test_the_cnn_has_as_many_parameters_as_its_width_says(width, total):
    model = CnnModel(torch.nn.Identity(), 20, width=width, dropout=0.0)
    assert sum(parameter.numel() for parameter in model.parameters()) == total


@pytest.mark.parametrize("size", [(1024, 128), (256, 128), (48, 32), (16, 16), (9, 4), (1, 5)])
def test_the_cnn_takes_spectrograms_of_any_size(size):
    model = CnnModel(torch.nn.Identity(), 4, width=2, dropout=0.1).eval()
    assert model(torch.randn(2, *size), None).shape == (2, 4)


def test_the_cnn_gives_the_linear_layer_the_mean_and_the_maximum_of_each_map():
    model = CnnModel(torch.nn.Identity(), 4, width=2, dropout=0.0).eval()
    model.mapper = torch.nn.Identity()
    spectrogram = torch.randn(2, 64, 32)
    maps = model.blocks(spectrogram.unsqueeze(1)).flatten(2)
    assert torch.allclose(model(spectrogram, None), torch.cat([maps.mean(2), maps.max(2).values], dim=1))
