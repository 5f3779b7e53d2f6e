"""The one table of settings: what each field of a study decides, in every place that compares studies."""

from dataclasses import fields, replace
from types import SimpleNamespace

import pytest

from harness.config.settings import settings_of
from harness.config.study import DataSpec, StudySpec, named_terms, terms_of_all
from harness.evaluation.caveats import learn_the_same
from harness.evaluation.plan import RunList
from harness.evaluation.selection import check_comparable
from harness.reproduction.spec import Reproduction
from harness.study import __main__ as command
from harness.study.tracker import experiment_of
from tests.support.evaluations import DIGESTS, make_spec

BASE = make_spec("s", data=DataSpec())

STUDY = {
    "name": ("t", set()),
    "space": ("cnn", set()),
    "trials": (99, {"resume"}),
    "epochs": (9, {"retraining", "learning", "term"}),
    "backbone": ("/weights/mine.pth", {"retraining", "experiment", "term"}),
    "data": (None, set()),
    "seed": (7, set()),
    "storage": ("elsewhere", {"resume"}),
    "objective": ("f1,params", {"term"}),
    "scheduler": ("none", {"term"}),
    "precision": ("bf16", {"retraining", "term"}),
    "preset": ("paper", {"term"}),
    "fixed": ({"reprogrammer/shape": "mel"}, {"term"}),
    "tracking_uri": ("http://localhost:1", {"resume", "reproduction"}),
    "provenance": ({**DIGESTS, "version/torch": "9"}, set()),
}
DATA = {
    "source": ("/sets/mine", {"retraining", "experiment", "term"}),
    "demo_clips": (40, {"retraining"}),
    "demo_seed": (3, {"retraining"}),
    "split": ("artist", {"pairs", "retraining", "term"}),
    "validation_fraction": (0.3, {"pairs", "retraining", "term"}),
    "split_seed": (3, {"pairs", "retraining", "term"}),
    "fraction": (0.5, {"pairs", "retraining", "experiment", "term"}),
    "skips_corrupt": (True, {"pairs", "retraining", "term"}),
    "reveals_all": (True, {"retraining", "learning", "experiment", "term"}),
}
PROVENANCE = {
    "data_digest": {"pairs", "retraining", "learning", "experiment"},
    "backbone_digest": {"pairs", "retraining", "learning"},
    "log_mel_digest": {"retraining"},
    "git_commit": set(),
}
TERMS = {"source": "data"}  # as MLflow databases of before name it


def refuses(check):
    try:
        check()
    except ValueError:
        return True
    return False


def decided_by(other):
    """Return the places in which another study is not the same as BASE."""
    listed = RunList({"s": BASE})
    session = SimpleNamespace(seeds=0)
    found = {
        "pairs": refuses(lambda: check_comparable({"a": BASE, "b": other})),
        "retraining": refuses(lambda: listed.extended([], session=session, sources={"s": other}, n_begun=0, failed=())),
        "learning": not learn_the_same(BASE, other),
        "experiment": experiment_of(BASE) != experiment_of(other),
        "term": named_terms(BASE) != named_terms(other),
    }
    return {place for place, is_decided in found.items() if is_decided}


@pytest.mark.parametrize("spec", [StudySpec, DataSpec])
def test_every_field_has_an_entry_here_and_in_the_table(spec):
    assert set(settings_of(spec)) == {f.name for f in fields(spec)} == set(STUDY if spec is StudySpec else DATA)


@pytest.mark.parametrize(("name", "value", "expected"), [(n, *row) for n, row in STUDY.items() if n != "data"])
def test_a_field_of_a_study_decides_exactly_what_the_table_says(name, value, expected):
    assert decided_by(replace(BASE, **{name: value})) == expected - {"resume", "reproduction"}
    assert (name in command._GO_WITH_RESUME) == ("resume" in expected)


@pytest.mark.parametrize(("name", "value", "expected"), [(n, *row) for n, row in DATA.items()])
def test_a_field_of_the_data_decides_exactly_what_the_table_says(name, value, expected):
    data = replace(BASE.data, **{name: value})
    assert decided_by(replace(BASE, data=data)) == expected
    assert name not in command._GO_WITH_RESUME


@pytest.mark.parametrize(("name", "expected"), PROVENANCE.items())
def test_a_digest_decides_exactly_what_the_table_says(name, expected):
    assert decided_by(replace(BASE, provenance={**DIGESTS, name: "c" * 64})) == expected


@pytest.mark.parametrize(
    ("changes", "is_free"),
    [
        ({"tracking_uri": "http://localhost:1"}, True),
        ({"seeds": 5}, True),
        ({"systems": ("none", "noise")}, True),
        ({"epochs": 9}, False),
        ({"trials": 9}, False),
        ({"precision": "bf16"}, False),
        ({"storage": "elsewhere"}, False),
        *(({"data": replace(DataSpec(), **{name: value})}, False) for name, (value, _) in DATA.items() if name not in
          {"reveals_all", "skips_corrupt"}),
    ],
)  # fmt: skip
def test_a_reproduction_goes_on_with_other_values_of_its_free_settings_only(changes, is_free):
    before = Reproduction("r", "studies", DataSpec(), ("none",), seeds=3, trials=8, epochs=12, backbone="ast-nano")
    assert refuses(lambda: replace(before, **changes).grown_from(before)) != is_free


def test_terms_have_the_names_that_old_databases_have():
    named = {n for n, (_, decides) in (STUDY | DATA).items() if "term" in decides}
    assert set(named_terms(BASE)) == {TERMS.get(name, name) for name in named}


def test_fixed_paths_are_one_term_in_alphabetical_order():
    one, other = ({"b/y": 2, "a/x": 0.5}, {"a/x": 0.5, "b/y": 2})
    assert named_terms(make_spec("s", fixed=one)) == named_terms(make_spec("t", fixed=other))
    assert named_terms(make_spec("s", fixed=one))["fixed"] == "a/x=0.5 b/y=2"


def test_the_published_split_has_no_fraction_of_ours():
    assert named_terms(make_spec("s", data=DataSpec(split="public")))["validation_fraction"] == "published"


def test_terms_of_several_studies_list_each_value_once_in_the_studies_order():
    terms = terms_of_all([make_spec("a", epochs=12), make_spec("b", epochs=1), make_spec("c", epochs=12)])
    assert (terms["epochs"], terms["precision"]) == ("12, 1", "fp32")
