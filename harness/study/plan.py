"""The trials of a driver by number: a study draws them from its space, an evaluation lists them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import BaseTrial

from harness.config.study import StudySpec
from search_spaces import load


@dataclass(frozen=True)
class PlannedTrial:
    """The settings and the names of one trial.

    `spec` decides its data, backbone, epochs and precision; `seed` decides its weights and batches. `title` is its name
    on the console. `run_name` is that of its run in MLflow, by default system and number, and `tags` are further tags
    there.
    """

    spec: StudySpec
    seed: int
    title: str
    run_name: str = ""
    tags: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The trials of one Optuna study, over all drivers.

    `suggest` draws the parameters of a trial and returns its constants by path. `trial` returns the settings of the
    trial with that number, from 0. With `reads_test`, each trial reads the test split after its last epoch.
    """

    n_trials: int
    suggest: Callable[[BaseTrial], Mapping[str, Any]]
    trial: Callable[[int], PlannedTrial]
    reads_test: bool = False


def study_plan(spec: StudySpec) -> Plan:
    """Return the plan of a study, whose trials are drawn from its space and have a seed each."""
    return Plan(
        spec.trials,
        suggest=load(spec.space, spec.preset).suggest,
        trial=lambda number: PlannedTrial(spec, spec.trial_seed(number), title=f"trial {number}"),
    )
