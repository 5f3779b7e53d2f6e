"""Metrics over sparsely annotated labels: a registry from which records, tables, reports and MLflow names derive.

Conventions: arrays are shaped (clip, label); a label counts as predicted from 0.5 on, and as positive where the
annotators' probability is at least 0.5. A label's figures use the clips that are annotated for it, and no others.

One-sided labels: where all annotated clips of a label have the same answer, F1 rewards a constant answer with 1, and
average precision with 1 or nothing. Such labels are therefore left out of every mean over labels, as long as another
label has both answers. Without this rule a model that predicts nothing leads small studies.

- Where every label has both answers, each figure equals that of the literature: so in OpenMIC-2018's official splits
  and its published validation split.
- A figure of a small study is the mean over fewer labels. Two studies compare only on the same validation clips.
- If every label is one-sided, the means are over all labels, and say little.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from harness.common.registry import Registry
from harness.data.dataset import POSITIVE

OF_RECORD = "macro_f1"
"""The metric that selects epochs and trials."""

Array = Float[np.ndarray, "clip label"]
Mask = Bool[np.ndarray, "clip label"]


@dataclass(frozen=True)
class Metric:
    """A figure of predictions on annotated clips.

    `function` takes probabilities, targets and the mask of annotated labels. It returns a value for each label, NaN
    where a label has none, or one number for all. `title` names it in tables; the registry's key names it in records
    and in MLflow.
    """

    title: str
    function: Callable[[Array, Array, Mask], Float[np.ndarray, " label"] | float]
    higher_is_better: bool = True


@dataclass(frozen=True)
class Scores:
    """The figures of one set of predictions.

    `figures` holds a value for each of `METRICS`. `f1_by_label` is the F1 of both answers, also of one-sided labels.
    `is_constant`: each label gets one answer on all of its clips.
    """

    figures: Mapping[str, float]
    f1_by_label: Mapping[str, float]
    is_constant: bool

    @property
    def macro_f1(self) -> float:
        """Return the metric of record."""
        return self.figures[OF_RECORD]

    def to_record(self) -> dict[str, Any]:
        """Return the scores as plain values."""
        return {**self.figures, "f1_by_label": dict(self.f1_by_label), "is_constant": self.is_constant}


def score(probabilities: Array, targets: Array, *, observed: Mask, labels: tuple[str, ...]) -> Scores:
    """Return the figures of `probabilities` against the observed `targets`.

    Raises:
        ValueError: a probability or a metric is not finite, or a label has no annotated clip.
    """
    if not np.isfinite(probabilities[observed]).all():
        raise ValueError("probabilities: some are not finite, so no metric of them means anything")
    bare = [label for label, column in zip(labels, observed.T, strict=True) if not column.any()]
    if bare:
        raise ValueError(f"label {bare[0]!r}: none of the {len(targets)} clips is annotated for it")
    counted = ~one_sided(targets, observed)
    if not counted.any():
        counted[:] = True
    figures = {
        name: _figure(name, metric.function(probabilities, targets, observed), counted)
        for name, metric in METRICS.items()
    }
    by_label = f1_by_label(probabilities, targets, observed).tolist()
    is_constant = bool(one_sided(probabilities, observed).all())
    return Scores(figures, dict(zip(labels, by_label, strict=True)), is_constant=is_constant)


def one_sided(probabilities: Array, observed: Mask) -> Bool[np.ndarray, " label"]:
    """Return the labels with the same answer, given or predicted, on all of their annotated clips."""
    positive = probabilities >= POSITIVE
    has_both: Bool[np.ndarray, " label"] = (positive & observed).any(axis=0) & (~positive & observed).any(axis=0)
    return ~has_both


def one_sided_labels(targets: Array, observed: Mask, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the one-sided labels."""
    return tuple(label for label, is_bare in zip(labels, one_sided(targets, observed), strict=True) if is_bare)


def majority_floor(
    train_targets: Array, targets: Array, *, train_observed: Mask, observed: Mask, labels: tuple[str, ...]
) -> Scores:
    """Return the figures of always giving each label's more frequent answer in the training split."""
    positives = ((train_targets >= POSITIVE) & train_observed).sum(axis=0)
    negatives = ((train_targets < POSITIVE) & train_observed).sum(axis=0)
    guess = np.broadcast_to((positives >= negatives).astype(np.float32), targets.shape)
    return score(guess, targets, observed=observed, labels=labels)


def f1_by_label(probabilities: Array, targets: Array, observed: Mask) -> Float[np.ndarray, " label"]:
    """Return each label's mean of the F1 of the answer yes and the F1 of the answer no.

    An answer that is neither given nor right takes no part in the mean, as in scikit-learn.

    Source: scikit-learn's `f1_score(average="macro")` on each label's annotated clips, as in Chen and Lerch, MMM 2023,
    and Gururani et al., ISMIR 2019. The arrays hold all labels at once, and no worker has to import scikit-learn.
    """
    f1, counts = _f1_by_answer(probabilities, targets, observed)
    both: Float[np.ndarray, " label"] = f1.sum(axis=0) / counts
    return both


def positive_f1_by_label(probabilities: Array, targets: Array, observed: Mask) -> Float[np.ndarray, " label"]:
    """Return each label's F1 of the answer yes: 0 where no clip is positive."""
    positive: Float[np.ndarray, " label"] = _f1_by_answer(probabilities, targets, observed)[0][0]
    return positive


def precision_by_label(probabilities: Array, targets: Array, observed: Mask) -> Float[np.ndarray, " label"]:
    """Return each label's average precision: NaN where no clip is positive."""
    truth = targets >= POSITIVE
    return np.array(
        [
            average_precision(truth[annotated, column], probabilities[annotated, column])
            if truth[annotated, column].any()
            else np.nan
            for column, annotated in enumerate(observed.T)
        ]
    )


def average_precision(truth: Bool[np.ndarray, " clip"], scores: Float[np.ndarray, " clip"]) -> float:
    """Return the mean, over the positive clips, of the precision at the score of each: scikit-learn's figure.

    Clips of equal scores are taken in or left out together. At least one clip must be positive.
    """
    order = np.argsort(-scores, kind="stable")
    is_last = np.append(np.diff(scores[order]) != 0, True)  # of the clips that share its score
    n_taken = np.flatnonzero(is_last) + 1
    n_hits = np.cumsum(truth[order])[is_last]
    return float((np.diff(n_hits, prepend=0) * (n_hits / n_taken)).sum() / n_hits[-1])


METRICS: Registry[Metric] = Registry(
    "metrics",
    {
        OF_RECORD: Metric("macro-F1", f1_by_label),
        "positive_f1": Metric("positive F1", positive_f1_by_label),
        "map": Metric("mAP", precision_by_label),
    },
    # beside the figures stand these in records, reports and MLflow
    reserved=(
        "epochs",
        "f1_by_label",
        "floor",
        "is_constant",
        "loss",
        "n_clips",
        "params",
        "reads",
        "seconds",
        "trials",
    ),
)


def _figure(name: str, values: Float[np.ndarray, " label"] | float, counted: Bool[np.ndarray, " label"]) -> float:
    """Return the one number, or the mean over the counted labels that have a value, 0 if none has."""
    found = np.asarray(values, np.float64)
    if found.ndim:
        found = found[counted & ~np.isnan(found)]
    figure = float(found.mean()) if found.size else 0.0
    if not np.isfinite(figure):
        raise ValueError(f"metric {name!r}: it gave {figure}; a figure must be finite")
    return figure


def _f1_by_answer(
    probabilities: Array, targets: Array, observed: Mask
) -> tuple[Float[np.ndarray, "2 label"], Int[np.ndarray, " label"]]:
    """Return the F1 of the answers yes and no, 0 where an answer does not occur, and the number that occur."""
    truth, predicted = targets >= POSITIVE, probabilities >= POSITIVE
    n_wrong = ((truth != predicted) & observed).sum(axis=0)
    n_right = np.stack([(truth & predicted & observed).sum(axis=0), (~truth & ~predicted & observed).sum(axis=0)])
    n_given = 2 * n_right + n_wrong
    f1: Float[np.ndarray, "2 label"] = 2 * n_right / np.maximum(n_given, 1)
    return f1, (n_given > 0).sum(axis=0)
