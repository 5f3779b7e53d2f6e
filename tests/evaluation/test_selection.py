"""The choice of the best configurations by validation, of studies whose runs pair."""

import optuna
import pytest

from harness.config.study import DataSpec, StudyPlace
from harness.evaluation.selection import candidates, check_comparable, check_systems
from harness.study.storage import open_storage
from tests.support.evaluations import DIGESTS, add_trial, chosen_in, make_spec, make_study


@pytest.fixture
def place(tmp_path):
    return make_study(tmp_path)


def test_the_best_finished_trial_of_each_system_is_chosen(place):
    assert [(c.system, c.trial) for c in chosen_in(place)] == [("unet", 2), ("cnn", 1), ("random_forest", 5)]


def test_one_configuration_is_chosen_once_however_many_trials_tried_it(place):
    assert [c.trial for c in chosen_in(place, top=3) if c.system == "unet"] == [2, 0]


def test_a_configuration_that_was_tried_several_times_counts_by_its_mean(place):
    assert [(c.trial, c.n_trials) for c in chosen_in(place)] == [(2, 2), (1, 1), (5, 1)]
    assert chosen_in(place)[0].figures["macro_f1"] == pytest.approx(0.675)
    study = optuna.load_study(study_name="s", storage=open_storage(place.home))
    add_trial(study, {"reprogrammer/kind": "unet", "optimiser/lr": 0.1}, macro_f1=0.3)  # its first draw was luck
    assert [(c.trial, c.n_trials) for c in chosen_in(place) if c.system == "unet"] == [(0, 1)]


def test_trials_of_one_configuration_count_by_the_metrics_that_all_of_them_have(place):
    study = optuna.load_study(study_name="s", storage=open_storage(place.home))
    add_trial(study, {"reprogrammer/kind": "unet", "optimiser/lr": 0.1}, macro_f1=0.6, lacks=("map",))
    unet = chosen_in(place)[0]
    assert (unet.trial, unet.n_trials) == (2, 3)
    assert unet.figures == pytest.approx({"macro_f1": 0.65, "positive_f1": 0.4})


def test_another_figure_of_validation_may_choose(place):
    assert [c.trial for c in chosen_in(place, by="map") if c.system == "unet"] == [0]


def test_an_unknown_system_is_refused_with_the_valid_ones(place):
    with pytest.raises(
        ValueError, match=r"systems='vae': no finished trial of it; must be one of cnn, random_f.*, unet"
    ):
        check_systems(["unet", "vae"], candidates(place, place.read_spec()))


def test_a_study_that_finished_nothing_is_refused_and_left_as_it_is(tmp_path):
    place = StudyPlace.of(str(tmp_path), "empty")
    with pytest.raises(ValueError, match="study=empty: none of its trials has finished"):
        candidates(place, make_spec("empty"))
    assert not place.home.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": DataSpec(split="public")}, "split"),
        ({"data": DataSpec(fraction=0.5)}, "fraction"),
        ({"data": DataSpec(validation_fraction=0.2, split_seed=3)}, "validation_fraction, split_seed"),
        ({"provenance": {**DIGESTS, "backbone_digest": "c"}}, "backbone_digest"),
        ({"provenance": {**DIGESTS, "data_digest": "c"}}, "data_digest"),
    ],
)
def test_studies_whose_runs_would_not_pair_are_refused(changes, said):
    with pytest.raises(ValueError, match=f"studies a and b differ in {said}: their runs would not pair"):
        check_comparable({"a": make_spec("a"), "b": make_spec("b", **changes)})


def test_studies_may_differ_in_epochs_and_in_what_training_reveals():
    check_comparable({"a": make_spec("a"), "b": make_spec("b", epochs=9, data=DataSpec(reveals_all=True))})
