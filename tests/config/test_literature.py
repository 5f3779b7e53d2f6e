"""What was copied from the literature, against the sums that the literature gives itself."""

import numpy as np
import pytest

from harness.config.literature import (
    F1_BY_LABEL,
    F1_CORRELATION_WITH_POSITIVES,
    FOREST_F1_BY_LABEL,
    LABEL_COUNTS,
    SYSTEMS,
)


def total(*names):
    return sum(getattr(counts, name) for counts in LABEL_COUNTS.values() for name in names)


def test_the_label_counts_add_up_to_those_of_the_data_set():
    assert total("train_positive", "train_negative") == 30_746
    assert total("test_positive", "test_negative") == 10_522
    assert total("train_positive", "train_negative", "test_positive", "test_negative") == 41_268
    assert total("train_positive", "test_positive") == 17_614


def test_the_labels_are_openmics_in_the_order_of_its_class_map():
    assert len(LABEL_COUNTS) == 20
    assert list(LABEL_COUNTS) == sorted(LABEL_COUNTS)


@pytest.mark.parametrize(("name", "mean"), [("none", 61.75), ("noise", 68.47), ("cnn", 78.09), ("unet", 81.68)])
def test_the_f1_of_fig_5_have_the_mean_that_goes_with_them(name, mean):
    assert list(F1_BY_LABEL[name]) == list(LABEL_COUNTS)
    assert np.mean(list(F1_BY_LABEL[name].values())) == pytest.approx(mean, abs=0.006)
    assert abs(mean - SYSTEMS[name].macro_f1) < 0.5, "near the median of Fig. 4"


def test_the_forests_of_the_notebook_score_as_the_papers():
    assert np.mean(list(FOREST_F1_BY_LABEL.values())) == pytest.approx(SYSTEMS["random_forest"].macro_f1, abs=0.1)


def test_the_correlation_of_positives_and_f1_follows_from_the_figures():
    positives = [c.train_positive for c in LABEL_COUNTS.values()]
    r = np.corrcoef(positives, list(F1_BY_LABEL["none"].values()))[0, 1]
    assert r == pytest.approx(F1_CORRELATION_WITH_POSITIVES, abs=0.01)


def test_exact_counts_round_to_table_1():
    for system in SYSTEMS.values():
        if system.params is not None:
            assert round(system.params / 1e6, 3) == system.params_millions


def test_systems_come_in_the_order_of_their_medians_after_the_baseline_that_all_are_measured_against():
    medians = [system.macro_f1 for system in SYSTEMS.values()]
    assert len(SYSTEMS) == 8
    assert next(iter(SYSTEMS)) == "none"
    assert medians[1:] == sorted(medians[1:])
