"""Metrics over sparsely annotated labels.

Conventions: scores are `clip label` probabilities; a label counts as predicted from 0.5 on, as positive where the
annotators' probability is at least 0.5; clips without an annotation for a label take no part in that label's figures.
Every figure lies in [0, 1].
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import average_precision_score, f1_score

THRESHOLD = 0.5


@dataclass(frozen=True)
class Scores:
    """How well one set of predictions fits the annotations.

    `f1_by_label` is the mean of the F1 of the positive and of the negative class, `macro_f1` its mean over labels:
    the definition of the instrument-recognition literature. `positive_f1` is the usual F1, averaged over labels;
    `mean_average_precision` averages over the labels that have a positive clip.
    """

    macro_f1: float
    positive_f1: float
    mean_average_precision: float
    f1_by_label: Mapping[str, float]


def score(
    scores: Float[np.ndarray, "clip label"],
    targets: Float[np.ndarray, "clip label"],
    *,
    observed: Bool[np.ndarray, "clip label"],
    labels: tuple[str, ...],
) -> Scores:
    """Return the figures of `scores` against the observed `targets`.

    A label whose annotated clips all have the same answer counts as in scikit-learn: its figure in `f1_by_label` is 1
    if only that answer is predicted, and otherwise at most 0.5. Its positive F1 is 0 if that answer is no.

    Source: scikit-learn's `f1_score(average="macro")` on each label's annotated clips, as in Chen and Lerch, MMM 2023,
    and Gururani et al., ISMIR 2019.

    Raises:
        ValueError: a score is not a number, or a label has no annotated clip.
    """
    if not np.isfinite(scores[observed]).all():
        raise ValueError("scores: some are not finite, so no metric of them means anything")
    both: dict[str, float] = {}
    positive, precision = [], []
    for column, label in enumerate(labels):
        annotated = observed[:, column]
        if not annotated.any():
            raise ValueError(f"label {label!r}: none of the {len(scores)} clips is annotated for it")
        truth = targets[annotated, column] >= THRESHOLD
        column_scores = scores[annotated, column]
        predicted = column_scores >= THRESHOLD
        both[label] = float(f1_score(truth, predicted, average="macro", zero_division=0))
        positive.append(float(f1_score(truth, predicted, zero_division=0)))
        if truth.any():
            precision.append(float(average_precision_score(truth, column_scores)))
    return Scores(
        macro_f1=float(np.mean(list(both.values()))),
        positive_f1=float(np.mean(positive)),
        mean_average_precision=float(np.mean(precision)) if precision else 0.0,
        f1_by_label=both,
    )


def majority_floor(
    train_targets: Float[np.ndarray, "clip label"],
    targets: Float[np.ndarray, "clip label"],
    *,
    train_observed: Bool[np.ndarray, "clip label"],
    observed: Bool[np.ndarray, "clip label"],
    labels: tuple[str, ...],
) -> Scores:
    """Return the figures of always giving each label's more frequent answer in the training split."""
    positives = ((train_targets >= THRESHOLD) & train_observed).sum(axis=0)
    negatives = ((train_targets < THRESHOLD) & train_observed).sum(axis=0)
    guess = np.broadcast_to((positives >= negatives).astype(np.float32), targets.shape)
    return score(guess, targets, observed=observed, labels=labels)
