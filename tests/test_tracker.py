"""What a study's tracking records tell a ceiling from honest studies by."""

import json

import optuna
import pytest
from optuna.trial import TrialState

from harness.evaluation.choosing import candidates
from harness.evaluation.run import _spec_of
from harness.evaluation.runs import EvaluationPlan, Run, RunList
from harness.plan import StudyPlan
from harness.searcher import PATHS
from harness.spec import DataSpec, StudyPlace
from harness.tracker import Tracker, experiment_of
from tests.evaluations import make_spec, make_study
from tracking import names
from tracking.records import trial_key

CEILING = DataSpec(reveals_all=True)


class Notebook:
    """Stands in for the outbox: keeps what it is given."""

    def __init__(self, _home, _uri, *, experiment):
        self.experiment, self.study_key, self.records = experiment, "s", []

    def add(self, records):
        self.records += records

    def has_ended(self, _number):
        return False

    def tags_of(self, number):
        (record,) = [r for r in self.records if r.op == "run" and r.key == trial_key(self.study_key, number)]
        return record.body["tags"]


@pytest.fixture
def tracked(tmp_path, monkeypatch):
    """Return what a study's or an evaluation's tracker writes down."""
    monkeypatch.setattr("harness.tracker.load_mlflow", lambda: None)
    monkeypatch.setattr("harness.tracker.Outbox", Notebook)

    def write(spec, plan, *, n_trials=1):
        study = optuna.create_study()
        for _ in range(n_trials):
            paths = {PATHS: json.dumps({"reprogrammer/kind": "unet"})}
            study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs=paths))
        tracker = Tracker(study, spec, StudyPlace.of(str(tmp_path), spec.name), plan=plan, labels=("banjo",))
        for number in range(n_trials):
            tracker.start(number)
        return tracker._outbox

    return write


def test_a_ceiling_has_an_experiment_of_its_own():
    honest, ceiling = make_spec("a"), make_spec("b", data=CEILING)
    assert experiment_of(honest) == "reprogramming demo-dddddd ast-nano"
    assert experiment_of(ceiling) == "reprogramming demo-dddddd all positives known ast-nano"


def test_the_runs_of_a_ceiling_are_tagged_and_have_a_parameter_and_those_of_honest_studies_do_not(tracked):
    for data, told in ((DataSpec(), None), (CEILING, "True")):
        spec = make_spec("s", data=data)
        kept = tracked(spec, StudyPlan(spec))
        assert kept.experiment == experiment_of(spec)
        runs = [record for record in kept.records if record.op == "run"]
        assert [record.body["tags"].get(names.REVEALS_ALL) for record in runs] == [told, told]
        params = [record.body["values"] for record in kept.records if record.op == "params"]
        assert [values.get(names.REVEALS_ALL) for values in params] == [told, told]


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_an_evaluation_of_both_is_among_the_honest_and_tells_its_runs_apart(tracked, tmp_path, order):
    sources = {"a": make_spec("a"), "b": make_spec("b", data=CEILING)}
    sources = {name: sources[name] for name in order}
    listed = RunList(sources, tuple(Run(name, 0, "unet", "c", 0, {}) for name in ("a", "b")))
    spec = _spec_of(listed, StudyPlace.of(str(tmp_path), "e"), tracking_uri=None)
    kept = tracked(spec, EvaluationPlan(listed), n_trials=2)
    assert kept.experiment == experiment_of(sources["a"])
    assert [kept.tags_of(number).get(names.REVEALS_ALL) for number in (0, 1)] == [None, "True"]


def test_a_ceiling_is_named_as_one_where_it_is_evaluated(tmp_path):
    place = make_study(tmp_path)
    assert {c.system for c in candidates(place, make_spec("s"))} == {"unet", "cnn", "random_forest"}
    assert {c.system for c in candidates(place, make_spec("s", data=CEILING))} == {
        "unet-ceiling",
        "cnn-ceiling",
        "random_forest-ceiling",
    }
