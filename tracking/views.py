"""The named views of an experiment: the columns and charts in which the MLflow UI shows its trials and evaluations.

MLflow keeps a view as an experiment tag with the UI's own, undocumented state (deflated JSON). Its format is that of
views saved in MLflow 3.17, to which pyproject.toml is pinned.

The UI's parallel coordinates drop every run that lacks one of their axes. A chart therefore has only parameters that
all its trials draw: one chart for the parameters that all systems share, and one for each system.
"""

import base64
import json
import logging
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracking import names

if TYPE_CHECKING:
    from mlflow import MlflowClient

RANKED = "harness_ranked"
SIZE = "harness_size"
SEARCHED = "harness_searched"
GROUPED = "harness_grouped"
EVALUATED = "harness_evaluated"
TITLES = {
    RANKED: "1 Ranked trials",
    SIZE: "2 F1 against size",
    SEARCHED: "3 Searched parameters",
    GROUPED: "4 Mean by system",
    EVALUATED: "5 Evaluated on test",
}
_AXES_PER_CHART = 4
_MAX_RUNS = 100
_MAX_TAG_CHARS = 20_000  # MLflow refuses longer ones
_MAX_FOUND = 50_000  # MLflow's own limit
_LOG = logging.getLogger(__name__)
_ALWAYS_SHOWN = (names.SYSTEM_KIND, names.REPROGRAMMER, names.MAPPER, names.SCHEDULE)

_Params = Mapping[str, str]


@dataclass(frozen=True)
class Searched:
    """The parameter paths that differ between trials.

    All trials have those in `shared`; `by_system` are further ones that all trials of one system have. `settings` are
    the settings in which the studies of the trials differ: their figures may not be comparable.
    """

    systems: tuple[str, ...]
    shared: tuple[str, ...]
    by_system: Mapping[str, tuple[str, ...]]
    settings: tuple[str, ...]


def searched_paths(trials: Iterable[_Params]) -> Searched:
    """Derive the searched parameters from those of all trials."""
    trials = list(trials)
    systems = sorted({_system_of(trial) for trial in trials} - {""})
    shared = _differing(trials)
    by_system = {}
    for system in systems:
        differing = _differing([trial for trial in trials if _system_of(trial) == system])
        if own := tuple(path for path in differing if path not in shared):
            by_system[system] = own
    return Searched(tuple(systems), shared, by_system, _differing_settings(trials))


def view_tags(labels: Sequence[str], searched: Searched, *, metrics: Sequence[str] = names.METRICS) -> dict[str, str]:
    """Return the experiment tags that hold the views. `labels` are in class order."""
    others = [name for name in metrics if name != names.MACRO_F1]
    columns = _columns(labels, searched, metrics=others)
    states: dict[str, dict[str, Any]] = {
        RANKED: {},
        SIZE: _size(),
        SEARCHED: _searched(searched),
        GROUPED: _grouped(labels, searched, metrics=others),
        EVALUATED: _evaluated(labels, searched, metrics=others),
    }
    return {
        f"mlflow.sharedViewState.{view}": _tag(TITLES[view], {**_STATE, **columns, **state})
        for view, state in states.items()
    }


def view_url(base: str, experiment_id: str, *, view: str = RANKED) -> str:
    """Return the link that opens a view; `base` is the server's address."""
    mode = "TABLE" if view in (RANKED, GROUPED, EVALUATED) else "CHART"
    return (
        f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
        f"&viewStateShareKey={view}&compareRunsMode={mode}"
    )


class ViewKeeper:
    """Updates the views of one experiment when a trial or a study, from whatever machine, adds a column or an axis."""

    def __init__(self, client: "MlflowClient", experiment_id: str) -> None:
        self._client, self._experiment_id = client, experiment_id
        self._written = dict(client.get_experiment(experiment_id).tags)
        self._labels: list[str] = json.loads(self._written.get(names.LABELS, "[]"))
        self._metrics: list[str] = json.loads(self._written.get(names.METRIC_NAMES, "[]")) or list(names.METRICS)
        self._trials = self._known_trials()

    def add_columns(self, labels: Sequence[str], metrics: Sequence[str]) -> None:
        """Make columns of a study's labels and metrics, after those of earlier studies."""
        for known, new in ((self._labels, labels), (self._metrics, metrics)):
            known += [name for name in new if name not in known]
        if labels:
            self._refresh()

    def add_trial(self, run_id: str, params: Mapping[str, str]) -> None:
        """Make columns and axes of a trial's parameters."""
        self._trials[run_id] = dict(params)
        self._refresh()

    def _refresh(self) -> None:
        searched = searched_paths(self._trials.values())
        views = view_tags(self._labels, searched, metrics=self._metrics)
        lists = {names.LABELS: json.dumps(self._labels), names.METRIC_NAMES: json.dumps(self._metrics)}
        for name, value in {**lists, **views}.items():
            if self._written.get(name) == value:
                continue
            if len(value) <= _MAX_TAG_CHARS:
                self._client.set_experiment_tag(self._experiment_id, name, value)
            else:
                _LOG.warning("%s is not updated: with %d labels it exceeds MLflow's limit", name, len(self._labels))
            self._written[name] = value

    def _known_trials(self) -> dict[str, Mapping[str, str]]:
        condition = f"tags.{names.KIND} = '{names.TRIAL_KIND}'"
        found = self._client.search_runs([self._experiment_id], condition, max_results=_MAX_FOUND)
        return {run.info.run_id: run.data.params for run in found}


_STATE: dict[str, Any] = {
    "searchFilter": f"tags.{names.KIND} = '{names.TRIAL_KIND}'",
    "orderByKey": f"metrics.`{names.MACRO_F1}`",
    "orderByAsc": False,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "datasetsFilter": [],
    "modelVersionFilter": "All Runs",
    "runsExpanded": {},
    "runsPinned": [],
    "runsHidden": [],
    "runsVisibilityMap": {},
    "runsHiddenMode": "SHOW_ALL",
    "viewMaximized": False,
    "runListHidden": False,
    "isAccordionReordered": False,
    "useGroupedValuesInCharts": True,
    "hideEmptyCharts": True,
    "groupBy": None,
    "groupsExpanded": {},
    "autoRefreshEnabled": True,
    "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
}


def _columns(labels: Sequence[str], searched: Searched, *, metrics: Sequence[str]) -> dict[str, Any]:
    """Return the columns of a trial: first its score, system, size, and the settings that limit comparison."""
    own = [path for paths in searched.by_system.values() for path in paths]
    selected = [
        f"metrics.`{names.MACRO_F1}`",
        f"tags.`{names.SYSTEM}`",
        f"metrics.`{names.PARAMS}`",
        *(f"params.`{path}`" for path in (*searched.settings, names.MAPPER, names.SCHEDULE)),
        *(f"metrics.`{name}`" for name in (names.EPOCHS, names.SECONDS)),
        f"tags.`{names.OPTUNA_STATE}`",
        *(f"metrics.`{name}`" for name in metrics),
        *(f"metrics.`{names.labelled('f1', label)}`" for label in labels),
        *(f"params.`{path}`" for path in dict.fromkeys([*searched.shared, *own]) if path not in _ALWAYS_SHOWN),
        *(f"tags.`{name}`" for name in (names.STUDY, names.REASON)),
    ]
    return _column_state(selected, min_width=76)


def _column_state(columns: Sequence[str], *, min_width: int) -> dict[str, Any]:
    """Show columns in this order, each at least as wide (in pixels) as its name needs."""
    return {
        "selectedColumns": list(columns),
        "columnOrder": ["attributes.`Run Name`", "runDateAndNestInfo", *columns, "duration"],
        "columnWidths": {column: max(20 + 7 * len(column.split("`")[1]), min_width) for column in columns},
    }


def _size() -> dict[str, Any]:
    section = _section("F1 against trainable parameters, and by epoch", columns=2, height=520)
    scatter = _chart(
        section,
        "SCATTER",
        xaxis={"key": names.PARAMS_LOG10, "type": "METRIC"},
        yaxis={"key": names.MACRO_F1, "type": "METRIC"},
    )
    curves = _chart(section, "LINE", metricKey=names.VAL_MACRO_F1, selectedMetricKeys=[names.VAL_MACRO_F1])
    return _charts([section], [scatter, curves])


def _searched(searched: Searched) -> dict[str, Any]:
    sections, charts = [], []
    first_axis = [path for path in (names.SYSTEM_KIND, names.REPROGRAMMER) if path in searched.shared]
    groups = {f"Drawn by {system}": paths for system, paths in searched.by_system.items()}
    for title, paths in {"Drawn by every trial": searched.shared, **groups}.items():
        section = _section(title, columns=1, height=400)
        sections.append(section)
        own = [path for path in paths if path not in first_axis]
        for first in range(0, max(len(own), 1), _AXES_PER_CHART):
            axes = {
                "selectedParams": [*first_axis, *own[first : first + _AXES_PER_CHART]],
                "selectedMetrics": [names.PARAMS_LOG10, names.MACRO_F1],
            }
            charts.append(_chart(section, "PARALLEL", first, showAllRuns=True, **axes))
    return _charts(sections, charts)


def _charts(sections: list[dict[str, Any]], charts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"compareRunSections": sections, "compareRunCharts": charts, "isAccordionReordered": True}


def _grouped(labels: Sequence[str], searched: Searched, *, metrics: Sequence[str]) -> dict[str, Any]:
    keys = [{"mode": "tag", "groupByData": names.SYSTEM}]
    closed = {f"tag.{names.SYSTEM}.{system}": False for system in searched.systems}
    figures = (names.MACRO_F1, names.PARAMS, names.EPOCHS, names.SECONDS, *metrics)
    columns = [f"metrics.`{name}`" for name in (*figures, *(names.labelled("f1", label) for label in labels))]
    return {
        "groupBy": {"aggregateFunction": "average", "groupByKeys": keys},
        "groupsExpanded": closed,
        **_column_state(columns, min_width=130),
    }


def _evaluated(labels: Sequence[str], searched: Searched, *, metrics: Sequence[str]) -> dict[str, Any]:
    """Show the runs of evaluations. The other views hide them, since nobody should search on the test split."""
    columns = [
        *(f"tags.`{name}`" for name in (names.SYSTEM, names.SOURCE_STUDY, names.SOURCE_TRIAL, names.SEED_INDEX)),
        *(f"metrics.`{names.test(name)}`" for name in (names.MACRO_F1, *metrics)),
        *(f"params.`{setting}`" for setting in searched.settings),
        *(f"metrics.`{name}`" for name in (names.MACRO_F1, names.PARAMS, names.SECONDS)),
        *(f"metrics.`{names.labelled('test_f1', label)}`" for label in labels),
    ]
    return {
        "searchFilter": f"tags.{names.KIND} = '{names.EVALUATION_RUN_KIND}'",
        "orderByKey": f"metrics.`{names.test(names.MACRO_F1)}`",
        **_column_state(columns, min_width=76),
    }


def _section(title: str, *, columns: int, height: int) -> dict[str, Any]:
    return {
        "uuid": f"harness {title}",
        "name": title,
        "display": True,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
        "columns": columns,
        "cardHeight": height,
    }


def _chart(section: Mapping[str, Any], kind: str, number: int = 0, **config: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "uuid": f"{section['uuid']} {kind} {number}",
        "metricSectionId": section["uuid"],
        "runsCountToCompare": _MAX_RUNS,
        "deleted": False,
        "isGenerated": False,
        **config,
    }


def _system_of(trial: _Params) -> str:
    """Return the parameter that names a trial's system: the kind of its reprogrammer, if it has one."""
    return trial.get(names.REPROGRAMMER) or trial.get(names.SYSTEM_KIND, "")


def _differing(trials: Sequence[_Params]) -> tuple[str, ...]:
    """Return the paths that all trials have and differ in; a logarithm stands for its number."""
    if not trials:
        return ()
    common = set.intersection(*(set(trial) for trial in trials))
    differing = [path for path in trials[0] if path in common and len({trial[path] for trial in trials}) > 1]
    twins = {path for path in differing if names.log10_path(path) in differing}
    searched = [path for path in differing if path not in twins and not names.is_setting(path)]
    return tuple(sorted(searched, key=lambda path: (not path.endswith("/kind"), "log10_" not in path)))


def _differing_settings(trials: Sequence[_Params]) -> tuple[str, ...]:
    """Return the settings in which trials differ, among those that record them: older trials may not."""
    found = sorted({name for trial in trials for name in trial if names.is_setting(name)})
    return tuple(name for name in found if len({trial[name] for trial in trials if name in trial}) > 1)


def _tag(title: str, state: Mapping[str, Any]) -> str:
    deflated = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    # The UI shows the times nowhere; constant ones make equal views equal tags.
    return json.dumps({"name": title, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{deflated}"})
