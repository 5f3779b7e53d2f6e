"""Keeps an experiment's views abreast of its trials, whatever study or machine they come from."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tracking import names, views

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LOG = logging.getLogger(__name__)


class ViewKeeper:
    """Writes the views of one experiment anew when a trial or a study adds something to them."""

    def __init__(self, client: "MlflowClient", experiment_id: str) -> None:
        self._client, self._experiment_id = client, experiment_id
        tags = client.get_experiment(experiment_id).tags
        self._labels: list[str] = json.loads(tags.get(names.LABELS, "[]"))
        self._trials: dict[str, Mapping[str, str]] = self._known_trials()
        self._written: dict[str, str] = {name: tags.get(name, "") for name in self._tags()}

    def add_labels(self, labels: Sequence[str]) -> None:
        """Make columns of a study's labels, after those of earlier studies."""
        merged = [*self._labels, *(label for label in labels if label not in self._labels)]
        if merged != self._labels:
            self._client.set_experiment_tag(self._experiment_id, names.LABELS, json.dumps(merged))
        self._labels = merged
        self._refresh()

    def add_trial(self, run_id: str, params: Mapping[str, str]) -> None:
        """Make columns and axes of what a trial draws."""
        self._trials[run_id] = dict(params)
        self._refresh()

    def _refresh(self) -> None:
        for name, value in self._tags().items():
            if self._written.get(name) != value:
                self._client.set_experiment_tag(self._experiment_id, name, value)
                self._written[name] = value

    def _tags(self) -> dict[str, str]:
        return views.view_tags(self._labels, views.searched_paths(self._trials.values()))

    def _known_trials(self) -> dict[str, Mapping[str, str]]:
        by_kind = f"tags.{names.KIND} = '{names.TRIAL_KIND}'"
        found: dict[str, Mapping[str, str]] = {}
        token = None
        while True:
            page = self._client.search_runs([self._experiment_id], by_kind, page_token=token)
            found |= {run.info.run_id: run.data.params for run in page}
            token = page.token
            if not token:
                return found
