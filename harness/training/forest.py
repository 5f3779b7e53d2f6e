"""Random forests: one for each label, on its annotated training clips.

Source: Humphrey, Durand and McFee, "OpenMIC-2018", ISMIR 2018, and the notebook beside the data set: the mean over ten
seconds of VGGish features, depth 8, 100 trees.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from harness.config.components import RandomForest
from harness.config.trial import TrialConfig
from harness.data.batches import Split, StudyData
from harness.data.dataset import POSITIVE
from harness.training.fused import Training, run_alone
from harness.training.losses import binarised, masked_bce
from harness.training.metrics import score
from harness.training.trainer import EpochResult

_EPS = 1e-7

_BELOW = np.nextafter(np.float32(POSITIVE), np.float32(0))


@dataclass(frozen=True)
class Forests:
    """The trees of all labels in one list of nodes.

    A node sends a clip to `left` if the clip's `feature` is at most `threshold`, and else to `right`. At a leaf, both
    are the node itself, and `probability` is the label's. `roots` has the first node of each tree.
    """

    roots: Int[np.ndarray, "label tree"]
    feature: Int[np.ndarray, " node"]
    threshold: Float[np.ndarray, " node"]
    left: Int[np.ndarray, " node"]
    right: Int[np.ndarray, " node"]
    probability: Float[np.ndarray, " node"]

    @classmethod
    def of(cls, forests: Sequence[RandomForestClassifier]) -> Self:
        """Return the trees of one fitted forest for each label."""
        nodes: dict[str, list[np.ndarray]] = {f.name: [] for f in fields(cls)}
        n_nodes = 0
        for forest in forests:
            roots = []
            for tree in (estimator.tree_ for estimator in forest.estimators_):
                roots.append(n_nodes)
                here, is_leaf = np.arange(tree.node_count), tree.children_left < 0
                nodes["feature"].append(np.where(is_leaf, 0, tree.feature))
                nodes["threshold"].append(tree.threshold)
                nodes["left"].append(np.where(is_leaf, here, tree.children_left) + n_nodes)
                nodes["right"].append(np.where(is_leaf, here, tree.children_right) + n_nodes)
                nodes["probability"].append(_probability_of_true(tree.value, forest.classes_))
                n_nodes += tree.node_count
            nodes["roots"].append(np.array(roots)[None])
        return cls(**{name: np.concatenate(values) for name, values in nodes.items()})

    def predict_clips(self, part: Split) -> Float[np.ndarray, "clip label"]:
        """Return the labels' probabilities for the clips of a split."""
        return self.predict(_mean_vggish(part))

    def predict(self, features: Float[np.ndarray, "clip dim"]) -> Float[np.ndarray, "clip label"]:
        """Return the mean over each label's trees, added in scikit-learn's order with one thread.

        scikit-learn's `predict`, and so the notebook, calls a tie negative; the metrics call 0.5 positive. The largest
        float32 below 0.5 therefore stands for a tie.
        """
        values, clips = features.astype(np.float32), np.arange(len(features))
        yes, no = np.zeros((2, len(features), len(self.roots)))
        for label, tree in np.ndindex(self.roots.shape):
            node = np.full(len(features), self.roots[label, tree])
            while True:
                goes_left = values[clips, self.feature[node]] <= self.threshold[node]
                following = np.where(goes_left, self.left[node], self.right[node])
                if np.array_equal(following, node):
                    break
                node = following
            yes[:, label] += self.probability[node]
            no[:, label] += 1 - self.probability[node]
        mean = (yes / self.roots.shape[1]).astype(np.float32)
        decided: Float[np.ndarray, "clip label"] = np.where(
            yes > no, np.maximum(mean, np.float32(POSITIVE)), np.minimum(mean, _BELOW)
        )
        return decided


def _probability_of_true(
    value: Float[np.ndarray, "node 1 answer"], answers: Bool[np.ndarray, " answer"]
) -> Float[np.ndarray, " node"]:
    """Return the share of True at each node, also if the training clips have one answer only."""
    given = list(answers)
    return value[:, 0, given.index(True)] if True in given else np.zeros(len(value))


class ForestLearner:
    """Fits a forest for each label in one epoch, numbered as the last.

    A state holds no trees: a restored learner fits again. `weights` holds them as arrays.
    """

    def __init__(self, config: TrialConfig, *, data: StudyData, epochs: int, seed: int) -> None:
        self.config, self.data, self.epochs, self.seed = config, data, epochs, seed
        self.epoch = 0
        self._forests: Forests | None = None

    def run(self) -> Iterator[EpochResult]:
        """Fit and yield the only epoch, unless that is done."""
        return run_alone(self.train())

    def train(self) -> Training[EpochResult]:
        """Do as `run` does: a forest asks for no pass through a backbone."""
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
        """Continue from a state of the same configuration: fit again if it was fitted.

        Raises:
            ValueError: the state belongs to another configuration.
        """
        if state["config"] != self.config.digest():
            raise ValueError("checkpoint: it was written by another configuration than this trial's")
        self.epoch = state["epoch"]
        if self.epoch:
            self._fit()

    def weights(self) -> dict[str, Any]:
        """Return the trees of all labels as tensors."""
        return {name: torch.from_numpy(values) for name, values in asdict(self._fitted()).items()}

    @staticmethod
    def predictor(weights: Mapping[str, Tensor]) -> Callable[[Split], Float[np.ndarray, "clip label"]]:
        """Return the function from clips to probabilities of the trees in `weights`."""
        return Forests(**{name: tensor.numpy() for name, tensor in weights.items()}).predict_clips

    def predict(self, part: Split) -> Float[np.ndarray, "clip label"]:
        """Return the labels' probabilities: the mean over a label's trees."""
        return self._fitted().predict_clips(part)

    def parameter_counts(self) -> dict[str, int]:
        """Return no counts, since trees have no parameters like a network's."""
        return {}

    def _fitted(self) -> Forests:
        assert self._forests is not None, "fit first"
        return self._forests

    def _fit(self) -> None:
        train, system = self.data.train, self.config.system
        assert isinstance(system, RandomForest)
        features, is_positive = _mean_vggish(train), train.targets >= POSITIVE
        forests = []
        for column in range(len(self.data.labels)):
            clips = train.observed[:, column]
            forest = RandomForestClassifier(
                n_estimators=system.n_trees,
                max_depth=system.max_depth,
                random_state=self.seed % 2**32,
                n_jobs=torch.get_num_threads(),
            ).fit(features[clips], is_positive[clips, column])
            forests.append(forest)
        self._forests = Forests.of(forests)


def _mean_vggish(part: Split) -> Float[np.ndarray, "clip dim"]:
    vggish, _, _ = part.batch(np.arange(len(part)), torch.device("cpu"))
    mean: Float[np.ndarray, "clip dim"] = vggish.numpy().mean(axis=1, dtype=np.float64)
    return mean


def _loss(probabilities: Float[np.ndarray, "clip label"], part: Split) -> float:
    """Return the mean cross-entropy in nats; it counts as 16, not as infinite, where all trees are wrong."""
    logits = torch.logit(torch.from_numpy(probabilities), eps=_EPS)
    targets, observed = torch.from_numpy(part.targets), torch.from_numpy(part.observed)
    return masked_bce(logits, binarised(targets), observed).item()
