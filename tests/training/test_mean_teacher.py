"""The teacher follows without learning, perturbs without disturbing, and teaches what nobody annotated."""

import copy
import itertools

import numpy as np
import pytest
import torch

from harness.config.trial import TrialConfig
from harness.models.build import Target, build_model
from harness.models.systems import AttentionModel
from harness.training import trainer
from harness.training.fused import complete
from harness.training.losses import consistency
from harness.training.trainer import MeanTeacher, Trainer
from tests.conftest import make_vggish_data
from tests.support.systems import CPU, learner_of


def mean_teacher(data=None, **changes):
    changes = {"training/batch_size": 8, **changes}
    return learner_of("mean_teacher", None, data or make_vggish_data(seed=0), epochs=3, **changes)


def without_teacher():
    """Return the same attention model without any teacher."""
    taught = mean_teacher().config.to_paths()
    config = TrialConfig.from_paths({path: taught[path] for path in taught if not path.startswith("teacher/")})
    data = make_vggish_data(seed=0)
    model = build_model(config, None, Target.of(data), seed=0, device=CPU)
    return Trainer(model, None, data=data, config=config, epochs=3, seed=0, device=CPU)


def test_at_weight_0_training_equals_that_of_the_attention_model_step_for_step():
    learners = mean_teacher(**{"teacher/weight": 0.0}), without_teacher()
    streams = [torch.manual_seed(0).get_state()] * 2
    for step, clips in enumerate(learners[0]._batches()):
        losses = []
        for index, learner in enumerate(learners):
            torch.set_rng_state(streams[index])
            learner.model.train()
            learner._set_learning_rate(step)
            losses.append(complete(learner._step(learner.data.train.batch(clips, CPU), step)))
            streams[index] = torch.get_rng_state()
        assert torch.equal(*losses), step
        assert torch.equal(*streams)
        states = (learner.model.state_dict() for learner in learners)
        for (name, one), two in zip(next(states).items(), next(states).values(), strict=True):
            assert torch.equal(one, two), f"{name} after step {step}"
    assert step == 11


def test_with_weight_the_teacher_changes_what_is_learned():
    taught = mean_teacher(**{"teacher/predicts": "student"})
    assert next(taught.run()).train_loss != next(without_teacher().run()).train_loss


def test_every_steps_consistency_equals_that_of_a_plain_loop(monkeypatch):
    """The loop follows the published trainer, which counts the step up before the update: the first alpha is 0.5."""
    learner = mean_teacher(**{"system/dropout": 0.0})
    found, teacher = [], copy.deepcopy(learner.model)
    monkeypatch.setattr(trainer, "consistency", lambda *logits: found.append(consistency(*logits)) or found[-1])
    learner.model.train()
    learner._set_learning_rate(0)
    for step, clips in enumerate(itertools.islice(learner._batches(), 5), 1):
        batch = learner.data.train.batch(clips, CPU)
        student = copy.deepcopy(learner.model)
        with torch.no_grad():
            expected = ((student(batch[0], None).sigmoid() - teacher.train()(batch[0], None).sigmoid()) ** 2).mean()
        complete(learner._step(batch, step - 1))
        assert found[-1].item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-12)
        for mine, theirs in zip(teacher.parameters(), learner.model.parameters(), strict=True):
            mine.data = (1 - 1 / (step + 1)) * mine.data + 1 / (step + 1) * theirs.data
    assert found[-1] > 0


def test_the_teacher_never_receives_a_gradient():
    learner = mean_teacher()
    next(learner.run())
    assert all(p.grad is None and not p.requires_grad for p in learner.teacher.model.parameters())
    taught = {id(p) for p in learner.teacher.model.parameters()}
    optimised = {id(p) for group in learner._optimiser.param_groups for p in group["params"]}
    assert not taught & optimised
    assert optimised == {id(p) for p in learner.model.parameters()}


def test_the_teacher_is_the_mean_of_its_start_and_all_students_then_a_moving_average():
    student = AttentionModel(4, depth=1, dropout=0.0)
    teacher = MeanTeacher(student, weight=1.0, decay=0.75, seed=0)
    expected, values = None, [1.0, 5.0, 3.0, 7.0, 2.0, 6.0]  # the first is the initial weight
    for step, value in enumerate(values[1:], 1):
        with torch.no_grad():
            student.norm.weight.fill_(value)
        teacher.follow(student, step)
        expected = np.mean(values[: step + 1]) if step < 4 else 0.75 * expected + 0.25 * value
        assert torch.allclose(teacher.model.norm.weight, torch.tensor(float(expected)))


def test_the_teachers_batchnorm_statistics_come_from_its_own_passes():
    student = AttentionModel(4, depth=1, dropout=0.0)
    teacher = MeanTeacher(student, weight=1.0, decay=0.9, seed=0)
    with torch.no_grad():
        student.norm.running_mean.fill_(9.0)
    teacher.follow(student, 1)
    assert (teacher.model.norm.running_mean == 0).all()
    with teacher.forward_pass(0, CPU) as model:
        model(torch.full((2, 10, 128), 255.0), None)
    assert torch.allclose(teacher.model.norm.running_mean, torch.tensor(0.1))


def test_a_teachers_pass_draws_by_seed_and_step_and_leaves_the_students_stream_alone():
    teacher = MeanTeacher(AttentionModel(4, depth=1, dropout=0.5), weight=1.0, decay=0.9, seed=3)
    inputs = make_vggish_data(seed=0).train.batch(np.arange(4), CPU)[0]

    def taught(step):
        with teacher.forward_pass(step, CPU) as model:
            return model(inputs, None)

    state = torch.manual_seed(1).get_state()
    first = taught(5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(taught(5), first)
    assert not torch.equal(taught(6), first)
    assert not first.requires_grad


def test_dropout_perturbs_the_teacher_in_training():
    learner = mean_teacher()
    next(learner.run())  # which ends with validation, in evaluation mode
    seen = []
    for model in (learner.model, learner.teacher.model):
        model.register_forward_pre_hook(lambda model, _inputs: seen.append((model, model.training)))
    complete(learner._train_epoch())
    assert {id(model) for model, _ in seen} == {id(learner.model), id(learner.teacher.model)}
    assert all(training for _, training in seen)


def test_consistency_is_over_all_labels_and_its_gradient_reaches_the_unannotated_ones():
    student = torch.tensor([[0.0, 1.0, -2.0]], requires_grad=True)
    taught = torch.tensor([[0.0, 1.0, -2.0]])
    assert consistency(student, taught) == 0
    taught[0, 2] = 3.0
    loss = consistency(student, taught)
    loss.backward()
    assert loss.item() == pytest.approx((torch.tensor(3.0).sigmoid() - torch.tensor(-2.0).sigmoid()).item() ** 2 / 3)
    assert student.grad[0, 0] == student.grad[0, 1] == 0
    assert student.grad[0, 2] != 0


def only_first_label(data):
    """Hide all labels but the first of the training clips."""
    data.train.observed[:] = False
    data.train.observed[:, 0] = True
    data.train.targets[:] = np.arange(len(data.train))[:, None] % 2
    return data


@pytest.mark.parametrize(("weight", "learns"), [(0.0, False), (3.0, True)])
def test_a_label_that_nobody_annotated_is_learned_from_the_teacher_alone(weight, learns):
    changes = {"teacher/weight": weight, "optimiser/weight_decay": 0.0}  # a decay would move every label
    learner = mean_teacher(only_first_label(make_vggish_data(seed=0)), **changes)
    before = learner.model.pooling.classes.weight.detach().clone()
    complete(learner._train_epoch())
    moved = [not torch.equal(a, b) for a, b in zip(before, learner.model.pooling.classes.weight, strict=True)]
    assert moved == [True, learns, learns, learns]


@pytest.mark.parametrize("predicts", ["teacher", "student"])
def test_the_one_that_predicts_is_scored_kept_and_asked(predicts):
    learner = mean_teacher(**{"teacher/predicts": predicts})
    next(learner.run())
    chosen = learner.teacher.model if predicts == "teacher" else learner.model
    assert learner.predictor is chosen
    for key, tensor in chosen.state_dict().items():
        assert torch.equal(learner.weights()[key], tensor)
    inputs, _, _ = learner.data.validation.batch(np.arange(64), CPU)
    with torch.inference_mode():
        expected = chosen.eval()(inputs, None).sigmoid().numpy()
    assert np.array_equal(learner.predict(learner.data.validation), expected)


def test_the_state_holds_the_teacher():
    learner = mean_teacher()
    next(learner.run())
    kept = learner.state()["teacher"]
    assert any(not torch.equal(kept[key], value) for key, value in learner.state()["model"].items())
    again = mean_teacher()
    again.restore(learner.state())
    assert all(torch.equal(kept[key], value) for key, value in again.teacher.model.state_dict().items())


def test_the_teacher_is_no_part_of_what_is_counted():
    assert sum(mean_teacher().parameter_counts().values()) == sum(without_teacher().parameter_counts().values())
