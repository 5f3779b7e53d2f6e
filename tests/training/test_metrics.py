"""The metrics against scikit-learn and against arithmetic by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, classification_report

from harness.config.literature import LABEL_COUNTS
from harness.training.metrics import METRICS, Metric, average_precision, majority_floor, one_sided_labels, score

LABELS = ("accordion", "banjo", "bass")


def example():
    rng = np.random.default_rng(0)
    truth = rng.random((60, 3)) < np.array([0.3, 0.5, 0.7])
    observed = rng.random((60, 3)) < 0.6
    return rng.random((60, 3)), truth.astype(np.float32), observed


def figures(scores, targets, observed):
    return score(scores, targets, observed=observed, labels=LABELS)


def test_every_figure_is_scikit_learns_on_the_annotated_clips():
    scores, targets, observed = example()
    found = figures(scores, targets, observed)
    reports = [
        classification_report(
            targets[observed[:, i], i], scores[observed[:, i], i] >= 0.5, output_dict=True, zero_division=0
        )
        for i in range(3)
    ]
    assert list(found.f1_by_label) == list(LABELS)
    assert list(found.f1_by_label.values()) == pytest.approx([r["macro avg"]["f1-score"] for r in reports])
    assert found.macro_f1 == pytest.approx(np.mean([r["macro avg"]["f1-score"] for r in reports]))
    assert found.figures["positive_f1"] == pytest.approx(np.mean([r["1.0"]["f1-score"] for r in reports]))
    precision = [average_precision_score(targets[observed[:, i], i], scores[observed[:, i], i]) for i in range(3)]
    assert found.figures["map"] == pytest.approx(np.mean(precision))


@pytest.mark.parametrize("steps", [1, 2, 5, 1000])
def test_average_precision_is_scikit_learns_however_many_clips_share_a_score(steps):
    rng = np.random.default_rng(steps)
    for n_clips in (1, 2, 3, 40):
        truth = rng.random(n_clips) < 0.3
        truth[rng.integers(n_clips)] = True
        scores = rng.integers(steps, size=n_clips) / steps
        assert average_precision(truth, scores) == pytest.approx(average_precision_score(truth, scores), abs=1e-12)


def test_f1_of_both_classes_by_hand():
    # 2 true positives, 1 false positive, 1 miss, 4 true negatives: F1 2/3 and 4/5
    truth = np.array([1, 1, 1, 0, 0, 0, 0, 0], dtype=np.float32)[:, None]
    predicted = np.array([1, 1, 0, 1, 0, 0, 0, 0], dtype=np.float32)[:, None]
    found = score(predicted, truth, observed=np.ones((8, 1), bool), labels=("banjo",))
    assert found.macro_f1 == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found.figures["positive_f1"] == pytest.approx(2 / 3)


def test_perfect_predictions_score_one_and_inverted_ones_zero():
    _, targets, observed = example()
    assert figures(targets, targets, observed).figures == {"macro_f1": 1, "positive_f1": 1, "map": 1}
    assert figures(1 - targets, targets, observed).macro_f1 == 0


def test_what_is_not_annotated_changes_nothing():
    scores, targets, observed = example()
    other = np.where(observed, targets, 1 - targets)
    elsewhere = np.where(observed, scores, np.nan)
    assert figures(elsewhere, other, observed) == figures(scores, targets, observed)


def test_the_mean_is_over_labels_and_not_over_clips():
    scores, targets, observed = example()
    observed[:, 0] = False
    observed[:2, 0] = True
    found = figures(scores, targets, observed)
    assert found.macro_f1 == pytest.approx(np.mean(list(found.f1_by_label.values())))


@pytest.mark.parametrize(
    ("answer", "predicted", "both", "positive"),
    [(0, [0, 0, 0, 0], 1, 0), (1, [1, 1, 1, 1], 1, 1), (0, [0, 0, 0, 1], 3 / 7, 0), (1, [0, 1, 1, 1], 3 / 7, 6 / 7)],
)
def test_a_label_with_one_answer_scores_one_if_only_that_is_predicted(answer, predicted, both, positive):
    truth = np.full((4, 1), answer, np.float32)
    found = score(np.array(predicted, np.float32)[:, None], truth, observed=np.ones((4, 1), bool), labels=("banjo",))
    assert found.macro_f1 == pytest.approx(both)
    assert found.figures["positive_f1"] == pytest.approx(positive)


def one_sided_example():
    """Return banjo with both answers, bass with yes alone and cello with no alone, and what the others guess."""
    truth = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0]], np.float32)
    observed = np.ones((4, 3), bool)
    return truth, observed, ("banjo", "bass", "cello")


def test_one_sided_labels_count_only_what_is_annotated():
    truth, observed, labels = one_sided_example()
    assert one_sided_labels(truth, observed, labels) == ("bass", "cello")
    truth[0] = [0.5, 0.4, 0.9]  # 0.5 is a yes
    assert one_sided_labels(truth, observed, labels) == ()
    observed[0, 1] = False
    assert one_sided_labels(truth, observed, labels) == ("bass",)


def test_a_constant_predictor_earns_nothing_by_one_sided_labels():
    truth, observed, labels = one_sided_example()
    never = score(np.zeros((4, 3)), truth, observed=observed, labels=labels)
    learned = np.where(truth > 0, 0.6, 0.4)
    learned[3] = [0.4, 0.4, 0.6]  # right on banjo, a mistake on each of the others
    better = score(learned, truth, observed=observed, labels=labels)
    assert never.figures == pytest.approx({"macro_f1": (0 + 2 / 3) / 2, "positive_f1": 0, "map": 0.5})
    assert better.figures == {"macro_f1": 1, "positive_f1": 1, "map": 1}
    assert never.f1_by_label["cello"] == 1
    assert (never.is_constant, better.is_constant) == (True, False)


def test_with_one_sided_labels_alone_every_label_counts():
    truth, observed, labels = one_sided_example()
    found = score(truth[:, 1:], truth[:, 1:], observed=observed[:, 1:], labels=labels[1:])
    assert found.figures == {"macro_f1": 1, "positive_f1": 0.5, "map": 1}


@pytest.fixture
def toy_metric():
    def add(function):
        METRICS.add("toy", Metric("toy", function))

    yield add
    METRICS.remove("toy")


@pytest.mark.parametrize(("value", "figure"), [(0.25, 0.25), ([0.5, 0.0, np.nan], 0.5), ([np.nan, 1, 1], 0)])
def test_an_added_metric_gives_one_number_or_one_for_each_label(toy_metric, value, figure):
    toy_metric(lambda *_: np.array(value))
    truth, observed, labels = one_sided_example()
    assert score(truth, truth, observed=observed, labels=labels).figures["toy"] == figure


def test_a_metric_that_is_not_finite_is_refused(toy_metric):
    toy_metric(lambda *_: np.inf)
    truth, observed, labels = one_sided_example()
    with pytest.raises(ValueError, match=r"metric 'toy'.*inf"):
        score(truth, truth, observed=observed, labels=labels)


def test_a_label_without_annotations_is_named():
    scores, targets, observed = example()
    observed[:, 1] = False
    with pytest.raises(ValueError, match="label 'banjo': none of the 60 clips is annotated"):
        figures(scores, targets, observed)


def test_a_score_that_is_no_number_is_refused():
    scores, targets, observed = example()
    scores[np.nonzero(observed[:, 0])[0][0], 0] = np.nan
    with pytest.raises(ValueError, match="some are not finite"):
        figures(scores, targets, observed)


def test_the_floor_is_the_majority_classes_f1_halved():
    # always "no": F1 of the negative class 2 * 6 / (2 * 6 + 4), of the positive class 0
    targets = np.array([1.0] * 4 + [0.0] * 6, dtype=np.float32)[:, None]
    observed = np.ones((10, 1), bool)
    floor = majority_floor(targets, targets, train_observed=observed, observed=observed, labels=("banjo",))
    assert floor.macro_f1 == pytest.approx(12 / 16 / 2)


def test_the_floor_guesses_by_the_training_split_alone():
    train, validation = np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32)
    observed = np.ones((4, 1), bool)
    floor = majority_floor(train, validation, train_observed=observed, observed=observed, labels=("banjo",))
    assert floor.macro_f1 == 0


def annotated(counts):
    """Return targets and mask of as many clips as it takes to give each label its positive and negative answers."""
    n_clips = max(positive + negative for positive, negative in counts)
    targets, observed = np.zeros((n_clips, len(counts)), np.float32), np.zeros((n_clips, len(counts)), bool)
    for column, (positive, negative) in enumerate(counts):
        targets[:positive, column] = 1
        observed[: positive + negative, column] = True
    return targets, observed


TRAIN = [(c.train_positive, c.train_negative) for c in LABEL_COUNTS.values()]
TEST = [(c.test_positive, c.test_negative) for c in LABEL_COUNTS.values()]


def test_the_floor_of_the_official_test_split_is_the_published_one():
    (train, train_observed), (test, observed) = annotated(TRAIN), annotated(TEST)
    floor = majority_floor(train, test, train_observed=train_observed, observed=observed, labels=tuple(LABEL_COUNTS))
    assert round(100 * floor.macro_f1, 1) == 39.8
    positive = [
        2 * p / (2 * p + n) if trained_p >= trained_n else 0
        for (p, n), (trained_p, trained_n) in zip(TEST, TRAIN, strict=True)
    ]
    assert floor.figures["positive_f1"] == pytest.approx(np.mean(positive))


@pytest.mark.parametrize("skill", [0.0, 0.3, 0.6, 1.0])
def test_a_test_split_like_openmics_scores_what_scikit_learn_reports(skill):
    targets, observed = annotated(TEST)
    rng = np.random.default_rng(7)
    guess = np.round(rng.random(targets.shape), 2)  # hundredths, so that some lie on the threshold
    scores = np.where(rng.random(targets.shape) < skill, targets, guess)
    assert (scores[observed] == 0.5).any() or skill == 1
    found = score(scores, targets, observed=observed, labels=tuple(LABEL_COUNTS))
    reports = {
        label: classification_report(
            targets[observed[:, i], i], (scores[observed[:, i], i] >= 0.5).astype(float), output_dict=True
        )
        for i, label in enumerate(LABEL_COUNTS)
    }
    assert found.f1_by_label == pytest.approx({label: r["macro avg"]["f1-score"] for label, r in reports.items()})
    by_class = {c: np.mean([r[c]["f1-score"] for r in reports.values()]) for c in ("0.0", "1.0")}
    assert found.macro_f1 == pytest.approx((by_class["0.0"] + by_class["1.0"]) / 2)
    assert found.figures["positive_f1"] == pytest.approx(by_class["1.0"])
    assert sum(r["weighted avg"]["support"] for r in reports.values()) == 10_522
