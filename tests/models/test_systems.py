"""Contract tests over the paper's eight systems, each in the paper's own configuration."""

import copy

import numpy as np
import pytest
import torch

from harness.config.literature import SYSTEMS as NAMES
from harness.config.trial import SYSTEMS
from harness.models.build import Target
from harness.training.fused import complete
from harness.training.learner import make_predictor
from harness.training.losses import masked_bce
from tests.conftest import LABELS
from tests.support.systems import CPU, config_of, data_of, figures, learner_of

NETWORKS = [name for name in NAMES if name != "random_forest"]


def test_every_kind_of_system_is_among_the_eight():
    assert {config_of(name).system.kind for name in NAMES} == set(SYSTEMS)


class Trained:
    """A system trained for two epochs, with its state, weights and predictions after the first."""

    def __init__(self, name, backbone):
        self.name, self.data = name, data_of(name)
        self.learner = learner_of(name, backbone, self.data)
        run = self.learner.run()
        first = next(run)
        self.state, self.weights = copy.deepcopy((self.learner.state(), self.learner.weights()))
        self.predictions = self.learner.predict(self.data.validation)
        self.head, self.figures = figures([first]), figures([first, *run])


@pytest.fixture(scope="module", params=NAMES)
def trained(request, tiny_backbone):
    return Trained(request.param, tiny_backbone)


class TestEverySystem:
    def test_its_losses_are_finite_and_its_predictions_probabilities(self, trained):
        assert trained.figures[-1][0] == 2
        assert all(np.isfinite(epoch[2:4]).all() for epoch in trained.figures)
        found = trained.learner.predict(trained.data.validation)
        assert found.shape == (len(trained.data.validation), len(LABELS))
        assert found.dtype == np.float32
        assert 0 <= found.min() < found.max() <= 1

    def test_it_predicts_the_same_twice_and_is_not_changed_by_it(self, trained):
        before = copy.deepcopy(trained.learner.weights())
        torch.manual_seed(1)
        one = trained.learner.predict(trained.data.validation)
        torch.manual_seed(2)
        assert np.array_equal(trained.learner.predict(trained.data.validation), one)
        assert all(torch.equal(before[key], value) for key, value in trained.learner.weights().items())

    def test_the_same_seed_gives_the_same_figures_whatever_was_drawn_before(self, trained, tiny_backbone):
        torch.manual_seed(999)
        np.random.seed(999)
        data = data_of(trained.name)
        assert figures(learner_of(trained.name, tiny_backbone, data).run()) == trained.figures
        other = learner_of(trained.name, tiny_backbone, data, seed=2**40 + 1)
        assert figures([next(other.run())]) != trained.head

    def test_hidden_labels_change_nothing(self, trained, tiny_backbone):
        data = data_of(trained.name)
        for part in (data.train, data.validation):
            part.targets[~part.observed] = np.nan
        assert figures(learner_of(trained.name, tiny_backbone, data).run()) == trained.figures

    def test_restored_it_continues_bit_by_bit(self, trained, tiny_backbone, tmp_path):
        torch.save(trained.state, tmp_path / "state.pt")
        second = learner_of(trained.name, tiny_backbone, trained.data)
        torch.manual_seed(5)
        second.restore(torch.load(tmp_path / "state.pt", weights_only=True))
        assert [*trained.head, *figures(second.run())] == trained.figures
        for one, two in zip(tensors(trained.learner.state()), tensors(second.state()), strict=True):
            assert torch.equal(one, two)

    def test_restored_after_its_last_epoch_it_has_nothing_left_to_do(self, trained, tiny_backbone):
        again = learner_of(trained.name, tiny_backbone, trained.data)
        again.restore(trained.learner.state())
        assert list(again.run()) == []
        part = trained.data.validation
        assert np.array_equal(again.predict(part), trained.learner.predict(part))

    def test_a_state_of_another_configuration_is_refused(self, trained, tiny_backbone):
        change = {"system/max_depth": 3} if trained.name == "random_forest" else {"optimiser/lr": 7e-3}
        other = learner_of(trained.name, tiny_backbone, trained.data, **change)
        with pytest.raises(ValueError, match="written by another configuration"):
            other.restore(trained.state)

    def test_weights_kept_from_an_epoch_predict_as_they_did(self, trained, tiny_backbone):
        backbone = tiny_backbone if trained.data.inputs.name == "log_mel" else None
        predict = make_predictor(
            trained.learner.config, trained.weights, backbone=backbone, target=Target.of(trained.data), device=CPU
        )
        assert np.array_equal(predict(trained.data.validation), trained.predictions)


@pytest.mark.parametrize("name", NETWORKS)
class TestEveryNetwork:
    def test_a_hidden_label_carries_no_gradient(self, name, tiny_backbone, monkeypatch):
        changes = {"teacher/weight": 0.0} if name == "mean_teacher" else {}
        learner = learner_of(name, tiny_backbone, data_of(name), **changes)
        seen = []

        def watched(logits, *rest):
            logits.retain_grad()
            seen.append(logits)
            return masked_bce(logits, *rest)

        monkeypatch.setattr("harness.training.trainer.masked_bce", watched)
        clips = next(learner._batches())
        learner.model.train()
        complete(learner._step(learner.data.train.batch(clips, CPU), 0))
        observed = torch.from_numpy(learner.data.train.observed[clips])
        assert (seen[0].grad[observed] != 0).any()
        assert (seen[0].grad[~observed] == 0).all()

    def test_bfloat16_training_stays_near_float32(self, name, tiny_backbone):
        exact, rough = (
            next(learner_of(name, tiny_backbone, data_of(name), precision=p).run()).train_loss for p in ("fp32", "bf16")
        )
        assert rough == pytest.approx(exact, rel=0.05)
        assert rough != exact


@pytest.mark.parametrize("name", ["finetune", "cnn_baseline", "mean_teacher"])
def test_exactly_what_learns_moves_in_two_steps(name, tiny_backbone):
    changes = {} if name == "mean_teacher" else {"normalisation/kind": "learned"}
    size = config_of(name).training.batch_size
    data = data_of(name, n_train=2 * size)
    learner = learner_of(name, tiny_backbone, data, **changes)
    frozen = {key: tensor.clone() for key, tensor in tiny_backbone.state_dict().items()}
    before = {key: p.detach().clone() for key, p in learner.model.named_parameters()}
    complete(learner._train_epoch())
    assert [key for key, p in learner.model.named_parameters() if torch.equal(p, before[key])] == []
    assert all(torch.equal(frozen[key], tensor) for key, tensor in tiny_backbone.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in tiny_backbone.parameters())


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("finetune", {"optimiser/lr": 1e-3, "normalisation/kind": "dataset"}),
        ("cnn_baseline", {"optimiser/lr": 2e-2, "normalisation/kind": "dataset"}),
        ("mean_teacher", {"optimiser/lr": 1e-2, "training/batch_size": 8, "system/dropout": 0.2}),
        ("random_forest", {}),
    ],
)
def test_the_systems_without_a_frozen_backbone_learn_what_can_be_heard(name, changes, tiny_backbone):
    results = list(learner_of(name, tiny_backbone, data_of(name), epochs=10, **changes).run())
    assert max(r.scores.macro_f1 for r in results) > 0.65


def tensors(state):
    """Yield every tensor of nested mappings and lists, in order."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for value in state.values() if isinstance(state, dict) else state:
            yield from tensors(value)
