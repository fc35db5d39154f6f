"""A picture and the numbers that it shows: a PNG, and a CSV of the same name beside it."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia_jax.evaluation.statistics import Interval
from sia_jax.files.writing import make_folder, replacing, write_text

Row = Mapping[str, Any]
"""Of a method, in results.json."""

DPI = 130

# Okabe and Ito's colours, which the colour-blind tell apart; their yellow is too faint on white.
_COLOURS = {
    "base": "#555555",
    "dense": "#cc79a7",
    "entropy": "#0072b2",
    "random": "#e69f00",
    "entropy-ratio": "#56b4e9",
    "position": "#009e73",
    "budget": "#d55e00",
    "learned": "#000000",
}
_MARKERS = {"base": "o", "dense": "D", "entropy": "o", "random": "s", "position": "P", "budget": "X"}


@dataclass(frozen=True, eq=False)
class Picture:
    """What is drawn, and the numbers that it shows."""

    name: str
    """Of its files: "pareto"."""
    caption: str
    """What it shows, in a line, without square brackets."""
    size: tuple[float, float]
    """Width and height, inches."""
    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float | None]]
    """Cells, as many a row as there are columns; None: not known."""
    draw: Callable[[Any], None]
    """Onto a figure of matplotlib without axes."""

    @property
    def files(self) -> tuple[str, str]:
        """Names of its picture and of its numbers."""
        return f"{self.name}.png", f"{self.name}.csv"


def save_picture(picture: Picture, folder: Path) -> None:
    """NAME.png and NAME.csv in a folder, which is made if need be; old files are replaced.

    Raises:
      OSError: one cannot be written.
    """
    make_folder(folder)
    image, numbers = (folder / name for name in picture.files)
    with replacing(image) as new:
        draw_picture(picture, new)
    write_text(numbers, csv_text(picture.columns, picture.rows))


def draw_picture(picture: Picture, target: Path) -> None:
    """The PNG of a picture.

    Raises:
      OSError: it cannot be written.
    """
    # Imported here because it takes a second; without pyplot, which would look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=picture.size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    picture.draw(figure)
    figure.savefig(target, format="png")


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[str | int | float | None]]) -> str:
    """A table as CSV; a number has all its digits, and one that is not known no cell."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return file.getvalue()


def is_plain(row: Row) -> bool:
    """Whether a method draws one reply, under the run's own tilt, and gives it."""
    return row["n"] == 1 and row.get("search") is None and row.get("bound") is None


def series_of(row: Row) -> str:
    """What the methods share that differ in their ratio alone: 'entropy' of 'entropy 20%'."""
    return re.sub(r" [\d.]+%", "", row["name"])


def by_series(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by their series, in the order in which each comes first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(series_of(row), []).append(row)
    return found


def styles_of(rows: Iterable[Row]) -> dict[str, dict[str, str]]:
    """Colour and marker of each series: colours by kind of gate, markers so that equal colours differ."""
    styles: dict[str, dict[str, str]] = {}
    others = iter("^v<>*ph8d1234" * 10)
    for name, own in by_series(rows).items():
        kind = own[0]["kind"]
        marker = _MARKERS.get(kind)
        if marker is None or not is_plain(own[0]) or name != kind.replace("-", " "):
            marker = next(others)
        styles[name] = {"color": _COLOURS.get(kind, "#8c6d31"), "marker": marker}
    return styles


def ends(interval: Interval) -> tuple[float, float]:
    """How far an interval reaches below and above its mean; nowhere if it is not known."""
    return (interval.mean - interval.low, interval.high - interval.mean) if interval.is_known else (0.0, 0.0)


def number(value: float) -> float | None:
    """None of one that is not finite."""
    return value if abs(value) < float("inf") else None


def interval_cells(interval: Interval) -> tuple[float | None, float | None, float | None]:
    """Mean and ends, as cells."""
    return number(interval.mean), number(interval.low), number(interval.high)


def plain_axes(axes: Any) -> None:
    """A faint grid, and no frame to the right and above."""
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
