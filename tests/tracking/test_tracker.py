"""The tracking records of a study: their experiment, and the settings that tell studies apart."""

from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from harness.config.study import DataSpec, StudyPlace
from harness.evaluation.plan import Run, RunList, evaluation_plan
from harness.evaluation.run import _spec_of
from harness.evaluation.selection import candidates
from harness.study.plan import study_plan
from harness.study.records import TrialRecord
from harness.study.tracker import Tracker, experiment_of
from tests.support.evaluations import make_spec, make_study
from tests.support.mlflow import new_store
from tracking.mlflow_store import mlflow_client
from tracking.records import trial_key

CEILING = DataSpec(reveals_all=True)
OTHER = {
    "data": DataSpec(validation_fraction=0.4, split="artist", split_seed=7, skips_corrupt=True),
    "precision": "bf16",
    "preset": "paper",
    "fixed": {"reprogrammer/shape": "mel", "mapper/kind": "linear"},
    "trials": 1,
}
OTHERS_TERMS = {
    "validation_fraction": "0.4",
    "split": "artist",
    "split_seed": "7",
    "skips_corrupt": "True",
    "precision": "bf16",
    "preset": "paper",
    "fixed": "mapper/kind=linear reprogrammer/shape=mel",
}


class Notebook:
    """Stands in for the outbox: keeps every record."""

    def __init__(self, _home, _uri, *, experiment):
        self.experiment, self.study_key, self.records = experiment, "s", []

    def add(self, records):
        self.records += records

    def has_ended(self, _number):
        return False

    def close(self):
        return ""

    def params_of(self, number):
        (record,) = [r for r in self.records if r.op == "params" and r.key == trial_key(self.study_key, number)]
        return record.body["values"]


@pytest.fixture
def tracked(tmp_path, monkeypatch):
    """Return the records of a study's or an evaluation's tracker."""
    monkeypatch.setattr("harness.study.tracker.load_mlflow", lambda: None)
    monkeypatch.setattr("harness.study.tracker.Outbox", Notebook)

    return lambda spec, plan, **kwargs: track(spec, plan, tmp_path, **kwargs)._outbox


@pytest.fixture
def stored(tmp_path, tmp_path_factory):
    """Return a search of MLflow, by a filter, after tracking these studies and evaluations."""
    uri = new_store(tmp_path, tmp_path_factory)

    def write(*tracked):
        for spec, plan in tracked:
            tracker = track(replace(spec, tracking_uri=uri), plan, tmp_path, n_trials=plan.n_trials)
            assert tracker._outbox.close(timeout_s=60) == ""
        client = mlflow_client(uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return lambda condition: client.search_runs(experiments, condition, order_by=["tags.harness_key ASC"])

    return write


def track(spec, plan, storage, *, n_trials=1):
    """Return the tracker of a study or an evaluation whose trials have started."""
    study = optuna.create_study()
    for _ in range(n_trials):
        paths = TrialRecord(paths={"reprogrammer/kind": "unet"}).attributes()
        study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs=paths))
    tracker = Tracker(study, spec, StudyPlace.of(str(storage), spec.name), plan=plan, labels=("banjo",))
    for number in range(n_trials):
        tracker.start(number)
    return tracker


def test_a_ceiling_has_an_experiment_of_its_own():
    honest, ceiling = make_spec("a"), make_spec("b", data=CEILING)
    assert experiment_of(honest) == "reprogramming demo-dddddd ast-nano"
    assert experiment_of(ceiling) == "reprogramming demo-dddddd all positives known ast-nano"


def test_what_makes_studies_of_one_experiment_differ_is_found_on_each_of_their_runs(stored):
    plain, other = make_spec("plain", trials=1), make_spec("other", **OTHER)
    assert experiment_of(plain) == experiment_of(other)
    search = stored(*((spec, study_plan(spec)) for spec in (plain, other)))
    for name, value in OTHERS_TERMS.items():
        found = search(f"params.{name} = '{value}'")
        assert [(run.data.tags["study"], run.data.tags["kind"]) for run in found] == [
            ("other", "study"),
            ("other", "trial"),
        ]
    for run in search("tags.study = 'plain'"):
        defaults = {"split": "random", "validation_fraction": "0.15", "split_seed": "0", "skips_corrupt": "False"}
        defaults |= {"fraction": "1.0", "precision": "fp32", "preset": "none", "fixed": "none", "reveals_all": "False"}
        assert defaults.items() <= run.data.params.items()


def test_a_run_says_nothing_twice(stored):
    spec = make_spec("s", trials=1, data=CEILING)
    listed = RunList({"s": spec}, (Run("s", 0, "unet", "c", 0, {}),))
    runs = stored((spec, study_plan(spec)), (replace(spec, name="e"), evaluation_plan(listed)))("")
    assert len(runs) == 4
    assert all(run.data.params.keys().isdisjoint(run.data.tags) for run in runs)


def test_the_runs_of_an_evaluation_are_on_the_terms_of_their_study_but_stopped_by_none(stored, tmp_path):
    other = make_spec("b", **{**OTHER, "data": DataSpec()}, space="unet")
    sources = {"a": make_spec("a"), "b": other}
    listed = RunList(sources, tuple(Run(name, 0, "unet", "c", 0, {}) for name in sources))
    spec = _spec_of(listed, StudyPlace.of(str(tmp_path), "e"), tracking_uri=None)
    search = stored((spec, evaluation_plan(listed)))
    (parent,), (first, second) = search("tags.kind = 'evaluation'"), search("tags.kind = 'evaluation-run'")
    for name in ("precision", "preset", "fixed"):
        assert first.data.params[name] in ("fp32", "none")
        assert second.data.params[name] == OTHERS_TERMS[name]
        assert parent.data.tags[name] == f"{first.data.params[name]}, {OTHERS_TERMS[name]}"
    assert [run.data.params["scheduler"] for run in (first, second)] == ["none", "none"]
    assert [run.data.tags["space"] for run in (first, second)] == ["noise", "unet"]
    assert (parent.data.tags["split"], parent.data.tags["scheduler"]) == ("random", "none")


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_an_evaluation_of_both_is_among_the_honest_and_tells_its_runs_apart(tracked, tmp_path, order):
    sources = {"a": make_spec("a"), "b": make_spec("b", data=CEILING)}
    sources = {name: sources[name] for name in order}
    listed = RunList(sources, tuple(Run(name, 0, "unet", "c", 0, {}) for name in ("a", "b")))
    spec = _spec_of(listed, StudyPlace.of(str(tmp_path), "e"), tracking_uri=None)
    kept = tracked(spec, evaluation_plan(listed), n_trials=2)
    assert kept.experiment == experiment_of(sources["a"])
    assert [kept.params_of(number)["reveals_all"] for number in (0, 1)] == ["False", "True"]


def test_a_ceiling_is_named_as_one_where_it_is_evaluated(tmp_path):
    place = make_study(tmp_path)
    assert {c.system for c in candidates(place, make_spec("s"))} == {"unet", "cnn", "random_forest"}
    assert {c.system for c in candidates(place, make_spec("s", data=CEILING))} == {
        "unet-ceiling",
        "cnn-ceiling",
        "random_forest-ceiling",
    }


@pytest.mark.parametrize(("values", "expected"), [({}, {"trials": 1}), ({3: 0.4}, {"macro_f1": 0.4, "trials": 1})])
def test_a_study_reports_its_best_figure_only_if_a_trial_has_one(tmp_path, monkeypatch, values, expected):
    monkeypatch.setattr("harness.study.tracker.load_mlflow", lambda: None)
    monkeypatch.setattr("harness.study.tracker.Outbox", Notebook)
    study, spec = optuna.create_study(), make_spec("s", trials=1)
    record = TrialRecord(paths={"reprogrammer/kind": "unet"}, values=values)
    study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=record.attributes()))
    tracker = Tracker(study, spec, StudyPlace.of(str(tmp_path), "s"), plan=study_plan(spec), labels=("banjo",))
    tracker.close(is_finished=True)
    (final,) = [r for r in tracker._outbox.records if (r.op, r.key) == ("metrics", "s")]
    assert final.body["values"] == expected
