import pytest

from harness.training.metrics import METRICS, OF_RECORD
from tracking import names

# The public name rules of MLflow 3.17, by its own check.
ODD = [
    "R&B", "Violin, fiddle", "(other)", "Hi-hat/closed", "Électro", "C++", "a//b", "/a", "a/", ".", "..", "a/../b",
    "50%", "#1", "what?", "a`b", "😀", "R_x0026_B", "two\nlines", "_x_", "rock 'n' roll", "日本",
]  # fmt: skip
PLAIN = ["accordion", "mallet_percussion", "Hip Hop", "Drum-kit", "rock/indie", "v1.2", "a:b", "Électro", "_x_"]


@pytest.mark.parametrize("label", [*ODD, *PLAIN])
def test_mlflow_takes_the_metric_of_any_label_and_the_label_comes_back(label):
    from mlflow.utils.validation import _validate_metric_name

    metric = names.labelled("val_f1", label)
    _validate_metric_name(metric)
    assert names.label_of(metric) == label


@pytest.mark.parametrize("label", PLAIN)
def test_a_plain_label_keeps_the_name_it_had_in_older_databases(label):
    assert names.labelled("f1", label) == f"f1/{label}"


def test_no_two_labels_share_a_name():
    labels = {*ODD, *PLAIN}
    assert len({names.labelled("f1", label) for label in labels}) == len(labels)


def test_every_system_has_one_colour_and_the_known_ones_differ():
    systems = ("unet", "cnn", "noise", "none", "finetune", "cnn_baseline", "mean_teacher", "random_forest")
    assert len({names.colour_of(system) for system in systems}) == len(systems)
    assert names.colour_of("transformer") == names.colour_of("transformer")


def test_an_experiment_name_has_no_slash():
    assert "/" not in names.experiment_name("data/of/mine", "MIT/ast")


def test_the_copies_of_the_metrics_are_those_of_the_registry():
    assert (OF_RECORD, tuple(METRICS)) == (names.MACRO_F1, names.METRICS)
