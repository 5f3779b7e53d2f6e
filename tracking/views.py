"""The named views of an experiment: the columns and charts in which the MLflow UI shows its trials and evaluations.

MLflow keeps a view as an experiment tag that holds the UI's own, undocumented state (deflated JSON): found by
saving one and by reading the UI of MLflow 3.17, to which pyproject.toml is pinned.

The UI's parallel coordinates leave out every run that lacks one of their axes: a parameter that only some trials
draw would leave out all others. Hence charts with what all trials draw, and others for each system.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracking import names

RANKED = "harness_ranked"
SIZE = "harness_size"
SEARCHED = "harness_searched"
GROUPED = "harness_grouped"
EVALUATED = "harness_evaluated"
TITLES = {
    RANKED: "1 Ranked trials",
    SIZE: "2 F1 against size",
    SEARCHED: "3 What was searched",
    GROUPED: "4 Mean by system",
    EVALUATED: "5 Evaluated on test",
}
_AXES_PER_CHART = 4
_MAX_RUNS = 100
_FIGURES = (
    names.MACRO_F1,
    names.PARAMS,
    names.EPOCHS,
    names.SECONDS,
    names.POSITIVE_F1,
    names.MEAN_AVERAGE_PRECISION,
)
_ALWAYS_SHOWN = (names.SYSTEM_KIND, names.REPROGRAMMER, names.MAPPER, names.SCHEDULE)

_Params = Mapping[str, str]


@dataclass(frozen=True)
class Searched:
    """The parameter paths that differ between trials.

    `shared` are those that all trials have, `by_system` those that all trials of one system have besides. `terms` are
    no paths: in these the studies differ that the trials are of, so that their figures may not compare.
    """

    systems: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    by_system: tuple[tuple[str, tuple[str, ...]], ...] = ()
    terms: tuple[str, ...] = ()


def searched_paths(trials: Iterable[_Params]) -> Searched:
    """Find out what was searched from the parameters of the trials there are."""
    trials = list(trials)
    systems = sorted({_system_of(trial) for trial in trials} - {""})
    shared = _differing(trials)
    by_system = []
    for system in systems:
        differing = _differing([trial for trial in trials if _system_of(trial) == system])
        if own := tuple(path for path in differing if path not in shared):
            by_system.append((system, own))
    return Searched(tuple(systems), shared, tuple(by_system), _differing_terms(trials))


def view_tags(labels: Sequence[str], searched: Searched) -> dict[str, str]:
    """Return the experiment tags that hold the views. `labels` are in class order."""
    columns = _columns(labels, searched)
    states: dict[str, dict[str, Any]] = {
        RANKED: {},
        SIZE: _charts(*_size_sections()),
        SEARCHED: _charts(*_searched_sections(searched)),
        GROUPED: _grouped(labels, searched),
        EVALUATED: _evaluated(labels, searched),
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


def _columns(labels: Sequence[str], searched: Searched) -> dict[str, Any]:
    """Put first what a stranger asks: how good, with which reprogrammer, at what size, and is that comparable."""
    own = [path for _, paths in searched.by_system for path in paths]
    searched_first_to_last = dict.fromkeys([*searched.shared, *own])
    selected = [
        f"metrics.`{names.MACRO_F1}`",
        f"tags.`{names.SYSTEM}`",
        f"metrics.`{names.PARAMS}`",
        *(f"params.`{path}`" for path in (*searched.terms, names.MAPPER, names.SCHEDULE)),
        *(f"metrics.`{name}`" for name in (names.EPOCHS, names.SECONDS)),
        f"tags.`{names.OPTUNA_STATE}`",
        *(f"metrics.`{name}`" for name in (names.POSITIVE_F1, names.MEAN_AVERAGE_PRECISION)),
        *(f"metrics.`{names.f1(label)}`" for label in labels),
        *(f"params.`{path}`" for path in searched_first_to_last if path not in _ALWAYS_SHOWN),
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


def _charts(sections: list[dict[str, Any]], charts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"compareRunSections": sections, "compareRunCharts": charts, "isAccordionReordered": True}


def _size_sections() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    section = _section("F1 against trainable parameters, and by epoch", columns=2, height=520)
    scatter = _chart(
        section,
        "SCATTER",
        xaxis={"key": names.PARAMS_LOG10, "type": "METRIC"},
        yaxis={"key": names.MACRO_F1, "type": "METRIC"},
    )
    curves = _chart(section, "LINE", metricKey=names.VAL_MACRO_F1, selectedMetricKeys=[names.VAL_MACRO_F1])
    return [section], [scatter, curves]


def _searched_sections(searched: Searched) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    groups = [("What every trial draws", searched.shared)]
    groups += [(f"What {system} draws", paths) for system, paths in searched.by_system]
    sections, charts = [], []
    for title, paths in groups:
        section = _section(title, columns=1, height=400)
        sections.append(section)
        first_axis = [path for path in (names.SYSTEM_KIND, names.REPROGRAMMER) if path in searched.shared]
        own = [path for path in paths if path not in first_axis]
        for first in range(0, max(len(own), 1), _AXES_PER_CHART):
            axes = [*first_axis, *own[first : first + _AXES_PER_CHART]]
            metrics = [names.PARAMS_LOG10, names.MACRO_F1]
            charts.append(
                _chart(section, "PARALLEL", first, selectedParams=axes, selectedMetrics=metrics, showAllRuns=True)
            )
    return sections, charts


def _grouped(labels: Sequence[str], searched: Searched) -> dict[str, Any]:
    keys = [{"mode": "tag", "groupByData": names.SYSTEM}]
    closed = {f"tag.{names.SYSTEM}.{system}": False for system in searched.systems}
    columns = [f"metrics.`{name}`" for name in (*_FIGURES, *(names.f1(label) for label in labels))]
    return {
        "groupBy": {"aggregateFunction": "average", "groupByKeys": keys},
        "groupsExpanded": closed,
        **_column_state(columns, min_width=130),
    }


def _evaluated(labels: Sequence[str], searched: Searched) -> dict[str, Any]:
    """Show the runs of evaluations, which the other views leave out: the test split is no place to search."""
    columns = [
        *(f"tags.`{name}`" for name in (names.SYSTEM, names.SOURCE_STUDY, names.SOURCE_TRIAL, names.SEED_INDEX)),
        *(
            f"metrics.`{names.test(name)}`"
            for name in (names.MACRO_F1, names.POSITIVE_F1, names.MEAN_AVERAGE_PRECISION)
        ),
        *(f"params.`{term}`" for term in searched.terms),
        *(f"metrics.`{name}`" for name in (names.MACRO_F1, names.PARAMS, names.SECONDS)),
        *(f"metrics.`{names.test_f1(label)}`" for label in labels),
    ]
    return {
        "searchFilter": f"tags.{names.KIND} = '{names.EVALUATION_RUN_KIND}'",
        "orderByKey": f"metrics.`{names.TEST_MACRO_F1}`",
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
    """Return what tells systems apart among parameters: the kind of reprogrammer where there is one."""
    return trial.get(names.REPROGRAMMER) or trial.get(names.SYSTEM_KIND, "")


def _differing(trials: Sequence[_Params]) -> tuple[str, ...]:
    """Return the paths that all trials have and differ in; a logarithm stands for its number."""
    if not trials:
        return ()
    common = set.intersection(*(set(trial) for trial in trials))
    differing = [path for path in trials[0] if path in common and len({trial[path] for trial in trials}) > 1]
    twins = {path for path in differing if names.log10_path(path) in differing}
    searched = [path for path in differing if path not in twins and not names.is_term(path)]
    return tuple(sorted(searched, key=lambda path: (not path.endswith("/kind"), "log10_" not in path)))


def _differing_terms(trials: Sequence[_Params]) -> tuple[str, ...]:
    """Return the terms in which those trials differ that have them: older ones may not."""
    found = sorted({name for trial in trials for name in trial if names.is_term(name)})
    return tuple(name for name in found if len({trial[name] for trial in trials if name in trial}) > 1)


def _tag(title: str, state: Mapping[str, Any]) -> str:
    deflated = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    # The times are shown nowhere; constant ones let a reader see that a view did not change.
    return json.dumps({"name": title, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{deflated}"})
