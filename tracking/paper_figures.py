"""Figures of whole studies: the paper's, with the results measured here, macro-F1 against size, and heat maps.

Conventions: F1 are fractions; systems and labels appear in the given order, under the given names. Every function
writes `stem` with each of the suffixes, makes its directory, and returns the files.

Source: Chen and Lerch, "Music Instrument Classification Reprogrammed", MMM 2023, Figs. 3 to 5.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter

from tracking.figures import (
    AMBER,
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ON_WHITE,
    ORANGE,
    PURPLE,
    SKY,
    SUFFIXES,
    TEXT_PT,
    YELLOW,
    finish,
    save_each,
    words,
)
from tracking.names import colour_of

_SHAPES = "osD^vPXph"
_MARKS = tuple(zip((GREY, AMBER, SKY, GREEN, YELLOW, BLACK, PURPLE, ORANGE, BLUE), _SHAPES, strict=True))
_WIDTH_INCHES = 8.0
_DARK_FROM = 0.6
"""White text is easier to read than black above this fraction of the colour scale."""


def label_distribution(
    stem: Path,
    train: Mapping[str, tuple[int, int]],
    *,
    test: Mapping[str, tuple[int, int]] | None = None,
    title: str = "",
    suffixes: Sequence[str] = SUFFIXES,
) -> list[Path]:
    """Draw how many clips were annotated as positive and as negative for each label: pairs in that order (Fig. 3)."""
    splits = {"train": train} if test is None else {"train": train, "test": test}
    figure = Figure(figsize=(_WIDTH_INCHES, 1.2 + 0.22 * len(train)), layout="constrained")
    panels = figure.subplots(1, len(splits), sharey=True, squeeze=False)[0]
    for axes, (split, counts) in zip(panels, splits.items(), strict=True):
        _mirrored_bars(axes, [counts[label] for label in train])
        axes.set_title(f"{split}: {sum(map(sum, counts.values())):,} annotations", fontsize=TEXT_PT)
    panels[0].set_yticks(range(len(train)), [words(label) for label in train])
    panels[0].set_ylim(len(train) - 0.4, -0.6)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=TEXT_PT, frameon=False)
    return save_each(figure, stem, title, suffixes=suffixes)


def macro_f1_box_plot(
    stem: Path,
    macro_f1: Mapping[str, Sequence[float]],
    *,
    published: Mapping[str, float] | None = None,
    floor: float | None = None,
    ceiling: float | None = None,
    title: str = "",
    suffixes: Sequence[str] = SUFFIXES,
) -> list[Path]:
    """Draw a box and every seed's point for each system (Fig. 4); a single seed is a point alone.

    `published` are the paper's medians by system; `floor` belongs to the majority class, `ceiling` to a system trained
    with all positives of the training clips known.
    """
    figure = Figure(figsize=(_WIDTH_INCHES, 1.1 + 0.42 * len(macro_f1)), layout="constrained")
    axes = figure.subplots()
    for row, values in enumerate(macro_f1.values()):
        _box_and_points(axes, row, values)
    if published is not None:
        rows = [row - 0.34 for row, system in enumerate(macro_f1) if system in published]
        medians = [published[system] for system in macro_f1 if system in published]
        axes.scatter(medians, rows, marker="D", s=26, color=ORANGE, label="published median", zorder=4)
    for level, name, style in ((floor, "majority class", "--"), (ceiling, "training positives all known", ":")):
        if level is not None:
            axes.axvline(level, color=GREY, linewidth=1.2, linestyle=style, label=f"{name} {level:.3f}", zorder=1)
    axes.set_yticks(range(len(macro_f1)), list(macro_f1))
    axes.set_ylim(len(macro_f1) - 0.4, -0.7)
    axes.text(1.01, 1, "median", transform=axes.transAxes, fontsize=TEXT_PT, va="bottom")
    axes.set_xlabel("macro-F1 on the test split", fontsize=TEXT_PT)
    finish(axes)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=4, fontsize=TEXT_PT, frameon=False)
    return save_each(figure, stem, title, suffixes=suffixes)


def macro_f1_against_params(
    stem: Path,
    macro_f1: Mapping[str, Sequence[float]],
    *,
    params: Mapping[str, int | None],
    floor: float | None = None,
    title: str = "",
    suffixes: Sequence[str] = SUFFIXES,
) -> list[Path]:
    """Draw the mean and the range over seeds of each system, over its number of trainable parameters.

    A system that has none, such as trees, stands at the left. `floor` belongs to the majority class.
    """
    figure = Figure(figsize=(_WIDTH_INCHES, 4.4), layout="constrained")
    axes = figure.subplots()
    counts = [count for count in params.values() if count] or [1_000]
    left = min(counts) / 8
    _named_ranges(axes, {name: (params[name] or left, values) for name, values in macro_f1.items() if len(values)})
    if not all(params.values()):
        axes.axvspan(left / 2.5, left * 2.5, color="#f2f2f2", linewidth=0, zorder=0)
        axes.text(left, 0.95, "no parameters", transform=axes.get_xaxis_transform(), ha="center", fontsize=TEXT_PT)
    if floor is not None:
        axes.axhline(floor, color=GREY, linewidth=1.2, linestyle="--", zorder=1)
        text = axes.text(0.99, floor, f"majority class {floor:.3f}", fontsize=TEXT_PT, ha="right", va="bottom")
        text.set_transform(axes.get_yaxis_transform())
    axes.set_xscale("log")
    axes.set_xlim(left / 2.5 if not all(params.values()) else min(counts) / 2, 10 * max(counts))  # room for the names
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("trainable parameters", fontsize=TEXT_PT)
    axes.set_ylabel("macro-F1 on the test split, mean and range", fontsize=TEXT_PT)
    finish(axes, grid="both")
    return save_each(figure, stem, title, suffixes=suffixes)


def f1_by_label_and_system(
    stem: Path,
    f1: Mapping[str, Mapping[str, float]],
    *,
    floor: Mapping[str, float] | None = None,
    title: str = "",
    suffixes: Sequence[str] = SUFFIXES,
) -> list[Path]:
    """Draw the F1 of each label with each system (Fig. 5): `f1[system][label]`. A label is a band, a system a mark."""
    labels = list(next(iter(f1.values())))
    figure = Figure(figsize=(_WIDTH_INCHES, 1.3 + 0.36 * len(labels)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(labels))
    for row in rows[::2]:
        axes.axhspan(row - 0.5, row + 0.5, color="#f2f2f2", linewidth=0, zorder=0)
    offsets = (np.arange(len(f1)) - (len(f1) - 1) / 2) * min(0.1, 0.8 / len(f1))
    for (system, values), offset, (colour, marker) in zip(f1.items(), offsets, cycle(_MARKS), strict=False):
        axes.scatter(
            [values[label] for label in labels], rows + offset, marker=marker, s=34, color=colour,
            edgecolors="black", linewidths=0.5, label=system, zorder=3,
        )  # fmt: skip
    if floor is not None:
        marks = [floor[label] for label in labels]
        axes.vlines(marks, rows - 0.5, rows + 0.5, color=GREY, linewidth=1.6, label="majority class", zorder=2)
    axes.set_yticks(rows, [words(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel("F1, mean of both classes", fontsize=TEXT_PT)
    finish(axes)
    figure.legend(loc="outside lower center", ncols=3, fontsize=TEXT_PT, frameon=False)
    return save_each(figure, stem, title, suffixes=suffixes)


def positives_against_f1(
    stem: Path,
    positives: Mapping[str, int],
    *,
    f1: Mapping[str, float],
    correlation: float,
    title: str = "",
    suffixes: Sequence[str] = SUFFIXES,
) -> list[Path]:
    """Draw each label's F1 over its positive training clips; the title ends in `correlation`, Pearson's r.

    The names stand in a column beside the points, in the order of F1, each with a line to its point.
    """
    figure = Figure(figsize=(_WIDTH_INCHES, 1.6 + 0.2 * len(f1)), layout="constrained")
    axes = figure.subplots()
    axes.scatter([positives[label] for label in f1], list(f1.values()), s=26, color=BLUE, zorder=3)
    for place, label in enumerate(sorted(f1, key=lambda label: f1[label])):
        axes.annotate(
            words(label), (positives[label], f1[label]), (1.03, (place + 0.5) / len(f1)),
            textcoords="axes fraction", va="center", fontsize=TEXT_PT - 1,
            arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "lw": 0.6, "relpos": (0, 0.5)},
        )  # fmt: skip
    axes.margins(0.08)
    axes.set_xlabel("positive training clips", fontsize=TEXT_PT)
    axes.set_ylabel("F1, mean of both classes", fontsize=TEXT_PT)
    finish(axes, grid="both")
    r = f"r = {correlation:.2f}" if np.isfinite(correlation) else "r undefined"
    return save_each(figure, stem, f"{title}: {r}" if title else r, suffixes=suffixes)


def heat_map(
    stem: Path,
    cells: Mapping[tuple[str, str], Sequence[float]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "",
    suffixes: Sequence[str] = SUFFIXES,
) -> list[Path]:
    """Draw the mean macro-F1 of each (row, column), with the standard deviation over its repeats and their number."""
    means = np.array([[_mean(cells.get((row, column), ())) for column in columns] for row in rows])
    low, high = (np.nanmin(means), np.nanmax(means)) if np.isfinite(means).any() else (0.0, 1.0)
    figure = Figure(figsize=(_WIDTH_INCHES, 1.2 + 0.62 * len(rows)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(means, cmap="YlGnBu", aspect="auto", vmin=low, vmax=max(high, low + 1e-3))
    for (y, x), mean in np.ndenumerate(means):
        colour = "white" if mean - low > _DARK_FROM * (high - low) else BLACK
        text = axes.text(x, y, _cell_words(cells.get((rows[y], columns[x]), ())), color=colour, fontsize=TEXT_PT)
        text.set(ha="center", va="center")
        if np.isnan(mean):
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch="///", edgecolor="#cccccc", lw=0))
            text.set_bbox(ON_WHITE)
    axes.set_xticks(range(len(columns)), list(columns), fontsize=TEXT_PT)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=TEXT_PT)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    scale = figure.colorbar(image, ax=axes, pad=0.02)
    scale.set_label("mean macro-F1", fontsize=TEXT_PT)
    scale.ax.tick_params(labelsize=TEXT_PT - 1)
    return save_each(figure, stem, title, suffixes=suffixes)


def _named_ranges(axes: Axes, points: Mapping[str, tuple[float, Sequence[float]]]) -> None:
    """Draw each system's values at its x: their range, their mean, and beside it the name, which covers no other."""
    means = {system: float(np.mean(values)) for system, (_, values) in points.items()}
    line = max(max(means.values()) - min(means.values()), 0.1) / 12
    names: list[tuple[float, float]] = []
    for system, mean in sorted(means.items(), key=lambda item: item[1]):
        x, values = points[system]
        colour, shape = colour_of(system), _SHAPES[list(points).index(system) % len(_SHAPES)]
        axes.vlines(x, min(values), max(values), color=colour, linewidth=3, alpha=0.5, zorder=1)
        axes.plot(x, mean, shape, color=colour, markersize=9, markeredgecolor=BLACK, markeredgewidth=0.6, zorder=3)
        height = max([mean, *(other + line for place, other in names if 0.1 < place / x < 10)])
        names.append((x, height))
        axes.annotate(
            f"{system}  {mean:.3f}", (x, mean), (1.2 * x, height), va="center", fontsize=TEXT_PT,
            arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "lw": 0.6, "relpos": (0, 0.5)},
            path_effects=[withStroke(linewidth=3, foreground="white")], zorder=2,
        )  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _cell_words(values: Sequence[float]) -> str:
    if not len(values):
        return "no run"
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}\nn={len(values)}"


def _mirrored_bars(axes: Axes, counts: Sequence[tuple[int, int]]) -> None:
    rows = range(len(counts))
    reach = max((max(pair) for pair in counts), default=0) or 1
    for side, colour, name in ((0, BLUE, "positive"), (1, ORANGE, "negative")):
        sign = 1 - 2 * side
        axes.barh(rows, [sign * pair[side] for pair in counts], height=0.76, color=colour, label=name)
        for row, pair in zip(rows, counts, strict=True):
            axes.text(
                sign * (pair[side] + 0.02 * reach), row, str(pair[side]),
                ha="left" if sign > 0 else "right", va="center", fontsize=TEXT_PT - 2,
            )  # fmt: skip
    axes.axvline(0, color=BLACK, linewidth=0.8)
    axes.set_xlim(-1.3 * reach, 1.3 * reach)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):g}"))
    axes.set_xlabel("clips", fontsize=TEXT_PT)
    finish(axes)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _box_and_points(axes: Axes, row: int, values: Sequence[float]) -> None:
    middle, beside = row + 0.08, axes.get_yaxis_transform()
    median = f"{np.median(values):.3f}" if len(values) else "no run"
    axes.text(1.01, middle, median, va="center", fontsize=TEXT_PT, transform=beside)
    if len(values) > 1:
        axes.boxplot(
            [list(values)], positions=[middle], orientation="horizontal", widths=0.5, showfliers=False,
            patch_artist=True, manage_ticks=False, whis=(0, 100),
            boxprops={"facecolor": "#cfe3f1", "edgecolor": BLUE}, whiskerprops={"color": BLUE},
            capprops={"color": BLUE}, medianprops={"color": BLUE, "linewidth": 2},
        )  # fmt: skip
    spread = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else np.zeros(len(values))
    axes.scatter(values, middle + spread, s=14, color=BLACK, alpha=0.7, linewidths=0, zorder=3)
