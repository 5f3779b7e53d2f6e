"""Training: it learns, it is repeatable, it resumes bit by bit, and it stops where a number is none."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.config.trial import TrialConfig
from harness.data import batches as study_data
from harness.models.build import Target, _sample, build_model, label_affinity
from harness.training.trainer import DivergedError, Trainer, _logits, evaluate
from tests.conftest import LABELS, make_data

CPU = torch.device("cpu")
PATHS = {
    "reprogrammer/kind": "unet",
    "reprogrammer/depth": 2,
    "normalisation/kind": "audioset",
    "optimiser/lr": 1e-2,
    "schedule/kind": "one_cycle",
}


def trainer(backbone, data, *, epochs=4, seed=0, **paths):
    config = TrialConfig.from_paths({**PATHS, **paths})
    model = build_model(config, backbone, Target.of(data), seed=seed, device=CPU)
    return Trainer(model, backbone, data=data, config=config, epochs=epochs, seed=seed, device=CPU)


def figures(results):
    return [(r.epoch, r.lr, r.train_loss, r.validation_loss, r.scores) for r in results]


@pytest.mark.parametrize("reprogrammer", ["none", "noise", "cnn", "unet"])
def test_every_reprogrammer_learns_what_can_be_heard(reprogrammer, tiny_backbone, tiny_data):
    paths = {"reprogrammer/kind": reprogrammer, "normalisation/kind": "dataset", "optimiser/lr": 2e-2}
    config = TrialConfig.from_paths(paths)
    model = build_model(config, tiny_backbone, Target.of(tiny_data), seed=0, device=CPU)
    training = Trainer(model, tiny_backbone, data=tiny_data, config=config, epochs=10, seed=0, device=CPU)
    results = list(training.run())
    assert results[-1].train_loss < 0.7 * results[0].train_loss
    assert max(r.scores.macro_f1 for r in results) > 0.65


class ReadInTurn:
    """Reads a batch when it is asked for, in the thread that asks."""

    seconds_waited = 0.0

    def __init__(self, read, wanted):
        self.batches = map(read, wanted)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __iter__(self):
        return self.batches


def test_reading_ahead_changes_no_figure(tiny_backbone, tiny_data, monkeypatch):
    ahead = figures(trainer(tiny_backbone, tiny_data, epochs=2).run())
    monkeypatch.setattr(study_data, "ReadAhead", ReadInTurn)
    assert figures(trainer(tiny_backbone, tiny_data, epochs=2).run()) == ahead


@pytest.mark.parametrize("part", ["train", "validation"])
def test_what_cannot_be_read_ends_training_as_itself_and_leaves_no_thread(part, tiny_backbone, tiny_data):
    cut = replace(getattr(tiny_data, part), features=getattr(tiny_data, part).features[:-70])
    training = trainer(tiny_backbone, replace(tiny_data, **{part: cut}))
    with pytest.raises(IndexError, match="out of bounds for axis 0 with size 90"):
        next(training.run())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reading ahead")]


def test_the_state_holds_nothing_of_the_backbone(tiny_backbone, tiny_data):
    state = trainer(tiny_backbone, tiny_data).state()
    assert not any("backbone" in key for key in state["model"])
    assert sum(t.numel() for t in state["model"].values()) < 5_000


def test_a_rate_too_high_ends_with_the_place_where_it_diverged(tiny_backbone, tiny_data):
    with pytest.raises(DivergedError, match=r"(training loss in epoch \d became nan|not finite)"):
        list(trainer(tiny_backbone, tiny_data, **{"optimiser/lr": 1e30}).run())


def test_validation_changes_neither_parameters_nor_batchnorm_statistics(tiny_backbone, tiny_data):
    training = trainer(tiny_backbone, tiny_data)
    next(training.run())
    before = {key: tensor.clone() for key, tensor in training.model.state_dict().items()}
    evaluate(training.model, tiny_backbone, tiny_data.validation, labels=LABELS, device=CPU)
    assert all(torch.equal(before[key], tensor) for key, tensor in training.model.state_dict().items())


def test_figures_of_validation_do_not_depend_on_the_other_clips_of_a_batch(tiny_backbone, tiny_data, monkeypatch):
    training = trainer(tiny_backbone, tiny_data)
    next(training.run())
    together = evaluate(training.model, tiny_backbone, tiny_data.validation, labels=LABELS, device=CPU)
    monkeypatch.setattr("harness.training.trainer._EVALUATION_BATCH", 5)
    apart = evaluate(training.model, tiny_backbone, tiny_data.validation, labels=LABELS, device=CPU)
    assert apart[1] == together[1]
    assert apart[0] == pytest.approx(together[0], rel=1e-5)


@pytest.mark.parametrize(("n_frames", "sizes"), [(32, [64, 6]), (256, [64, 6]), (1024, [16, 16, 16, 16, 6])])
def test_validation_takes_fewer_clips_at_once_of_longer_spectrograms(n_frames, sizes):
    class Recorder(torch.nn.Module):
        taken = ()

        def forward(self, inputs, backbone):
            self.taken += (len(inputs),)
            return inputs[:, 0, :4]

    part = replace(make_data(seed=0).train, features=np.zeros((70, n_frames, 128), np.float16), rows=np.arange(70))
    recorder = Recorder()
    assert _logits(recorder, None, part, device=CPU).shape == (70, 4)
    assert list(recorder.taken) == sizes


def test_soft_targets_differ_from_hard_ones(tiny_backbone, tiny_data):
    tiny_data.train.targets[tiny_data.train.observed] *= 0.8
    soft, hard = (next(trainer(tiny_backbone, tiny_data, **{"training/targets": k}).run()) for k in ("soft", "hard"))
    assert soft.train_loss != hard.train_loss


@pytest.fixture
def data_of_two_kinds():
    """Return 3,000 training clips, of which only the last 20 are annotated for all labels but the first."""
    data = make_data(seed=0, n_train=3000, n_validation=8)
    observed, targets = data.train.observed, data.train.targets
    observed[:2980, 1:] = False
    observed[:, 0] = True
    observed[2980:] = True
    targets[2980:] = (np.arange(20) % 2)[:, None]
    return data


def test_label_affinity_hears_the_labels_that_only_a_few_late_clips_are_annotated_for(tiny_backbone, data_of_two_kinds):
    use = label_affinity(tiny_backbone, Target.of(data_of_two_kinds), device=CPU)
    assert (np.abs(use).max(axis=1) > 0).all()
    assert np.array_equal(use, label_affinity(tiny_backbone, Target.of(data_of_two_kinds), device=CPU))


def test_label_affinity_takes_enough_clips_of_each_answer_and_no_more_than_it_needs(data_of_two_kinds):
    part = data_of_two_kinds.train
    clips = _sample(part, LABELS)
    assert np.array_equal(clips, np.unique(clips))
    assert 512 <= len(clips) <= 512 + 16 * len(LABELS)
    for is_positive in (True, False):
        heard = part.observed[clips] & ((part.targets[clips] >= 0.5) == is_positive)
        assert heard.sum(axis=0).min() >= 8


@pytest.mark.parametrize(("value", "answer"), [(0.0, "positive"), (1.0, "negative")])
def test_label_affinity_names_a_label_without_an_answer(tiny_backbone, tiny_data, value, answer):
    tiny_data.train.targets[:, 2] = value
    with pytest.raises(ValueError, match=f"no training clip is annotated as {answer} for 'bass'"):
        label_affinity(tiny_backbone, Target.of(tiny_data), device=CPU)


def test_label_affinity_is_higher_where_the_backbone_hears_a_label(tiny_backbone, tiny_data):
    use = label_affinity(tiny_backbone, Target.of(tiny_data), device=CPU)
    assert use.shape == (len(LABELS), tiny_backbone.geometry.n_source_labels)
    flipped = replace(tiny_data, train=replace(tiny_data.train, targets=1 - tiny_data.train.targets))
    assert np.allclose(label_affinity(tiny_backbone, Target.of(flipped), device=CPU), -use, atol=1e-6)
