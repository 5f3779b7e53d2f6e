"""Fused training: each member of a group comes to its own figures, whoever shares the frozen backbone with it."""

import pytest
import torch

from harness.config.trial import TrialConfig
from harness.models.build import Target, build_model
from harness.training.fused import Embed, Group
from harness.training.trainer import Trainer
from tests.conftest import make_data

CPU = torch.device("cpu")
FOUR = [
    {"reprogrammer/kind": "unet", "reprogrammer/depth": 2, "training/batch_size": 8},
    {"reprogrammer/kind": "cnn", "mapper/kind": "fc", "training/batch_size": 5},
    {"reprogrammer/kind": "noise", "mapper/kind": "many_to_one", "mapper/assignment": "random"},
    {"reprogrammer/kind": "none", "normalisation/kind": "learned", "training/batch_size": 16},
]


class Member:
    """A training with its own random state, as a session has it."""

    def __init__(self, backbone, *, epochs=2, seed=0, **paths):
        data, config = make_data(seed=0), TrialConfig.from_paths({"optimiser/lr": 1e-2, **paths})
        model = build_model(config, backbone, Target.of(data), seed=seed, device=CPU)
        self.trainer = Trainer(model, backbone, data=data, config=config, epochs=epochs, seed=seed, device=CPU)
        self.training, self.passes, self.results = self.trainer.train(), 0, []

    def advance(self, answer):
        try:
            go_on = self.training.throw if isinstance(answer, Exception) else self.training.send
            found = go_on(answer)
        except StopIteration:
            found = None
        self.passes += isinstance(found, Embed)
        return found

    def losses(self):
        return torch.tensor([[result.train_loss, result.validation_loss] for result in self.results])

    def weights(self):
        return torch.cat([parameter.detach().flatten() for parameter in self.trainer.model.parameters()])


def run(*members):
    for member, result in Group(members):
        member.results.append(result)
    return members


@pytest.fixture
def embedded(tiny_backbone, monkeypatch):
    """Record the number of clips in each pass of the backbone that a gradient goes through."""
    sizes, embed = [], tiny_backbone.embed
    monkeypatch.setattr(tiny_backbone, "embed", lambda clips: (sizes.append(len(clips)), embed(clips))[1])
    return sizes


def test_a_group_of_four_trains_each_as_alone(tiny_backbone):
    """Rounding in float32 is the only difference: other heights of a matrix product may add up in another order."""
    together = run(*(Member(tiny_backbone, seed=seed, **paths) for seed, paths in enumerate(FOUR)))
    for seed, (paths, member) in enumerate(zip(FOUR, together, strict=True)):
        (alone,) = run(Member(tiny_backbone, seed=seed, **paths))
        assert len(member.results) == len(alone.results) == 2
        torch.testing.assert_close(member.losses(), alone.losses(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(member.weights(), alone.weights(), rtol=1e-3, atol=1e-4)


def test_batches_of_all_members_go_through_the_backbone_at_once(tiny_backbone, embedded):
    members = [Member(tiny_backbone, epochs=1, seed=seed, **FOUR[0]) for seed in range(3)]
    steps = -(-len(members[0].trainer.data.train) // 8)
    run(*members)
    assert embedded == [24] * steps + [64] * 3  # the validation clips of each follow
    assert all(member.passes == steps for member in members)


def test_a_member_that_learns_nothing_before_the_backbone_needs_no_gradient(tiny_backbone):
    member = Member(tiny_backbone, **{"reprogrammer/kind": "none"})
    first = member.advance(None)
    assert isinstance(first, Embed)
    assert not first.spectrogram.requires_grad
    with torch.no_grad():
        embedding = tiny_backbone.embed(first.spectrogram)
    assert isinstance(member.advance(embedding), Embed)  # of the next batch


@pytest.mark.parametrize("fault", ["nan", "error", "shape"])
def test_a_fault_in_one_member_leaves_the_others_bit_for_bit(tiny_backbone, fault):
    def three():
        return [Member(tiny_backbone, seed=seed, **FOUR[0]) for seed in range(3)]

    whole, faulty = three(), three()
    model = faulty[1].trainer.model
    if fault == "nan":
        with torch.no_grad():
            next(model.reprogrammer.parameters()).fill_(torch.nan)
    elif fault == "error":
        model.mapper.register_forward_hook(lambda *_: 1 / 0)
    else:  # the backbone refuses it in a pass that it shares with the others
        model.reprogrammer.register_forward_hook(lambda _module, _inputs, clips: clips[:, :-1])
    run(*whole)
    failed = []
    advance = faulty[1].advance

    def guarded(answer):
        try:
            return advance(answer)
        except Exception as error:
            failed.append(error)
            return None

    faulty[1].advance = guarded
    run(*faulty)
    assert len(failed) == 1
    for one, other in ((whole[0], faulty[0]), (whole[2], faulty[2])):
        assert torch.equal(one.losses(), other.losses())
        assert torch.equal(one.weights(), other.weights())


def test_members_join_and_leave_between_results(tiny_backbone):
    first, stopped, late = (Member(tiny_backbone, seed=seed, **FOUR[0]) for seed in range(3))
    group = Group([first, stopped])
    for member, result in group:
        member.results.append(result)
        if member is stopped:
            group.members.remove(stopped)
            group.members.append(late)
    assert [len(member.results) for member in (first, stopped, late)] == [2, 1, 2]
    (alone,) = run(Member(tiny_backbone, seed=2, **FOUR[0]))
    torch.testing.assert_close(late.losses(), alone.losses(), rtol=1e-4, atol=1e-5)


def test_the_frozen_backbone_keeps_no_gradient(tiny_backbone):
    before = {name: tensor.clone() for name, tensor in tiny_backbone.state_dict().items()}
    run(*(Member(tiny_backbone, epochs=1, seed=seed, **paths) for seed, paths in enumerate(FOUR)))
    assert all(parameter.grad is None for parameter in tiny_backbone.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny_backbone.state_dict().items())
