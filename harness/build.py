"""From a configuration to the modules that learn."""

import numpy as np
import torch
from jaxtyping import Float

from harness.config import TrialConfig
from harness.data.study_data import StudyData
from harness.models.ast import Backbone
from harness.models.mappers import build_mapper
from harness.models.normalisations import AUDIOSET_MEAN, AUDIOSET_STD, NORMALISATIONS, Affine
from harness.models.reprogrammed import Reprogrammed
from harness.models.reprogrammers import build_reprogrammer

_SOURCE_USE_CLIPS = 512


def build_model(
    config: TrialConfig, backbone: Backbone, *, data: StudyData, seed: int, device: torch.device
) -> Reprogrammed:
    """Return the configuration's modules at their initial weights, drawn from `seed` alone.

    Raises:
        ValueError: the configuration does not fit the backbone's sizes.
    """
    geometry = backbone.geometry
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Reprogrammed(
            NORMALISATIONS[config.normalisation.kind](data.mean, data.std),
            build_reprogrammer(config.reprogrammer, n_frames=geometry.n_frames, n_mels=geometry.n_mels),
            build_mapper(
                config.mapper,
                embed_dim=geometry.embed_dim,
                n_sources=geometry.n_source_labels,
                n_labels=len(data.labels),
                seed=seed,
                source_use=lambda: source_use(backbone, data, device=device),
            ),
        ).to(device)


@torch.inference_mode()
def source_use(backbone: Backbone, data: StudyData, *, device: torch.device) -> Float[np.ndarray, "label source"]:
    """Return how much likelier the backbone hears each source label in a label's positive than in its negative clips.

    Measured on the first training clips, normalised as the backbone was trained.
    """
    clips = np.arange(min(len(data.train), _SOURCE_USE_CLIPS))
    normalise = Affine(AUDIOSET_MEAN, AUDIOSET_STD).to(device)
    heard = []
    for chunk in np.array_split(clips, max(1, len(clips) // 32)):
        log_mel, _, _ = data.train.batch(chunk, device)
        heard.append(backbone.classify(backbone.embed(normalise(log_mel))).sigmoid().cpu().numpy())
    probabilities = np.concatenate(heard)
    targets, observed = data.train.targets[clips], data.train.observed[clips]
    positive = ((targets >= 0.5) & observed).astype(np.float32)
    negative = ((targets < 0.5) & observed).astype(np.float32)
    use: Float[np.ndarray, "label source"] = _mean_over(positive, probabilities) - _mean_over(negative, probabilities)
    return use


def _mean_over(
    member: Float[np.ndarray, "clip label"], probabilities: Float[np.ndarray, "clip source"]
) -> Float[np.ndarray, "label source"]:
    mean: Float[np.ndarray, "label source"] = (member.T @ probabilities) / np.maximum(member.sum(axis=0)[:, None], 1)
    return mean
