"""Names beside the points of a scatter plot, placed so that they cover neither each other nor a point."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from tracking.drawing import GREY, TEXT_PT

_RADII_PT = (6, 12, 20, 30)
_ANGLES = (0, 180, 90, 270, 45, 135, 225, 315)
_POINT_PT = 3.5


def name_points(figure: Figure, axes: Axes, *, names: Sequence[str], points: Sequence[tuple[float, float]]) -> None:
    """Write each name near its point, in the first free place; a name that had to go far has a line to its point."""
    figure.draw_without_rendering()
    pixels_per_pt = figure.dpi / 72
    centres = axes.transData.transform(np.asarray(points, float).reshape(-1, 2))
    taken = [Bbox.from_bounds(x, y, 0, 0).padded(_POINT_PT * pixels_per_pt) for x, y in centres]
    for name, point in zip(names, points, strict=True):
        text = axes.annotate(name, point, (0, 0), textcoords="offset points", fontsize=TEXT_PT - 1, va="center")
        options = []
        for radius, angle in _places():
            shift = radius * np.cos(np.deg2rad(angle)), radius * np.sin(np.deg2rad(angle))
            text.set_horizontalalignment(_side(angle))
            text.set_position(shift)
            box = text.get_window_extent()
            options.append((_cost(box, taken, axes.bbox), radius, shift, _side(angle), box))
            if options[-1][0] == 0:
                break
        _, radius, shift, side, box = min(options, key=lambda option: option[:2])
        text.set_horizontalalignment(side)
        text.set_position(shift)
        taken.append(box)
        if radius > _RADII_PT[1]:
            axes.annotate(
                "", point, shift, textcoords="offset points", arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.6}
            )


def _places() -> Iterator[tuple[int, int]]:
    yield from ((radius, angle) for radius in _RADII_PT for angle in _ANGLES)


def _side(angle: int) -> Literal["left", "center", "right"]:
    """Return how a name in this direction is aligned to its place."""
    if angle in (90, 270):
        return "center"
    return "right" if 90 < angle < 270 else "left"


def _cost(box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """Return by how many pixels squared the box covers others or leaves the frame."""
    inside = Bbox.intersection(box, frame)
    outside = box.width * box.height - (inside.width * inside.height if inside else 0)
    covered = (Bbox.intersection(box, other) for other in taken)
    return max(outside, 0.0) + sum(common.width * common.height for common in covered if common)
