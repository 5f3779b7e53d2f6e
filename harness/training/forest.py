"""Random forests: one for each label, on its annotated training clips.

Source: Humphrey, Durand and McFee, "OpenMIC-2018", ISMIR 2018, and the notebook beside the data set: the mean over ten
seconds of VGGish features, depth 8, 100 trees.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.ensemble import RandomForestClassifier

from harness.config.components import RandomForest
from harness.config.trial import TrialConfig
from harness.data.batches import Part, StudyData
from harness.data.dataset import POSITIVE
from harness.training.losses import binarised, masked_bce
from harness.training.metrics import score
from harness.training.trainer import EpochResult

_EPS = 1e-7


class ForestLearner:
    """Fits a forest for each label, at once: its only epoch is the last one.

    A state holds no trees: a forest is the same whenever it is grown from the same seed.
    """

    def __init__(self, config: TrialConfig, *, data: StudyData, epochs: int, seed: int) -> None:
        assert isinstance(config.system, RandomForest)
        self.config, self.system, self.data = config, config.system, data
        self.epochs, self.seed = epochs, seed
        self.epoch = 0
        self._forests: list[RandomForestClassifier] = []

    def run(self) -> Iterator[EpochResult]:
        """Fit, and yield the one epoch, unless that is done."""
        if self.epoch == self.epochs:
            return
        started = time.perf_counter()
        self._fit()
        self.epoch = self.epochs
        validation = self.data.validation
        probabilities = self.predict(validation)
        yield EpochResult(
            epoch=self.epoch,
            lr=0.0,
            train_loss=_loss(self.predict(self.data.train), self.data.train),
            validation_loss=_loss(probabilities, validation),
            scores=score(probabilities, validation.targets, observed=validation.observed, labels=self.data.labels),
            seconds=time.perf_counter() - started,
        )

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs."""
        return {"epoch": self.epoch, "config": self.config.digest()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same configuration: fit again, if that was done.

        Raises:
            ValueError: the state belongs to another configuration.
        """
        if state["config"] != self.config.digest():
            raise ValueError("checkpoint: it was written by another configuration than this trial's")
        self.epoch = state["epoch"]
        if self.epoch:
            self._fit()

    def weights(self) -> dict[str, Any]:
        """Return nothing: see the class."""
        return {}

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Take what `weights` gave: there is one fit, and it is there."""

    def predict(self, part: Part) -> Float[np.ndarray, "clip label"]:
        """Return the labels' probabilities: the share of a label's trees that hear it."""
        features = _mean_vggish(part)
        return np.stack([_probability(forest, features) for forest in self._forests], axis=1).astype(np.float32)

    def parameter_counts(self) -> dict[str, int]:
        """Return nothing: trees have no parameters that could be counted as a network's are."""
        return {}

    def _fit(self) -> None:
        train = self.data.train
        features, is_positive = _mean_vggish(train), train.targets >= POSITIVE
        self._forests = []
        for column in range(len(self.data.labels)):
            clips = train.observed[:, column]
            forest = RandomForestClassifier(
                n_estimators=self.system.n_trees,
                max_depth=self.system.max_depth,
                random_state=self.seed % 2**32,
                n_jobs=torch.get_num_threads(),
            ).fit(features[clips], is_positive[clips, column])
            # several threads would add up the trees' votes in whatever order they finish
            self._forests.append(forest.set_params(n_jobs=1))


def _mean_vggish(part: Part) -> Float[np.ndarray, "clip dim"]:
    vggish, _, _ = part.batch(np.arange(len(part)), torch.device("cpu"))
    mean: Float[np.ndarray, "clip dim"] = vggish.numpy().mean(axis=1, dtype=np.float64)
    return mean


def _probability(forest: RandomForestClassifier, features: Float[np.ndarray, "clip dim"]) -> Float[np.ndarray, " clip"]:
    """Return the probability of True, also from a forest that has only ever seen one answer."""
    answers = list(forest.classes_)
    if True not in answers:
        return np.zeros(len(features))
    probability: Float[np.ndarray, " clip"] = forest.predict_proba(features)[:, answers.index(True)]
    return probability


def _loss(probabilities: Float[np.ndarray, "clip label"], part: Part) -> float:
    """Return the mean cross-entropy in nats; where all trees are wrong it counts as 16, and not as infinite."""
    logits = torch.logit(torch.from_numpy(probabilities), eps=_EPS)
    targets, observed = torch.from_numpy(part.targets), torch.from_numpy(part.observed)
    return masked_bce(logits, binarised(targets), observed).item()
