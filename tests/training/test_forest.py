"""Random forests: their training clips, their trees as arrays, and labels with one answer."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier

from tests.conftest import LABELS, make_vggish_data
from tests.support.systems import learner_of


def forest(data=None, **options):
    return learner_of("random_forest", None, data or make_vggish_data(seed=0), epochs=7, **options)


def test_a_forest_is_one_fit_and_its_epoch_is_the_last():
    learner = forest()
    (result,) = learner.run()
    assert (result.epoch, result.lr) == (7, 0.0)
    assert list(learner.run()) == []


def test_predictions_are_those_of_scikit_learn_on_mean_features_and_annotated_clips():
    data = make_vggish_data(seed=0)
    learner = forest(data, seed=3)
    list(learner.run())
    found = learner.predict(data.validation)
    train, validation = (
        part.features[part.rows].mean(axis=1, dtype=np.float64) for part in (data.train, data.validation)
    )
    for column in range(len(LABELS)):
        clips = data.train.observed[:, column]
        made = RandomForestClassifier(n_estimators=10, max_depth=8, random_state=3)
        made.fit(train[clips], data.train.targets[clips, column] >= 0.5)
        expected = made.predict_proba(validation)[:, list(made.classes_).index(True)]
        assert np.array_equal(found[:, column], expected.astype(np.float32))


def test_a_tie_of_the_trees_is_a_no_as_scikit_learns_predict_has_it():
    """Two trees of full depth often disagree, so many clips have a probability of exactly 0.5."""
    data = make_vggish_data(seed=0)
    data.train.targets[:] = np.random.default_rng(9).random(data.train.targets.shape)
    learner = forest(data, seed=3, **{"system/n_trees": 2, "system/max_depth": 20})
    list(learner.run())
    found = learner.predict(data.validation)
    train, validation = (part.features[part.rows].mean(axis=1, dtype=float) for part in (data.train, data.validation))
    n_ties = 0
    for column in range(len(LABELS)):
        clips = data.train.observed[:, column]
        made = RandomForestClassifier(n_estimators=2, max_depth=20, random_state=3)
        made.fit(train[clips], data.train.targets[clips, column] >= 0.5)
        expected = made.predict_proba(validation)[:, 1]
        n_ties += (expected == 0.5).sum()
        assert np.array_equal(found[:, column] >= 0.5, made.predict(validation))
        assert found[:, column] == pytest.approx(expected, abs=1e-6)
    assert n_ties > 10


def test_trees_and_depth_are_the_configurations():
    data = make_vggish_data(seed=0)
    data.train.targets[:] = np.random.default_rng(9).random(data.train.targets.shape)  # nothing that one cut can tell
    learner = forest(data, **{"system/n_trees": 11, "system/max_depth": 2})
    list(learner.run())
    trees = learner.weights()
    assert trees["roots"].shape == (4, 11)
    n_nodes = np.diff([*trees["roots"].flatten().tolist(), len(trees["left"])])
    assert n_nodes.max() == 7  # of two cuts, one below the other


@pytest.mark.parametrize(("answer", "probability"), [(1.0, 1.0), (0.0, 0.0)])
def test_a_label_with_one_answer_only_is_predicted_as_that(answer, probability):
    data = make_vggish_data(seed=0)
    data.train.targets[:, 2] = answer
    learner = forest(data)
    (result,) = learner.run()
    assert (learner.predict(data.validation)[:, 2] == probability).all()
    assert np.isfinite([result.train_loss, result.validation_loss]).all()


def test_the_number_of_threads_changes_nothing():
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        learner = forest()
        list(learner.run())
        found.append(learner.predict(learner.data.validation))
    torch.set_num_threads(1)
    assert np.array_equal(*found)


def test_a_forest_counts_no_parameters_and_its_state_keeps_no_trees():
    learner = forest()
    list(learner.run())
    assert learner.parameter_counts() == {}
    assert set(learner.state()) == {"epoch", "config"}
