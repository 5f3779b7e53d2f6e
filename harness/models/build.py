"""From a configuration to the modules that learn."""

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import nn

from harness.common.registry import resolve
from harness.config.recipe import NORMALISATIONS
from harness.config.trial import MAPPERS, SYSTEMS, TrialConfig
from harness.data.batches import Split, StudyData
from harness.data.dataset import POSITIVE
from harness.models.backbones import Backbone
from harness.models.label_mapping import Affinity
from harness.models.normalisations import audioset
from harness.models.reprogrammers import build_reprogrammer
from harness.models.systems import AttentionModel, CnnModel, FineTuned, Reprogrammed

_AFFINITY_CLIPS = 512

_AFFINITY_CLIPS_PER_ANSWER = 8


@dataclass(frozen=True)
class Target:
    """The labels a model is built for, the statistics of the training clips' log-mel, and those clips.

    Only `mapper/assignment=frequent` reads the clips.
    """

    labels: tuple[str, ...]
    mean: float = 0.0
    std: float = 1.0
    clips: Split | None = None

    @classmethod
    def of(cls, data: StudyData) -> Self:
        """Return the target of a study."""
        return cls(data.labels, data.mean, data.std, data.train)


def build_model(
    config: TrialConfig, backbone: Backbone | None, target: Target, *, seed: int, device: torch.device
) -> nn.Module:
    """Return the configuration's modules at their initial weights, drawn from `seed` alone.

    The backbone never changes. A system on VGGish features needs none.

    Raises:
        ValueError: the configuration does not fit the backbone's sizes.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        build = SYSTEMS[config.system.kind].builder
        model: nn.Module = build(config, backbone, target, seed=seed, device=device).to(device)
        return model


def attention(config: TrialConfig, _backbone: None, target: Target, **_: Any) -> AttentionModel:
    """Return an attention model over VGGish features."""
    return AttentionModel(len(target.labels), **asdict(config.system))


def cnn_baseline(config: TrialConfig, _backbone: Backbone | None, target: Target, **_: Any) -> CnnModel:
    """Return a convolutional network, without the backbone."""
    return CnnModel(_normalisation(config, target), len(target.labels), **asdict(config.system))


def fine_tuned(config: TrialConfig, backbone: Backbone, target: Target, **_: Any) -> FineTuned:
    """Return a copy of the backbone that learns."""
    return FineTuned(_normalisation(config, target), backbone, n_labels=len(target.labels))


def reprogrammed(
    config: TrialConfig, backbone: Backbone, target: Target, *, seed: int, device: torch.device
) -> Reprogrammed:
    """Return a reprogrammer and a mapper around the frozen backbone."""
    n_frames, n_mels = backbone.input_shape
    return Reprogrammed(
        _normalisation(config, target),
        build_reprogrammer(config.reprogrammer, n_frames=n_frames, n_mels=n_mels),
        MAPPERS[config.mapper.kind].builder(
            embed_dim=backbone.embed_dim,
            n_labels=len(target.labels),
            n_sources=len(backbone.source_labels),
            labels=target.labels,
            source_labels=backbone.source_labels,
            seed=seed,
            label_affinity=lambda: label_affinity(backbone, target, device=device),  # only called where needed
            **asdict(config.mapper),
        ),
    )


def _normalisation(config: TrialConfig, target: Target) -> nn.Module:
    normalisation: nn.Module = resolve(NORMALISATIONS[config.normalisation.kind])(target.mean, target.std)
    return normalisation


@torch.inference_mode()
def label_affinity(backbone: Backbone, target: Target, *, device: torch.device) -> Affinity:
    """Return each source label's mean probability in a label's positive clips, minus that in its negative ones.

    The clips are a fixed sample of the training clips, normalised as for AST.

    Raises:
        ValueError: a label has no positive or no negative training clip.
    """
    part = target.clips
    assert part is not None, "mapper/assignment=frequent needs training clips"
    clips = _sample(part, target.labels)
    normalise = audioset(target.mean, target.std).to(device)
    outputs = []
    for chunk in np.array_split(clips, max(1, len(clips) // 32)):
        log_mel, _, _ = part.batch(chunk, device)
        outputs.append(backbone.logits(backbone.embed(normalise(log_mel))).sigmoid().cpu().numpy())
    probabilities = np.concatenate(outputs)
    answers = (given[clips] for given in _answers(part).values())
    positive, negative = ((given / given.sum(axis=0)).T @ probabilities for given in answers)
    affinity: Affinity = positive - negative
    return affinity


def _answers(part: Split) -> dict[str, Bool[np.ndarray, "clip label"]]:
    is_positive = part.targets >= POSITIVE
    return {"positive": is_positive & part.observed, "negative": ~is_positive & part.observed}


def _sample(part: Split, labels: tuple[str, ...]) -> Int[np.ndarray, " clip"]:
    """Return positions drawn with a fixed seed: some clips, and more of them for each label's rarer answers."""
    rng = np.random.default_rng(0)
    chosen = np.zeros(len(part), np.bool_)
    chosen[rng.choice(len(part), min(len(part), _AFFINITY_CLIPS), replace=False)] = True
    for answer, given in _answers(part).items():
        for label, clips in zip(labels, given.T, strict=True):
            if not clips.any():
                raise ValueError(
                    f"mapper/assignment=frequent: no training clip is annotated as {answer} for {label!r}, so no "
                    "source label can be found for it; choose contiguous or random"
                )
            wanted = max(0, _AFFINITY_CLIPS_PER_ANSWER - int((clips & chosen).sum()))
            chosen[rng.permutation(np.flatnonzero(clips & ~chosen))[:wanted]] = True
    return np.flatnonzero(chosen)
