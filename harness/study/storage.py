"""The Optuna study behind a study: its storage, its sampler and its queue.

The storage is SQLite, or a journal file where SQLite's locks cannot be trusted.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import TrialState

from harness.config.space import papers_within
from harness.config.study import StudyPlace, StudySpec
from search_spaces import load
from tracking.uris import sqlite_uri

JOURNAL = "optuna.journal"


def open_storage(home: Path) -> BaseStorage:
    """Return the storage in a study's directory: its journal if there is an `optuna.journal`, else SQLite.

    An empty journal file, made before the study begins, asks for a journal, as on a network file system.
    """
    journal = home / JOURNAL
    if journal.exists():
        return JournalStorage(JournalFileBackend(str(journal)))
    return RDBStorage(sqlite_uri(home / "optuna.db"), engine_kwargs={"connect_args": {"timeout": 60}})


def open_study(spec: StudySpec, place: StudyPlace) -> optuna.Study:
    """Return the Optuna study; a new one has the paper's configurations enqueued, or its whole budget for a table."""
    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][: len(spec.objectives)]
    study = optuna.create_study(
        storage=open_storage(place.home), study_name=spec.name, directions=directions, load_if_exists=True
    )
    n_trials = len(study.get_trials(deepcopy=False))
    study.sampler = make_sampler(spec.seed, n_trials_so_far=n_trials, fixed=spec.fixed)
    space = load(spec.space, spec.preset)
    papers = papers_within(space, spec.fixed)
    first = papers if space.cell is None else [papers[number % len(papers)] for number in range(spec.trials)]
    for paper in first[n_trials:]:
        study.enqueue_trial({**paper, **spec.fixed})
    return study


def make_sampler(seed: int, *, n_trials_so_far: int, fixed: Mapping[str, Any]) -> optuna.samplers.BaseSampler:
    """Return a TPE sampler that does not repeat its draws when a study resumes.

    Its experimental options are chosen on purpose, so Optuna's warnings about them are silenced.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler: optuna.samplers.BaseSampler = optuna.samplers.TPESampler(
            seed=(seed + n_trials_so_far) % 2**32, multivariate=True, group=True, constant_liar=True
        )
        return optuna.samplers.PartialFixedSampler(dict(fixed), sampler) if fixed else sampler


def requeue(study: optuna.Study) -> None:
    """Let interrupted trials wait for the next driver; they keep their parameters and checkpoints."""
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.RUNNING:
            study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)


def has_remaining_trials(study: optuna.Study, n_trials: int) -> bool:
    """Return whether one of the planned trials has not ended."""
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False)) < n_trials
