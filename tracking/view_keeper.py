"""Keeps an experiment's views abreast of its trials, whatever study or machine they come from."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tracking import names, views

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LOG = logging.getLogger(__name__)
_MAX_TAG_LENGTH = 5000  # MLflow refuses longer ones


class ViewKeeper:
    """Writes the views of one experiment anew when a trial or a study adds something to them."""

    def __init__(self, client: "MlflowClient", experiment_id: str) -> None:
        self._client, self._experiment_id = client, experiment_id
        self._written = dict(client.get_experiment(experiment_id).tags)
        self._labels: list[str] = json.loads(self._written.get(names.LABELS, "[]"))
        self._trials = self._known_trials()

    def add_labels(self, labels: Sequence[str]) -> None:
        """Make columns of a study's labels, after those of earlier studies."""
        self._labels += [label for label in labels if label not in self._labels]
        self._refresh()

    def add_trial(self, run_id: str, params: Mapping[str, str]) -> None:
        """Make columns and axes of what a trial draws."""
        self._trials[run_id] = dict(params)
        self._refresh()

    def _refresh(self) -> None:
        searched = views.searched_paths(self._trials.values())
        tags = {names.LABELS: json.dumps(self._labels), **views.view_tags(self._labels, searched)}
        for name, value in tags.items():
            if self._written.get(name) == value:
                continue
            if len(value) <= _MAX_TAG_LENGTH:
                self._client.set_experiment_tag(self._experiment_id, name, value)
            else:
                _LOG.warning("%s stays as it was: %d labels make it too long for MLflow", name, len(self._labels))
            self._written[name] = value

    def _known_trials(self) -> dict[str, Mapping[str, str]]:
        known: dict[str, Mapping[str, str]] = {}
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id], f"tags.{names.KIND} = '{names.TRIAL_KIND}'", page_token=token
            )
            known |= {run.info.run_id: run.data.params for run in page}
            token = page.token
            if not token:
                return known
