"""What a study may see: features and labels of the training and the validation clips, and of no test clip."""

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Int
from torch import Tensor

from harness.data.frontend import FRONT_END_VERSION, FrontEnd
from harness.data.openmic import POSITIVE, ClipDataset
from harness.data.splits import Split
from harness.data.store import FeatureStore


@dataclass(frozen=True)
class Part:
    """The clips of one split: rows of a memory-mapped store, with their labels."""

    features: Float16[np.ndarray, "stored frame mel"]
    rows: Int[np.ndarray, " clip"]
    targets: Float[np.ndarray, "clip label"]
    observed: Bool[np.ndarray, "clip label"]

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.rows)

    def batch(
        self, clips: Int[np.ndarray, " batch"], device: torch.device
    ) -> tuple[Float[Tensor, "batch frame mel"], Float[Tensor, "batch label"], Bool[Tensor, "batch label"]]:
        """Return log-mel, targets and mask of the clips at these positions of the part."""
        log_mel = torch.from_numpy(self.features[self.rows[clips]]).to(device).float()
        return (
            log_mel,
            torch.from_numpy(self.targets[clips]).to(device),
            torch.from_numpy(self.observed[clips]).to(device),
        )


@dataclass(frozen=True)
class StudyData:
    """Training and validation clips, and the statistics of the training clips' log-mel.

    `digest` is equal on every machine that holds the same labels, partition and audio and hears them through the same
    front end; it is "" for clips that were made in memory.
    """

    labels: tuple[str, ...]
    train: Part
    validation: Part
    mean: float
    std: float
    front_end: FrontEnd
    digest: str = ""

    @property
    def one_sided_labels(self) -> tuple[str, ...]:
        """Return the labels whose annotated validation clips all have the same answer: their F1 says little."""
        positive, observed = self.validation.targets >= POSITIVE, self.validation.observed
        has_both = (positive & observed).any(axis=0) & (~positive & observed).any(axis=0)
        return tuple(label for label, both in zip(self.labels, has_both, strict=True) if not both)


def study_data(dataset: ClipDataset, store: FeatureStore, split: Split, *, sound_digest: str) -> StudyData:
    """Return the training and validation clips that the store could read.

    `sound_digest` stands for what all the clips sound like, on whichever machine: the store's `audio_digest`, unless
    the data set knows better.

    Raises:
        ValueError: a split is empty, or has a label without any annotation, once unreadable clips are left out.
    """
    train, validation = (_part(dataset, store, rows) for rows in (split.train, split.validation))
    for name, part in (("train", train), ("validation", validation)):
        bare = [label for column, label in enumerate(dataset.labels) if not part.observed[:, column].any()]
        if bare:
            raise ValueError(f"{name} split of {dataset.name}: no clip is annotated for {', '.join(bare)}")
    mean, std = _statistics(train)
    heard = [dataset.digest, sound_digest, sorted(store.unreadable), FRONT_END_VERSION, asdict(store.front_end)]
    digest = hashlib.sha256(json.dumps(heard, sort_keys=True).encode()).hexdigest()
    return StudyData(dataset.labels, train, validation, mean, std, store.front_end, digest)


def _part(dataset: ClipDataset, store: FeatureStore, rows: Int[np.ndarray, " row"]) -> Part:
    kept = rows[store.available[rows]]
    # a clip without any annotation carries no gradient and no metric
    kept = kept[dataset.observed[kept].any(axis=1)]
    return Part(store.features, kept, dataset.targets[kept], dataset.observed[kept])


def _statistics(part: Part, *, clips: int = 500) -> tuple[float, float]:
    """Return mean and standard deviation over evenly spaced training clips, padding included."""
    chosen = np.unique(np.linspace(0, len(part) - 1, min(clips, len(part))).astype(np.int64))
    count, total, squares = 0, 0.0, 0.0
    for position in chosen:
        values = part.features[part.rows[position]].astype(np.float64)
        count, total, squares = count + values.size, total + values.sum(), squares + (values**2).sum()
    mean = total / count
    return float(mean), float(np.sqrt(max(squares / count - mean**2, 0.0)))
