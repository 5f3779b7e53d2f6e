"""The trials of a driver by number: a study draws them from its space, an evaluation has a list."""

from collections.abc import Mapping
from typing import Any, Protocol

from optuna.trial import BaseTrial

from harness.config.study import StudySpec
from harness.config.trial import TrialConfig
from search_spaces import load


class Plan(Protocol):
    """The trials of one Optuna study, numbered from 0."""

    @property
    def n_trials(self) -> int:
        """Return the number of trials, over all drivers."""
        ...

    @property
    def reads_test(self) -> bool:
        """Return whether a trial reads the test split after its last epoch."""
        ...

    def suggest(self, trial: BaseTrial, /) -> Mapping[str, Any]:
        """Draw the parameters of a trial; return its constants by path."""
        ...

    def terms(self, number: int) -> StudySpec:
        """Return the study that decides a trial's data, backbone, epochs and precision."""
        ...

    def seed(self, number: int) -> int:
        """Return the seed of a trial's weights and batches."""
        ...

    def title(self, number: int) -> str:
        """Name a trial on the console."""
        ...

    def run_name(self, number: int, config: TrialConfig) -> str:
        """Name a trial's run in MLflow."""
        ...

    def tags(self, number: int) -> Mapping[str, Any]:
        """Return further tags of a trial's run in MLflow."""
        ...


class StudyPlan:
    """A study's trials: drawn from its space, each with its own seed. None reads the test split."""

    reads_test = False

    def __init__(self, spec: StudySpec) -> None:
        self._spec, self._space = spec, load(spec.space, spec.preset)
        self.n_trials = spec.trials

    def suggest(self, trial: BaseTrial, /) -> Mapping[str, Any]:
        """Draw a configuration from the space."""
        return self._space.suggest(trial)

    def terms(self, number: int) -> StudySpec:  # noqa: ARG002
        """Return the study itself."""
        return self._spec

    def seed(self, number: int) -> int:
        """Return the seed of a trial's weights and batches."""
        return self._spec.trial_seed(number)

    def title(self, number: int) -> str:
        """Name a trial on the console."""
        return f"trial {number}"

    def run_name(self, number: int, config: TrialConfig) -> str:
        """Name a trial's run in MLflow by its system."""
        return f"{config.name}-{number:03d}"

    def tags(self, number: int) -> Mapping[str, Any]:  # noqa: ARG002
        """Return nothing: the study's own tags suffice."""
        return {}
