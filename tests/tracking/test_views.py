import base64
import json
import zlib

import pytest

from tracking import names, records, views

LABELS = ["accordion", "banjo"]


def _trial(kind, **params):
    return {names.REPROGRAMMER: kind, **params}


def _states(searched, labels=LABELS, **more):
    states = {}
    for name, value in views.view_tags(labels, searched, **more).items():
        view = json.loads(value)
        packed = base64.b64decode(view["state"].removeprefix("deflate;"))
        states[name.removeprefix("mlflow.sharedViewState.")] = json.loads(zlib.decompress(packed))
    return states


@pytest.fixture
def searched():
    return views.searched_paths(
        [
            _trial("unet", **{"optimiser/lr": "0.1", "optimiser/log10_lr": "-1", "reprogrammer/width": "4"}),
            _trial("unet", **{"optimiser/lr": "0.01", "optimiser/log10_lr": "-2", "reprogrammer/width": "8"}),
            _trial("none", **{"optimiser/lr": "0.1", "optimiser/log10_lr": "-1", "data": "demo"}),
        ]
    )


def test_paths_that_all_trials_draw_are_shared_and_the_rest_belongs_to_a_system(searched):
    assert searched.shared == (names.REPROGRAMMER, "optimiser/log10_lr")
    assert searched.by_system == {"unet": ("reprogrammer/width",)}


def test_a_path_that_never_differs_was_not_searched():
    searched = views.searched_paths([_trial("unet", seed="0", epochs="5"), _trial("unet", seed="1", epochs="5")])
    assert searched.shared == ()


def test_the_settings_in_which_studies_differ_are_columns_and_no_axes():
    shared = {"optimiser/lr": "0.1", "split": "random", "note": "n"}
    trials = [
        _trial("unet", **{**shared, "precision": "fp32", "optimiser/lr": "0.2"}),
        _trial("unet", **{**shared, "precision": "bf16"}),
        _trial("unet", **shared),  # of a study that began before its settings were recorded
    ]
    states = _states(views.searched_paths(trials))
    assert [path for chart in states[views.SEARCHED]["compareRunCharts"] for path in chart["selectedParams"]] == [
        "optimiser/lr"
    ]
    for view in (views.RANKED, views.EVALUATED):
        columns = states[view]["selectedColumns"]
        assert "params.`precision`" in columns
        assert columns.index("params.`precision`") < columns.index(
            "metrics.`params`" if view == views.EVALUATED else "params.`mapper/kind`"
        )
        assert not {"params.`split`", "params.`note`"} & set(columns)


def test_without_trials_there_are_views_all_the_same():
    assert set(_states(views.searched_paths([]))) == set(views.TITLES)


def test_the_ranked_view_begins_with_f1_system_and_size_and_has_every_label(searched):
    state = _states(searched)[views.RANKED]
    assert state["selectedColumns"][:3] == ["metrics.`macro_f1`", "tags.`system`", "metrics.`params`"]
    assert {"metrics.`f1/accordion`", "metrics.`f1/banjo`"} <= set(state["selectedColumns"])
    assert state["orderByKey"] == "metrics.`macro_f1`"
    assert state["orderByAsc"] is False


def test_no_parallel_chart_has_an_axis_that_some_of_its_trials_lack(searched):
    charts = _states(searched)[views.SEARCHED]["compareRunCharts"]
    axes = [set(chart["selectedParams"]) for chart in charts]
    assert axes == [{names.REPROGRAMMER, "optimiser/log10_lr"}, {names.REPROGRAMMER, "reprogrammer/width"}]


def test_many_axes_are_spread_over_charts_that_stay_readable():
    trials = [_trial("unet", **{f"part/{axis}": str(value) for axis in range(11)}) for value in (1, 2)]
    charts = _states(views.searched_paths(trials))[views.SEARCHED]["compareRunCharts"]
    assert max(len(chart["selectedParams"]) + len(chart["selectedMetrics"]) for chart in charts) < 8
    assert {path for chart in charts for path in chart["selectedParams"]} == {f"part/{axis}" for axis in range(11)}


def test_every_chart_lies_in_a_section_of_its_view(searched):
    for view in (views.SIZE, views.SEARCHED):
        state = _states(searched)[view]
        sections = {section["uuid"] for section in state["compareRunSections"]}
        assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} <= sections
        assert len({chart["uuid"] for chart in state["compareRunCharts"]}) == len(state["compareRunCharts"])


def test_only_one_view_shows_evaluations_and_the_others_show_trials(searched):
    states = _states(searched)
    evaluated = states.pop(views.EVALUATED)
    assert evaluated["searchFilter"] == "tags.kind = 'evaluation-run'"
    assert {"metrics.`test/macro_f1`", "metrics.`test_f1/banjo`"} <= set(evaluated["selectedColumns"])
    assert all(state["searchFilter"] == "tags.kind = 'trial'" for state in states.values())
    assert not any("test" in column for state in states.values() for column in state["selectedColumns"])


def test_the_same_trials_give_the_same_tags(searched):
    assert views.view_tags(LABELS, searched) == views.view_tags(LABELS, searched)


def test_the_views_of_a_wide_study_fit_into_mlflows_tags():
    labels = [f"instrument number {row}" for row in range(20)]
    params = {f"reprogrammer/some_long_name_{axis}": axis for axis in range(20)}
    trials = [
        records.open_trial("s", 0, name="n", params={**params, names.REPROGRAMMER: kind, "x": kind})[1].body["values"]
        for kind in ("unet", "cnn")
    ]
    assert max(map(len, views.view_tags(labels, views.searched_paths(trials)).values())) < 5000


def test_every_metric_of_a_study_is_a_column_and_every_odd_label_has_its_safe_name(searched):
    states = _states(searched, ["R&B"], metrics=["macro_f1", "toy"])
    for view, columns in {
        views.RANKED: ["metrics.`toy`", "metrics.`f1/R_x0026_B`"],
        views.GROUPED: ["metrics.`toy`", "metrics.`f1/R_x0026_B`"],
        views.EVALUATED: ["metrics.`test/toy`", "metrics.`test_f1/R_x0026_B`"],
    }.items():
        assert set(columns) <= set(states[view]["selectedColumns"])
        assert not any("map" in column for column in states[view]["selectedColumns"] if "mapper" not in column)


def test_a_link_names_view_mode_and_experiment():
    assert views.view_url("http://host:5000/", "7", view=views.SIZE) == (
        "http://host:5000/#/experiments/7/runs?workflowType=machine_learning"
        "&viewStateShareKey=harness_size&compareRunsMode=CHART"
    )
