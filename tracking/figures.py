"""Figures of one trial, as small PNG files: F1 by label, learning curves, and a clip before and after reprogramming.

Every function writes `path`, makes its directory, and returns it. Figures use matplotlib's objects and its Agg canvas
without pyplot, which would keep state, open windows and leak memory in a long study.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's palette, which colour-blind readers can distinguish.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, AMBER, YELLOW, BLACK, GREY = "#56B4E9", "#E69F00", "#F0E442", "#000000", "#666666"
TEXT_PT = 9
ON_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
SUFFIXES = (".png", ".svg")

_LINES = (BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER)


def finish(axes: Axes, *, grid: Literal["x", "y", "both"] = "x") -> None:
    """Remove everything from the axes that a reader does not need."""
    axes.tick_params(labelsize=TEXT_PT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)


def save(figure: Figure, path: Path, title: str, *, dpi: int = 100) -> Path:
    """Write the figure in the format of the path's suffix; equal figures make equal files."""
    if title:
        figure.suptitle(title, fontsize=TEXT_PT + 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "figure", "svg.fonttype": "path"}):
        figure.savefig(path, dpi=dpi, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def save_each(figure: Figure, stem: Path, title: str, *, suffixes: Sequence[str], dpi: int = 150) -> list[Path]:
    """Write the figure once for each suffix: a stem `fig4` gives `fig4.png` and `fig4.svg`."""
    return [save(figure, stem.with_name(stem.name + suffix), title, dpi=dpi) for suffix in suffixes]


def words(label: str) -> str:
    """Return a label with spaces for its underscores."""
    return label.replace("_", " ")


def f1_by_label(path: Path, f1: Mapping[str, float], *, title: str = "") -> Path:
    """Draw a bar for each label, best first."""
    labels = sorted(f1, key=lambda label: -f1[label])
    rows = np.arange(len(labels))
    figure = Figure(figsize=(6.4, 1.1 + 0.22 * len(labels)), layout="constrained")
    axes = figure.subplots()
    axes.barh(rows, [f1[label] for label in labels], height=0.72, color=BLUE)
    for row, label in enumerate(labels):
        axes.text(f1[label] + 0.012, row, f"{f1[label]:.2f}", va="center", fontsize=TEXT_PT - 1, bbox=ON_WHITE)
    mean = float(np.mean(list(f1.values())))
    axes.axvline(mean, color=GREY, linewidth=1, linestyle="--", label=f"macro-F1 {mean:.3f}", zorder=0)
    axes.set_yticks(rows, [words(label) for label in labels])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.06)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_xlabel("F1, mean of both classes", fontsize=TEXT_PT)
    finish(axes)
    figure.legend(loc="outside lower center", ncols=2, fontsize=TEXT_PT, frameon=False)
    return save(figure, path, title)


def learning_curves(
    path: Path,
    *,
    losses: Mapping[str, Sequence[float]],
    scores: Mapping[str, Sequence[float]],
    title: str = "",
) -> Path:
    """Draw losses (nats) and scores (fractions) over the epochs, from 1."""
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, curves, name in ((left, losses, "loss (nats)"), (right, scores, "score on validation")):
        for colour, (label, values) in zip(_LINES, curves.items(), strict=False):
            epochs = np.arange(1, len(values) + 1)
            axes.plot(epochs, values, color=colour, label=label, marker="o", markersize=3, linewidth=1.6)
        axes.set_ylabel(name, fontsize=TEXT_PT)
        axes.set_xlabel("epoch", fontsize=TEXT_PT)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        finish(axes, grid="y")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, fontsize=TEXT_PT, frameon=False)
    return save(figure, path, title)


def input_change(
    path: Path,
    before: Float[np.ndarray, "frame mel"],
    after: Float[np.ndarray, "frame mel"],
    *,
    hop_ms: float,
    title: str = "",
) -> Path:
    """Draw a clip's log-mel before and after the reprogrammer, on one colour scale, and the difference."""
    before, after = np.asarray(before, np.float32), np.asarray(after, np.float32)
    difference = after - before
    reach = max(-_span(difference)[0], _span(difference)[1])
    level = _span(np.concatenate([before, after]))
    extent = (0.0, len(before) * hop_ms / 1000, 0.0, float(before.shape[1]))
    figure = Figure(figsize=(8, 6))
    for place, picture, name, colours, (low, high) in (
        (0.67, before, "before: the clip's log-mel", "magma", level),
        (0.375, after, "after: the frozen backbone's input", "magma", level),
        (0.08, difference, "after minus before", "RdBu_r", (-reach, reach)),
    ):
        # Fixed places: the layout engine would take longer than all the rest.
        axes = figure.add_axes((0.07, place, 0.84, 0.23))
        image = axes.imshow(
            picture.T, cmap=colours, vmin=low, vmax=high,
            origin="lower", aspect="auto", extent=extent, interpolation="nearest",
        )  # fmt: skip
        axes.set_title(name, fontsize=TEXT_PT, loc="left")
        axes.set_ylabel("mel bin", fontsize=TEXT_PT)
        axes.tick_params(labelsize=TEXT_PT - 1, labelbottom=picture is difference)
        if picture is not before:
            height = 0.23 if picture is difference else 0.525
            scale = figure.add_axes((0.925, place, 0.015, height))
            figure.colorbar(image, cax=scale)
            scale.tick_params(labelsize=TEXT_PT - 1)
    axes.set_xlabel("time (s)", fontsize=TEXT_PT)
    return save(figure, path, title)


def _span(values: Float[np.ndarray, "frame mel"]) -> tuple[float, float]:
    """Return the range without the outermost half percent at each end: one spike must not darken the rest."""
    low, high = np.quantile(values[:, ::4], [0.005, 0.995])
    return float(low), float(max(high, low + 1e-6))
