"""A study with made-up finished trials, and evaluations of them."""

import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import optuna
from optuna.trial import TrialState

from harness.config.study import DataSpec, StudyPlace, StudySpec
from harness.evaluation.plan import Session
from harness.evaluation.request import Request
from harness.evaluation.selection import candidates, choose
from harness.study.records import TrialRecord
from harness.study.storage import open_storage
from tests.support.records import make_report

LABELS = ("banjo", "cello")
DIGESTS = {"data_digest": "d" * 64, "log_mel_digest": "l" * 64, "backbone_digest": "b" * 64}


def make_spec(name, **changes):
    spec = StudySpec(
        name=name,
        space="noise",
        trials=9,
        epochs=3,
        backbone="ast-nano",
        data=DataSpec(),
        seed=0,
        storage="studies",
        provenance=DIGESTS,
    )
    return replace(spec, **changes)


def add_trial(study, paths, *, macro_f1=0.5, mean_precision=0.5, state=TrialState.COMPLETE, lacks=()):
    report = make_report(0, 3, macro_f1, map=mean_precision, f1_by_label=dict.fromkeys(LABELS, 0.5))
    kept = {name: value for name, value in report.best.figures.items() if name not in lacks}
    best = replace(report.best, figures=kept)
    report = replace(report, best=best, last=best)
    attributes = TrialRecord(paths=paths, report=report).attributes()
    value = macro_f1 if state == TrialState.COMPLETE else None
    study.add_trial(optuna.trial.create_trial(state=state, value=value, user_attrs=attributes))


def make_study(tmp_path):
    """Return a study with three systems; its best trial of all was stopped early. It is made once and copied."""
    place = StudyPlace.of(str(tmp_path), "s")
    shutil.copytree(Path(_made_study().name) / "s", place.home)
    return place


@cache
def _made_study():
    directory = tempfile.TemporaryDirectory()  # removed when the process ends
    place = StudyPlace.of(directory.name, "s")
    place.home.mkdir()
    place.write_spec(make_spec("s"))
    study = optuna.create_study(storage=open_storage(place.home), study_name="s", direction="maximize")
    add_trial(study, {"reprogrammer/kind": "unet"}, macro_f1=0.6)
    add_trial(study, {"reprogrammer/kind": "cnn"}, macro_f1=0.5)
    add_trial(study, {"reprogrammer/kind": "unet", "optimiser/lr": 0.1}, macro_f1=0.7, mean_precision=0.4)
    add_trial(study, {"reprogrammer/kind": "unet", "optimiser/lr": 0.2}, macro_f1=0.9, state=TrialState.PRUNED)
    add_trial(study, {"reprogrammer/kind": "unet", "optimiser/lr": 0.1}, macro_f1=0.65)  # once more
    add_trial(study, {"system/kind": "random_forest"}, macro_f1=0.4)
    return directory


def place_beside(place, name=None):
    """Return the place of an evaluation of one study."""
    return Request((place,), name=name).place


def chosen_in(place, **choice):
    return choose(candidates(place, place.read_spec()), **{"top": 1, "by": "macro_f1", **choice})


def session(chosen, *, seeds=2, began="2026-11-22T14:03:00+00:00"):
    return Session(began, seeds, 1, "macro_f1", tuple(c.key for c in chosen))


def extended(listed, chosen, *, seeds=2, n_begun=0, failed=()):
    sources = {c.study: make_spec(c.study) for c in chosen}
    return listed.extended(
        chosen, session=session(chosen, seeds=seeds), sources=sources, n_begun=n_begun, failed=failed
    )
