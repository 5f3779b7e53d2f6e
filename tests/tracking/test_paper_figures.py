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
    "fig5": lambda stem, **more: figures.f1_by_label_and_system(stem, by_label(), floor=BASELINE, **more),
    "scatter": lambda stem, **more: figures.positives_against_f1(
        stem, POSITIVES, f1=BASELINE, correlation=0.744, title="none", **more
    ),
    "heat": lambda stem, **more: figures.heat_map(
        stem, {("noise", "none"): [0.59, 0.61, 0.63], ("U-Net", "AudioSet"): [0.7]},
        rows=["noise", "U-Net"], columns=["none", "AudioSet"], **more,
    ),
}  # fmt: skip


def words_in(files):
    """Return the words of a figure: its SVG file has them as comments beside the letters."""
    (svg,) = [path for path in files if path.suffix == ".svg"]
    return re.findall(r"<!-- (.*?) -->", svg.read_text())


@pytest.mark.parametrize("drawing", DRAWINGS)
def test_every_figure_is_written_for_screens_and_for_print_and_equal_numbers_make_equal_files(drawing, tmp_path):
    png, svg = one = DRAWINGS[drawing](tmp_path / "new" / "fig.4")
    assert (png.name, svg.name) == ("fig.4.png", "fig.4.svg")
    assert matplotlib.image.imread(png).shape[1] == 1200
    assert png.stat().st_size < 250_000
    assert svg.read_text().startswith("<?xml")
    other = DRAWINGS[drawing](tmp_path / "other")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_only_the_requested_suffixes_are_written(tmp_path):
    assert DRAWINGS["heat"](tmp_path / "one", suffixes=[".png"]) == [tmp_path / "one.png"]
    assert list(tmp_path.iterdir()) == [tmp_path / "one.png"]


class TestLabelDistribution:
    def test_every_count_of_both_splits_can_be_read(self, tmp_path):
        words = words_in(figures.label_distribution(tmp_path / "fig3", TRAIN, test=TEST))
        for positive, negative in (*TRAIN.values(), *TEST.values()):
            assert {str(positive), str(negative)} <= set(words)
        assert {"train: 30,746 annotations", "test: 10,522 annotations", "mallet percussion"} <= set(words)

    def test_the_training_split_may_stand_alone(self, tmp_path):
        words = words_in(figures.label_distribution(tmp_path / "fig3", TRAIN))
        assert not any(word.startswith("test") for word in words)


class TestMacroF1BoxPlot:
    def test_systems_stand_in_the_order_given_with_their_medians(self, tmp_path):
        given = dict(reversed(seeds(3).items()))
        words = words_in(figures.macro_f1_box_plot(tmp_path / "fig4", given))
        assert [word for word in words if word in given] == list(given)
        medians = [f"{np.median(values):.3f}" for values in given.values()]
        assert [word for word in words if re.fullmatch(r"0\.\d{3}", word)] == medians

    def test_published_medians_are_drawn_only_if_given(self, tmp_path):
        published = {TITLES["unet"]: 0.815}
        ours = words_in(figures.macro_f1_box_plot(tmp_path / "ours", seeds(3)))
        both = words_in(figures.macro_f1_box_plot(tmp_path / "both", seeds(3), published=published))
        assert "published median" in both
        assert "published median" not in ours

    def test_floor_and_ceiling_say_what_they_are(self, tmp_path):
        words = words_in(figures.macro_f1_box_plot(tmp_path / "fig4", seeds(1), floor=0.398, ceiling=0.9))
        assert {"majority class 0.398", "training positives all known 0.900"} <= set(words)

    @pytest.mark.parametrize("n", [1, 2, 10])
    def test_every_seed_is_a_point_and_a_single_one_has_no_box(self, n, tmp_path, monkeypatch):
        drawn = []
        monkeypatch.setattr(figures, "save_each", lambda figure, *_, **__: drawn.append(figure) or [])
        figures.macro_f1_box_plot(tmp_path / "fig4", {"unet": seeds(n)[TITLES["unet"]]})
        (axes,) = drawn[0].axes
        (points,) = axes.collections
        assert sorted(points.get_offsets()[:, 0]) == pytest.approx(sorted(seeds(n)[TITLES["unet"]]))
        assert len(axes.patches) == (n > 1)

    def test_a_system_without_a_run_keeps_its_place(self, tmp_path):
        assert "no run" in words_in(figures.macro_f1_box_plot(tmp_path / "fig4", {**seeds(1), "none (AST-BS)": []}))


class TestF1ByLabelAndSystem:
    def test_eight_systems_are_told_apart_by_colour_and_by_shape(self, tmp_path, monkeypatch):
        drawn = []
        monkeypatch.setattr(figures, "save_each", lambda figure, *_, **__: drawn.append(figure) or [])
        figures.f1_by_label_and_system(tmp_path / "fig5", by_label())
        marks = drawn[0].axes[0].collections
        assert len({tuple(mark.get_facecolor()[0]) for mark in marks}) == 8
        assert len({mark.get_paths()[0].vertices.tobytes() for mark in marks}) == 8
        rows = np.concatenate([mark.get_offsets()[:, 1] for mark in marks])
        assert len(np.unique(rows.round(6))) == 160, "no two systems share a line"

    def test_systems_and_labels_are_named(self, tmp_path):
        words = words_in(figures.f1_by_label_and_system(tmp_path / "fig5", by_label(), floor=BASELINE))
        assert {*TITLES.values(), "majority class", "mallet percussion", "voice"} <= set(words)


class TestPositivesAgainstF1:
    def test_the_correlation_passed_in_ends_the_title(self, tmp_path):
        assert "none: r = 0.74" in words_in(DRAWINGS["scatter"](tmp_path / "scatter"))

    def test_an_undefined_correlation_is_named_as_such(self, tmp_path):
        files = figures.positives_against_f1(
            tmp_path / "scatter", dict.fromkeys(POSITIVES, 5), f1=BASELINE, correlation=float("nan")
        )
        assert "r undefined" in words_in(files)

    def test_no_name_covers_another(self, tmp_path, monkeypatch):
        drawn = []
        monkeypatch.setattr(figures, "save_each", lambda figure, *_, **__: drawn.append(figure) or [])
        DRAWINGS["scatter"](tmp_path / "scatter")
        drawn[0].draw_without_rendering()
        boxes = [Text.get_window_extent(text) for text in drawn[0].axes[0].texts]  # the names without their lines
        assert len(boxes) == len(POSITIVES)
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


class TestHeatMap:
    def test_a_cell_says_mean_spread_and_number_and_an_empty_one_that_it_is(self, tmp_path):
        words = words_in(DRAWINGS["heat"](tmp_path / "heat"))
        assert {"0.610 ± 0.020", "n=3", "0.700", "n=1"} <= set(words)
        assert words.count("no run") == 2

    @pytest.mark.parametrize("cells", [{}, {("noise", "none"): []}, {("noise", "none"): [0.5]}])
    def test_a_table_with_nothing_to_compare_is_drawn_without_a_warning(self, cells, tmp_path):
        files = figures.heat_map(tmp_path / "heat", cells, rows=["noise"], columns=["none"])
        assert ("no run" in words_in(files)) != any(cells.values())
