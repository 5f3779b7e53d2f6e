"""The paper's figures, drawn from the published numbers."""

import re
from itertools import combinations

import matplotlib.image
import numpy as np
import pytest
from matplotlib.text import Text

from harness.config.literature import F1_BY_LABEL, LABEL_COUNTS, SYSTEMS
from tracking import paper_figures as figures

TITLES = {name: f"{name} ({system.paper_name})" for name, system in SYSTEMS.items()}
TRAIN = {label: (c.train_positive, c.train_negative) for label, c in LABEL_COUNTS.items()}
TEST = {label: (c.test_positive, c.test_negative) for label, c in LABEL_COUNTS.items()}
POSITIVES = {label: c.train_positive for label, c in LABEL_COUNTS.items()}
PARAMS = {TITLES[name]: system.params for name, system in SYSTEMS.items()}
BASELINE = {label: f1 / 100 for label, f1 in F1_BY_LABEL["none"].items()}


def seeds(n):
    rng = np.random.default_rng(0)
    return {TITLES[name]: list(s.macro_f1 / 100 + rng.normal(0, 0.01, n)) for name, s in SYSTEMS.items()}


def by_label():
    rng = np.random.default_rng(1)
    return {title: {label: f1 + 0.1 * rng.random() for label, f1 in BASELINE.items()} for title in TITLES.values()}


DRAWINGS = {
    "labels": lambda stem, **more: figures.label_distribution(stem, TRAIN, test=TEST, title="labels", **more),
    "box": lambda stem, **more: figures.macro_f1_box_plot(stem, seeds(3), floor=0.4, ceiling=0.9, **more),
    "size": lambda stem, **more: figures.macro_f1_against_params(stem, seeds(3), params=PARAMS, floor=0.4, **more),
    "fig5": lambda stem, **more: figures.f1_by_label_and_system(stem, by_label(), floor=BASELINE, **more),
    "scatter": lambda stem, **more: figures.positives_against_f1(
        stem, POSITIVES, f1=BASELINE, correlation=0.744, title="none", **more
    ),
    "heat": lambda stem, **more: figures.heat_map(
        stem, {("noise", "none"): [0.59, 0.61, 0.63], ("U-Net", "AudioSet"): [0.7]},
        rows=["noise", "U-Net"], columns=["none", "AudioSet"], **more,
    ),
}  # fmt: skip


@pytest.fixture
def shown(tmp_path):
    """Draw a figure and return its words: an SVG file has them as comments beside the letters."""

    def draw(drawing, *args, **kwargs):
        (svg,) = drawing(tmp_path / "figure", *args, suffixes=[".svg"], **kwargs)
        return re.findall(r"<!-- (.*?) -->", svg.read_text())

    return draw


@pytest.fixture
def axes_of(tmp_path, monkeypatch):
    """Draw a figure, without writing it, and return its axes."""
    drawn = []
    monkeypatch.setattr(figures, "save_each", lambda figure, *_, **__: drawn.append(figure) or [])

    def draw(drawing, *args, **kwargs):
        drawing(tmp_path / "figure", *args, **kwargs)
        return drawn[-1].axes[0]

    return draw


@pytest.mark.parametrize("drawing", DRAWINGS)
def test_every_figure_is_1200_pixels_wide_and_not_large(drawing, tmp_path):
    (png,) = DRAWINGS[drawing](tmp_path / "new" / "figure", suffixes=[".png"])
    assert matplotlib.image.imread(png).shape[1] == 1200
    assert png.stat().st_size < 250_000


def test_a_figure_is_written_for_screens_and_for_print_and_equal_numbers_make_equal_files(tmp_path):
    one, other = (DRAWINGS["heat"](tmp_path / name / "fig.4") for name in ("one", "other"))
    assert [path.name for path in one] == ["fig.4.png", "fig.4.svg"]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


@pytest.mark.parametrize("drawing", ["scatter", "size"])
def test_no_name_covers_another(drawing, axes_of):
    axes = axes_of(DRAWINGS[drawing])
    axes.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # the names without their lines
    assert len(boxes) >= len(TITLES)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


class TestLabelDistribution:
    def test_every_count_of_both_splits_can_be_read(self, shown):
        words = shown(figures.label_distribution, TRAIN, test=TEST)
        for positive, negative in (*TRAIN.values(), *TEST.values()):
            assert {str(positive), str(negative)} <= set(words)
        assert {"train: 30,746 annotations", "test: 10,522 annotations", "mallet percussion"} <= set(words)

    def test_the_training_split_may_stand_alone(self, shown):
        assert not any(word.startswith("test") for word in shown(figures.label_distribution, {"banjo": (3, 4)}))


class TestMacroF1BoxPlot:
    def test_systems_stand_in_the_order_given_with_their_medians(self, shown):
        given = dict(reversed(seeds(3).items()))
        words = shown(figures.macro_f1_box_plot, given)
        assert [word for word in words if word in given] == list(given)
        medians = [f"{np.median(values):.3f}" for values in given.values()]
        assert [word for word in words if re.fullmatch(r"0\.\d{3}", word)] == medians

    def test_published_medians_are_drawn_only_if_given(self, shown):
        measured = {"unet": [0.8, 0.81]}
        assert "published median" in shown(figures.macro_f1_box_plot, measured, published={"unet": 0.815})
        assert "published median" not in shown(figures.macro_f1_box_plot, measured)

    def test_floor_and_ceiling_are_named_and_a_system_without_a_run_keeps_its_place(self, shown):
        words = shown(figures.macro_f1_box_plot, {**seeds(1), TITLES["none"]: []}, floor=0.398, ceiling=0.9)
        assert {"majority class 0.398", "training positives all known 0.900", "no run"} <= set(words)

    @pytest.mark.parametrize("n", [1, 2, 10])
    def test_every_seed_is_a_point_and_a_single_one_has_no_box(self, n, axes_of):
        axes = axes_of(figures.macro_f1_box_plot, {"unet": seeds(n)[TITLES["unet"]]})
        (points,) = axes.collections
        assert sorted(points.get_offsets()[:, 0]) == pytest.approx(sorted(seeds(n)[TITLES["unet"]]))
        assert len(axes.patches) == (n > 1)


class TestMacroF1AgainstParams:
    def test_systems_stand_at_their_size_and_at_their_mean_with_its_range(self, axes_of):
        values = {"unet": [0.5, 0.6, 0.7], "random_forest": [0.55]}
        axes = axes_of(figures.macro_f1_against_params, values, params={"unet": 4799, "random_forest": None})
        places = {float(line.get_xdata()[0]): float(line.get_ydata()[0]) for line in axes.lines}
        assert axes.get_xscale() == "log"
        assert places.pop(4799) == pytest.approx(0.6)
        ((left, mean),) = places.items()
        assert (left < 1000, mean) == (True, pytest.approx(0.55))
        spans = [segment[:, 1].tolist() for marks in axes.collections for segment in marks.get_segments()]
        assert [0.5, 0.7] in spans

    def test_it_names_each_mean_and_the_floor(self, axes_of):
        axes = axes_of(figures.macro_f1_against_params, {"unet": [0.5], "cnn": []}, params={"unet": 9}, floor=0.355)
        assert {text.get_text() for text in axes.texts} == {"unet  0.500", "majority class 0.355"}


class TestF1ByLabelAndSystem:
    def test_eight_systems_differ_in_colour_in_shape_and_in_place(self, axes_of):
        marks = axes_of(figures.f1_by_label_and_system, by_label()).collections
        assert len({tuple(mark.get_facecolor()[0]) for mark in marks}) == 8
        assert len({mark.get_paths()[0].vertices.tobytes() for mark in marks}) == 8
        rows = np.concatenate([mark.get_offsets()[:, 1] for mark in marks])
        assert len(np.unique(rows.round(6))) == 160, "no two systems share a line"

    def test_systems_and_labels_are_named(self, shown):
        words = shown(figures.f1_by_label_and_system, by_label(), floor=BASELINE)
        assert {*TITLES.values(), "majority class", "mallet percussion", "voice"} <= set(words)


@pytest.mark.parametrize(("correlation", "ending"), [(0.744, "none: r = 0.74"), (float("nan"), "none: r undefined")])
def test_the_title_of_positives_against_f1_ends_in_the_correlation(correlation, ending, shown):
    few = {"banjo": 9, "voice": 5}, {"banjo": 0.6, "voice": 0.7}
    assert ending in shown(figures.positives_against_f1, few[0], f1=few[1], correlation=correlation, title="none")


class TestHeatMap:
    def test_a_cell_has_mean_spread_and_number_and_an_empty_one_says_so(self, shown):
        words = shown(DRAWINGS["heat"])
        assert {"0.610 ± 0.020", "n=3", "0.700", "n=1"} <= set(words)
        assert words.count("no run") == 2

    @pytest.mark.parametrize("cells", [{}, {("noise", "none"): []}, {("noise", "none"): [0.5]}])
    def test_a_table_with_nothing_to_compare_is_drawn_without_a_warning(self, cells, shown):
        words = shown(figures.heat_map, cells, rows=["noise"], columns=["none"])
        assert ("no run" in words) != any(cells.values())
