"""What is told of a study's terms, and what of several studies'."""

from dataclasses import fields

from harness.config.study import DataSpec, StudySpec, named_terms, terms_of_all
from tests.support.evaluations import make_spec

TAGS = {"name", "space", "seed", "provenance"}
NO_MATTER = {"trials", "storage", "tracking_uri"}  # of how many trials there are, and where
IN_THE_DIGEST = {"demo_clips", "demo_seed"}


def test_whatever_a_study_is_said_to_be_is_a_term_or_known_otherwise():
    of_study = {field.name for field in fields(StudySpec)} - TAGS - NO_MATTER
    of_data = {field.name for field in fields(DataSpec)} - IN_THE_DIGEST - {"source"}  # which is called data
    assert set(named_terms(make_spec("s"))) == of_study | of_data


def test_what_is_held_is_told_in_one_order():
    one, other = ({"b/y": 2, "a/x": 0.5}, {"a/x": 0.5, "b/y": 2})
    assert named_terms(make_spec("s", fixed=one)) == named_terms(make_spec("t", fixed=other))
    assert named_terms(make_spec("s", fixed=one))["fixed"] == "a/x=0.5 b/y=2"


def test_the_published_split_has_no_fraction_of_ours():
    assert named_terms(make_spec("s", data=DataSpec(split="public")))["validation_fraction"] == "published"


def test_where_studies_differ_all_their_values_are_told_in_their_order():
    told = terms_of_all([make_spec("a", epochs=12), make_spec("b", epochs=1), make_spec("c", epochs=12)])
    assert (told["epochs"], told["precision"]) == ("12, 1", "fp32")
