"""From a configuration to the modules that learn."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import nn

from harness.common.registry import resolve
from harness.config.recipe import NORMALISATIONS
from harness.config.trial import SYSTEMS, TrialConfig
from harness.data.batches import Split, StudyData
from harness.data.dataset import POSITIVE
from harness.models.backbones.ast import Ast, Backbone
from harness.models.baselines import AttentionModel, CnnModel, FineTuned
from harness.models.mappers import build_mapper
from harness.models.normalisations import AUDIOSET_MEAN, AUDIOSET_STD, Affine
from harness.models.reprogrammed import Reprogrammed
from harness.models.reprogrammers import build_reprogrammer

_SOURCE_USE_CLIPS = 512

_SOURCE_USE_CLIPS_PER_ANSWER = 8


Model = Reprogrammed | FineTuned | CnnModel | AttentionModel
"""What a trainer trains; called with inputs and the worker's frozen backbone, it gives one logit a label."""


def build_model(
    config: TrialConfig, backbone: Backbone | None, *, data: StudyData, seed: int, device: torch.device
) -> Model:
    """Return the configuration's modules at their initial weights, drawn from `seed` alone.

    The backbone stays as it is, whatever is trained; a system that hears VGGish features needs none.

    Raises:
        ValueError: the configuration does not fit the backbone's sizes.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        build = SYSTEMS[config.system.kind].builder
        model: Model = build(config, backbone, data=data, seed=seed, device=device).to(device)
        return model


def attention(config: TrialConfig, _backbone: None, *, data: StudyData, **_: Any) -> AttentionModel:
    """Return an attention model over VGGish features."""
    return AttentionModel(len(data.labels), **asdict(config.system))


def cnn_baseline(config: TrialConfig, _backbone: Backbone | None, *, data: StudyData, **_: Any) -> CnnModel:
    """Return a convolutional network, without the backbone."""
    return CnnModel(_normalisation(config, data), len(data.labels), **asdict(config.system))


def fine_tuned(config: TrialConfig, backbone: Ast, *, data: StudyData, **_: Any) -> FineTuned:
    """Return a copy of the backbone that learns."""
    return FineTuned(_normalisation(config, data), backbone, n_labels=len(data.labels))


def _normalisation(config: TrialConfig, data: StudyData) -> nn.Module:
    normalisation: nn.Module = resolve(NORMALISATIONS[config.normalisation.kind])(data.mean, data.std)
    return normalisation


def reprogrammed(
    config: TrialConfig, backbone: Backbone, *, data: StudyData, seed: int, device: torch.device
) -> Reprogrammed:
    """Return a reprogrammer and a mapper around the frozen backbone."""
    geometry = backbone.geometry
    return Reprogrammed(
        _normalisation(config, data),
        build_reprogrammer(config.reprogrammer, n_frames=geometry.n_frames, n_mels=geometry.n_mels),
        build_mapper(
            config.mapper,
            embed_dim=geometry.embed_dim,
            n_sources=geometry.n_source_labels,
            n_labels=len(data.labels),
            seed=seed,
            source_use=lambda: source_use(backbone, data, device=device),
        ),
    )


@torch.inference_mode()
def source_use(backbone: Backbone, data: StudyData, *, device: torch.device) -> Float[np.ndarray, "label source"]:
    """Return how much likelier the backbone hears each source label in a label's positive than in its negative clips.

    Measured on a fixed sample of the training clips, normalised as the backbone was trained.

    Raises:
        ValueError: a label has no positive or no negative training clip.
    """
    clips = _sample(data.train, data.labels)
    normalise = Affine(AUDIOSET_MEAN, AUDIOSET_STD).to(device)
    heard = []
    for chunk in np.array_split(clips, max(1, len(clips) // 32)):
        log_mel, _, _ = data.train.batch(chunk, device)
        heard.append(backbone.classify(backbone.embed(normalise(log_mel))).sigmoid().cpu().numpy())
    probabilities = np.concatenate(heard)
    positive, negative = (_mean_over(answer[clips], probabilities) for answer in _answers(data.train).values())
    use: Float[np.ndarray, "label source"] = positive - negative
    return use


def _answers(part: Split) -> dict[str, Bool[np.ndarray, "clip label"]]:
    is_positive = part.targets >= POSITIVE
    return {"positive": is_positive & part.observed, "negative": ~is_positive & part.observed}


def _sample(part: Split, labels: tuple[str, ...]) -> Int[np.ndarray, " clip"]:
    """Return positions drawn with a fixed seed: some clips, and more of them for each label's rarer answers."""
    rng = np.random.default_rng(0)
    chosen = np.zeros(len(part), np.bool_)
    chosen[rng.choice(len(part), min(len(part), _SOURCE_USE_CLIPS), replace=False)] = True
    for answer, given in _answers(part).items():
        for label, clips in zip(labels, given.T, strict=True):
            if not clips.any():
                raise ValueError(
                    f"mapper/assignment=frequent: no training clip is annotated as {answer} for {label!r}, so no "
                    "source label can be found for it; choose contiguous or random"
                )
            wanted = max(0, _SOURCE_USE_CLIPS_PER_ANSWER - int((clips & chosen).sum()))
            chosen[rng.permutation(np.flatnonzero(clips & ~chosen))[:wanted]] = True
    return np.flatnonzero(chosen)


def _mean_over(
    member: Bool[np.ndarray, "clip label"], probabilities: Float[np.ndarray, "clip source"]
) -> Float[np.ndarray, "label source"]:
    weight = member / member.sum(axis=0)
    mean: Float[np.ndarray, "label source"] = weight.T @ probabilities
    return mean
