"""Labels beside the points of a picture: where there is room none over another, a point or an interval."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_DISTANCES = (7, 13, 22, 34, 50, 70, 95, 125, 160)
"""Of a label from its point, pixels of a picture of 100 dots an inch, nearest first."""
_ANGLES = (0, 45, -45, 90, -90, 135, -135, 180, 22, -22, 67, -67, 112, -112, 157, -157)
"""Degrees, the most wanted first."""
_LEADER = 15
"""Pixels from which a line leads to the point."""


@dataclass(frozen=True)
class Label:
    """A text beside a point, in the units of the axes."""

    x: float
    y: float
    text: str
    colour: str


@dataclass(frozen=True)
class Mark:
    """A point with its intervals, which labels are kept off, in the units of the axes."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    """Ends of a vertical interval; None: there is none."""
    left: float | None = None
    right: float | None = None
    """Of a horizontal one."""


def place_labels(
    axes: Any, labels: Sequence[Label], marks: Sequence[Mark], lines: Sequence[Sequence[tuple[float, float]]]
) -> None:
    """Write labels where they cover least: labels first of all, then points, intervals, and lines.

    To be called when everything else is drawn, for the layout of the figure is settled here.

    Args:
      axes: of matplotlib, on a figure with an Agg canvas.
      labels: the first ones have the best places.
      marks: all points.
      lines: polylines of the axes' units.
    """
    from matplotlib.patheffects import withStroke  # takes a second

    figure = axes.figure
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    scale = figure.dpi / 100
    frame = axes.get_window_extent()
    inside = np.array([frame.x0, frame.y0, frame.x1, frame.y1])
    hard, soft = _boxes_of(axes, marks, lines, scale)
    placed = np.empty((0, 4))
    for label in labels:
        point = axes.transData.transform((label.x, label.y))
        text = axes.annotate(
            label.text,
            (label.x, label.y),
            xytext=(0, 0),
            textcoords="offset points",
            color=label.colour,
            fontsize="small",
            linespacing=0.95,
            ha="center",
            va="center",
            zorder=5,
        )
        text.set_in_layout(False)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])  # lines may run below
        size = text.get_window_extent(figure.canvas.get_renderer())
        centre, box, distance = _best(point, (size.width, size.height), inside, placed, hard, soft, scale)
        text.set_position(tuple((centre - point) * 72 / figure.dpi))
        placed = np.vstack([placed, box])
        if distance > _LEADER * scale:
            nearest = np.clip(point, box[:2], box[2:])
            ends = axes.transData.inverted().transform([point, nearest])
            style = {"color": label.colour, "linewidth": 0.6, "alpha": 0.7, "zorder": 1}
            axes.plot(*ends.T, scalex=False, scaley=False, **style)


def _best(
    point: np.ndarray,
    size: tuple[float, float],
    inside: np.ndarray,
    placed: np.ndarray,
    hard: np.ndarray,
    soft: np.ndarray,
    scale: float,
) -> tuple[np.ndarray, np.ndarray, float]:
    """The centre of a label, its box, and its distance from the point, pixels."""
    half = np.array(size) / 2
    found: tuple[float, np.ndarray, np.ndarray, float] | None = None
    for distance in _DISTANCES:
        for order, angle in enumerate(_ANGLES):
            way = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
            centre = point + way * (distance * scale + half)
            box = np.concatenate([centre - half, centre + half])
            outside = np.maximum(inside[:2] - box[:2], 0).sum() + np.maximum(box[2:] - inside[2:], 0).sum()
            cost = (
                1e6 * (outside > 0)
                + 1e5 * _covered(box, placed, margin=2 * scale)
                + 1e3 * _covered(box, hard)
                + 30 * _covered(box, soft)
                + distance
                + order / 2
            )
            if found is None or cost < found[0]:
                found = (cost, centre, box, distance * scale)
    assert found is not None
    return found[1:]


def _covered(box: np.ndarray, others: np.ndarray, margin: float = 0.0) -> int:
    """How many of [n, 4] boxes a box touches."""
    apart = (
        (others[:, 0] > box[2] + margin)
        | (others[:, 2] < box[0] - margin)
        | (others[:, 1] > box[3] + margin)
        | (others[:, 3] < box[1] - margin)
    )
    return int(np.count_nonzero(~apart))


def _boxes_of(
    axes: Any, marks: Sequence[Mark], lines: Sequence[Sequence[tuple[float, float]]], scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """[n, 4] pixels, of points, and of intervals and lines."""

    def box(one: tuple[float, float], other: tuple[float, float], width: float) -> list[float]:
        corners = axes.transData.transform([one, other])
        return [*(corners.min(axis=0) - width * scale), *(corners.max(axis=0) + width * scale)]

    hard = [box((mark.x, mark.y), (mark.x, mark.y), 5) for mark in marks]
    soft = []
    for mark in marks:
        if mark.low is not None and mark.high is not None:
            soft.append(box((mark.x, mark.low), (mark.x, mark.high), 2))
        if mark.left is not None and mark.right is not None:
            soft.append(box((mark.left, mark.y), (mark.right, mark.y), 2))
    for line in lines:
        corners = axes.transData.transform(line)
        for one, other in itertools.pairwise(corners):
            steps = max(2, int(np.hypot(*(other - one)) / (8 * scale)))
            for part in np.linspace(one, other, steps):
                soft.append([*(part - 1.5 * scale), *(part + 1.5 * scale)])
    return np.array(hard).reshape(-1, 4), np.array(soft).reshape(-1, 4)
