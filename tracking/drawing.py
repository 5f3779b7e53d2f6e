"""What all figures share: colours told apart by colour-blind readers, plain axes, and files that come out alike.

Drawn with matplotlib's objects and its Agg canvas: no pyplot, hence no state, no window and no leak in a long study.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, AMBER, YELLOW, BLACK, GREY = "#56B4E9", "#E69F00", "#F0E442", "#000000", "#666666"
TEXT_PT = 9
ON_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
SUFFIXES = (".png", ".svg")


def finish(axes: Axes, *, grid: Literal["x", "y", "both"] = "x") -> None:
    """Leave of the axes what a reader needs."""
    axes.tick_params(labelsize=TEXT_PT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)


def save(figure: Figure, path: Path, title: str, *, dpi: int = 100) -> Path:
    """Write the figure, in the format that the path's suffix names; equal figures make equal files."""
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
    """Return a label as a reader would write it."""
    return label.replace("_", " ")
