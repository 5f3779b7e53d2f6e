"""What a study is, as it is written beside its results, and what its trials are given."""

import json

import pytest

from harness.common.records import from_json, to_json
from harness.config.study import DataSpec, Resources, StudyPlace, StudySpec, parse_seconds
from harness.study.driver import Slots, slots


def spec(**changes):
    values = {
        "name": "unet-1",
        "space": "unet",
        "trials": 12,
        "epochs": 8,
        "backbone": "ast-nano",
        "data": DataSpec(),
        "seed": 0,
        "storage": "studies",
    }
    return StudySpec(**{**values, **changes})


def test_a_study_survives_the_way_through_its_file():
    whole = spec(fixed={"reprogrammer/depth": 3}, data=DataSpec(demo_clips=40), provenance={"data_digest": "a"})
    assert from_json(StudySpec, to_json(whole)) == whole


def test_a_study_of_before_there_were_fractions_is_of_all_clips():
    stored = json.loads(to_json(spec(data=DataSpec(demo_clips=40))))
    del stored["data"]["fraction"]
    assert from_json(StudySpec, json.dumps(stored)) == spec(data=DataSpec(demo_clips=40))


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, 10, float("nan")])
def test_what_is_no_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match=f"fraction={fraction}: must be above 0 and at most 1"):
        DataSpec(fraction=fraction)


def test_a_file_with_unknown_fields_is_refused():
    text = to_json(spec()).replace('"epochs"', '"epoch"')
    with pytest.raises(ValueError, match="unknown fields epoch"):
        from_json(StudySpec, text)


def test_trials_have_seeds_of_their_own_that_depend_on_the_studys():
    seeds = {spec(seed=s).trial_seed(n) for s in range(5) for n in range(100)}
    assert len(seeds) == 500


def test_a_budget_grows_and_never_shrinks():
    assert spec().extended(trials=20, tracking_uri=None).trials == 20
    assert spec().extended(trials=None, tracking_uri=None) == spec()
    with pytest.raises(ValueError, match="trials=3: study unet-1 already has a budget of 12"):
        spec().extended(trials=3, tracking_uri=None)


def test_a_uri_is_for_what_workers_write_and_the_driver_stays_local():
    place = StudyPlace.of("s3://bucket/studies/", "unet-1")
    assert place.shared == "s3://bucket/studies/unet-1"
    assert place.home.is_absolute()
    assert place.home.name == "unet-1"


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200)])
def test_a_time_budget_has_units(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1s", "2d", "nan", "inf"])
def test_what_is_no_time_budget_is_refused(text):
    with pytest.raises(ValueError, match="must be a duration such as 90s"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("resources", "available", "expected"),
    [
        (Resources(), {"CPU": 2}, Slots(2, 1, 0)),
        (Resources(concurrent=1), {"CPU": 2}, Slots(1, 2, 0)),
        (Resources(concurrent=4), {"CPU": 2}, Slots(4, 0.5, 0)),
        (Resources(), {"CPU": 16, "GPU": 2}, Slots(2, 8, 1)),
        (Resources(gpus_per_trial=0.25), {"CPU": 16, "GPU": 2}, Slots(8, 2, 0.25)),
        (Resources(gpus_per_trial=0), {"CPU": 16, "GPU": 2}, Slots(16, 1, 0)),
        (Resources(cpus_per_trial=4), {"CPU": 16}, Slots(4, 4, 0)),
        (Resources(address="auto"), {"CPU": 8}, Slots(8, 1, 0)),
        (Resources(address="auto", concurrent=8, gpus_per_trial=0.5), {}, Slots(8, 1, 0.5)),
    ],
)
def test_trials_share_what_there_is(resources, available, expected):
    assert slots(resources, available) == expected


@pytest.mark.parametrize("available", [{}, {"CPU": 4, "GPU": 0}])
def test_too_little_for_one_trial_is_refused(available):
    with pytest.raises(ValueError, match="a trial with 1 CPUs and 1 GPUs does not fit"):
        slots(Resources(gpus_per_trial=1), available)


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("concurrent", 0, "concurrent=0: must be at least 1"),
        ("cpus_per_trial", -1, "cpus-per-trial=-1: must be at least 1"),
        ("gpus_per_trial", -0.5, "gpus-per-trial=-0.5: must not be negative"),
    ],
)
def test_what_no_trial_can_have_is_refused(flag, value, message):
    with pytest.raises(ValueError, match=message):
        Resources(**{flag: value})
