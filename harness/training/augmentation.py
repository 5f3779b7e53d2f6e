"""Augmentations of training batches, such as SpecAugment: silence in a random band of mels and a random span of time.

Log-mel is masked before its normalisation, with the value of digital silence. Every normalisation works value by value,
so masking after it, with its value for silence, gives the same.

Source: Park et al., "SpecAugment", Interspeech 2019, with one mask of each kind.
"""

import math
from collections.abc import Callable
from dataclasses import asdict

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from harness.config.recipe import Augmentation
from harness.config.trial import AUGMENTATIONS
from harness.features.inputs import Input, LogMel

SILENCE = math.log(torch.finfo(torch.float32).eps)
"""Log-mel of digital silence, as the front end gives it: -15.94."""


Spectrogram = Float[Tensor, "clip frame mel"]


def build_augmentation(config: Augmentation, *, inputs: Input) -> Callable[[Tensor], Tensor]:
    """Return the function that augments a training batch."""
    augment: Callable[[Tensor], Tensor] = AUGMENTATIONS[config.kind].builder(inputs=inputs, **asdict(config))
    return augment


def build_spec_augment(*, inputs: LogMel, max_mels: int, max_seconds: float) -> Callable[[Spectrogram], Spectrogram]:
    """Return SpecAugment with its limits in frames of the front end."""
    max_frames = max(1, round(max_seconds * 1000 / inputs.front_end.hop_ms))
    return lambda log_mel: spec_augment(log_mel, max_mels=max_mels, max_frames=max_frames)


def spec_augment(log_mel: Spectrogram, *, max_mels: int, max_frames: int) -> Spectrogram:
    """Return the clips with up to `max_mels` mels and up to `max_frames` frames of each silent.

    Drawn from the global generator of the device that the clips are on.
    """
    n_clips, n_frames, n_mels = log_mel.shape
    band = _random_span(n_clips, n_mels, longest=max_mels, device=log_mel.device)
    span = _random_span(n_clips, n_frames, longest=max_frames, device=log_mel.device)
    return log_mel.masked_fill(band[:, None, :] | span[:, :, None], SILENCE)


def _random_span(n_clips: int, size: int, *, longest: int, device: torch.device) -> Bool[Tensor, "clip {size}"]:
    """Return a contiguous mask a clip: its length is 0 to `longest`, its place anywhere, both uniformly drawn."""
    draw = torch.rand(2, n_clips, 1, device=device)
    length = (draw[0] * (min(longest, size) + 1)).floor()
    start = (draw[1] * (size - length + 1)).floor()
    position = torch.arange(size, device=device)
    return (position >= start) & (position < start + length)
