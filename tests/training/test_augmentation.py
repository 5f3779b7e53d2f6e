"""SpecAugment: silence in random bands and spans, in training alone."""

import numpy as np
import pytest
import torch

from harness.common.registry import resolve
from harness.config.recipe import NORMALISATIONS, NoAugmentation, SpecAugment
from harness.features.inputs import LogMel
from harness.features.log_mel import FrontEnd, log_mel
from harness.training.augmentation import SILENCE, build_augmentation, spec_augment
from tests.conftest import make_data
from tests.support.systems import learner_of

MASKED = {"augmentation/kind": "specaugment", "augmentation/max_mels": 8, "augmentation/max_seconds": 0.1}


def masks(n_clips=2000, *, frames=40, mels=16, **limits):
    """Return which values of clips without any silence were masked."""
    torch.manual_seed(0)
    return spec_augment(torch.zeros(n_clips, frames, mels), **limits) == torch.tensor(SILENCE)


def spans(whole):
    """Return first position and length of the one run of True in each row."""
    length = whole.sum(1)
    first = whole.int().argmax(1)
    position = torch.arange(whole.shape[1])
    run = (position >= first[:, None]) & (position < (first + length)[:, None])
    assert torch.equal(run & (length > 0)[:, None], whole)  # one piece
    return first, length


def test_silence_is_what_the_front_end_makes_of_digital_silence():
    silent = log_mel(np.zeros((16000, 1), np.float32), 16000, FrontEnd(n_frames=90))
    assert torch.allclose(silent[:90], torch.tensor(SILENCE), atol=1e-5)


def test_every_clip_loses_one_band_and_one_span_of_any_allowed_width_at_any_place():
    masked = masks(max_mels=5, max_frames=7)
    first_mel, width = spans(masked.all(dim=1))
    first_frame, length = spans(masked.all(dim=2))
    assert sorted(set(width.tolist())) == list(range(6))
    assert sorted(set(length.tolist())) == list(range(8))
    assert set(first_mel[width == 5].tolist()) == set(range(16 - 5 + 1))
    assert set(first_frame[length > 0].tolist()) == set(range(40))
    rebuilt = masked.all(dim=1)[:, None, :] | masked.all(dim=2)[:, :, None]
    assert torch.equal(rebuilt, masked)


def test_widths_are_drawn_alike_often_and_clip_by_clip():
    _, width = spans(masks(12_000, max_mels=5, max_frames=7).all(dim=1))
    counts = torch.bincount(width, minlength=6)
    assert counts.min() > 1800
    assert counts.max() < 2200


def test_a_mask_wider_than_the_spectrogram_takes_all_of_it_at_most():
    masked = masks(mels=4, frames=3, max_mels=24, max_frames=96)
    assert masked.all(dim=1).sum(1).max() == 4
    assert masked.all(dim=2).sum(1).max() == 3


def test_what_is_not_masked_stays_as_it_is():
    torch.manual_seed(0)
    clips = torch.randn(50, 40, 16)
    masked = spec_augment(clips, max_mels=5, max_frames=7)
    changed = masked != clips
    assert changed.any()
    assert (masked[changed] == torch.tensor(SILENCE)).all()


@pytest.mark.parametrize(("hop_ms", "frames"), [(10.0, 96), (40.0, 24), (2000.0, 1)])
def test_seconds_become_frames_through_the_front_ends_hop(hop_ms, frames):
    front_end = FrontEnd(window_ms=2 * hop_ms, hop_ms=hop_ms)
    augment = build_augmentation(SpecAugment(max_mels=1, max_seconds=0.96), inputs=LogMel(front_end))
    torch.manual_seed(0)
    masked = augment(torch.zeros(3000, 128, 4)) == torch.tensor(SILENCE)
    assert masked.all(dim=2).sum(1).max() == frames


def test_without_augmentation_nothing_is_drawn_or_changed():
    clips, state = torch.randn(2, 8, 8), torch.get_rng_state()
    assert build_augmentation(NoAugmentation(), inputs=LogMel(FrontEnd()))(clips) is clips
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_masking_before_a_normalisation_is_masking_behind_it_with_what_it_makes_of_silence(kind):
    normalise = resolve(NORMALISATIONS[kind])(-5.0, 3.0)
    clips = torch.randn(20, 40, 16) - 6
    torch.manual_seed(4)
    before = normalise(spec_augment(clips, max_mels=5, max_frames=7))
    torch.manual_seed(4)
    is_masked = spec_augment(torch.zeros_like(clips), max_mels=5, max_frames=7) != 0
    silence = normalise(torch.full((1, 1, 1), SILENCE))
    assert is_masked.any()
    assert torch.equal(before, torch.where(is_masked, silence, normalise(clips)))


def test_training_hears_masked_clips_and_evaluation_never_does(tiny_backbone, monkeypatch):
    learner = learner_of("cnn", tiny_backbone, make_data(seed=0), epochs=1, **MASKED)
    heard = {True: [], False: []}
    rewrite = learner.model.rewrite
    monkeypatch.setattr(
        learner.model, "rewrite", lambda x: (heard[learner.model.training].append(x.detach().clone()), rewrite(x))[1]
    )
    list(learner.run())
    learner.predict(learner.data.train)
    trained, evaluated = (torch.cat(heard[mode]) for mode in (True, False))
    assert len(trained) == 96
    silent = (trained == torch.tensor(SILENCE)).flatten(1).any(1)
    assert silent.float().mean() > 0.8
    assert not (evaluated == torch.tensor(SILENCE)).any()
    whole = [learner.data.validation, learner.data.train]
    features = [torch.from_numpy(part.features[part.rows]).float() for part in whole]
    assert torch.equal(evaluated, torch.cat(features))


def test_masks_differ_between_epochs_and_repeat_when_training_is_resumed(tiny_backbone, tmp_path):
    def training():
        learner = learner_of("unet", tiny_backbone, make_data(seed=0), epochs=2, **MASKED)
        masks, augment = [], learner._augment
        learner._augment = lambda x: (masks.append(augment(torch.zeros_like(x)) != 0), x)[1]
        return learner, masks

    whole, expected = training()
    list(whole.run())
    first, head = training()
    next(first.run())
    torch.save(first.state(), tmp_path / "state.pt")
    second, tail = training()
    torch.manual_seed(77)
    second.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    list(second.run())
    assert len(expected) == 24
    assert all(torch.equal(one, two) for one, two in zip(expected, head + tail, strict=True))
    assert not torch.equal(expected[0], expected[12])
