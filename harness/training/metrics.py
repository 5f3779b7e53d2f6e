"""Metrics over sparsely annotated labels.

Conventions: scores are `clip label` probabilities; a label counts as predicted from 0.5 on, as positive where the
annotators' probability is at least 0.5; clips without an annotation for a label take no part in that label's figures.
Every figure lies in [0, 1].
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

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
    and Gururani et al., ISMIR 2019. Here in arrays of all labels at once, so that an epoch of a small study does not
    wait for it and a worker need not import scikit-learn; the tests hold it to scikit-learn's figures.

    Raises:
        ValueError: a score is not a number, or a label has no annotated clip.
    """
    if not np.isfinite(scores[observed]).all():
        raise ValueError("scores: some are not finite, so no metric of them means anything")
    bare = [label for label, column in zip(labels, observed.T, strict=True) if not column.any()]
    if bare:
        raise ValueError(f"label {bare[0]!r}: none of the {len(scores)} clips is annotated for it")
    truth = targets >= THRESHOLD
    f1, counts = _f1_by_answer(truth, scores >= THRESHOLD, observed)
    both = f1.sum(axis=0) / counts
    precision = [
        average_precision(truth[annotated, column], scores[annotated, column])
        for column, annotated in enumerate(observed.T)
        if truth[annotated, column].any()
    ]
    return Scores(
        macro_f1=float(both.mean()),
        positive_f1=float(f1[0].mean()),
        mean_average_precision=float(np.mean(precision)) if precision else 0.0,
        f1_by_label=dict(zip(labels, both.tolist(), strict=True)),
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


def _f1_by_answer(
    truth: Bool[np.ndarray, "clip label"],
    predicted: Bool[np.ndarray, "clip label"],
    observed: Bool[np.ndarray, "clip label"],
) -> tuple[Float[np.ndarray, "2 label"], Int[np.ndarray, " label"]]:
    """Return F1 of the answer yes and of the answer no, 0 where none gives it, and how many of the two are given."""
    n_wrong = ((truth != predicted) & observed).sum(axis=0)
    n_right = np.stack([(truth & predicted & observed).sum(axis=0), (~truth & ~predicted & observed).sum(axis=0)])
    n_given = 2 * n_right + n_wrong
    f1: Float[np.ndarray, "2 label"] = 2 * n_right / np.maximum(n_given, 1)
    return f1, (n_given > 0).sum(axis=0)


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
