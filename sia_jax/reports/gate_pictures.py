"""Gates beside each other: what each gains at equal ratio, and where in the reply its junctions lie."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sia_jax.evaluation.statistics import Interval
from sia_jax.reports.labels import Label, Mark, place_labels
from sia_jax.reports.pictures import (
    Picture,
    Row,
    by_series,
    ends,
    interval_cells,
    is_plain,
    number,
    plain_axes,
    series_of,
    styles_of,
)
from sia_jax.reports.titles import reward_title

Results = Mapping[str, Any]
"""What `decode.evaluate` writes to results.json."""

_CENTRES = 10 * np.arange(10) + 5
"""Of the tenths of a reply, %."""


def gates_picture(results: Results) -> Picture | None:
    """Reward minus the base's, by gate and ratio, with 95% intervals; without a base, the reward.

    Args:
      results: of a comparison; None where there are no two gates.
    """
    rows = [row for row in results["rows"] if row["asked_ratio"] is not None and is_plain(row)]
    if len(by_series(rows)) < 2:
        return None
    measures = results["measures"]
    is_paired = all("base" in row["differences"] for row in rows)
    dense = next((row for row in results["rows"] if row["kind"] == "dense" and is_plain(row)), None)

    def gain(row: Row, measure: str) -> Interval:
        return Interval.from_json((row["differences"]["base"] if is_paired else row["rewards"])[measure])

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, len(measures), squeeze=False)[0]
        drawn = []
        for axes, measure in zip(panels, measures, strict=True):
            reference = None if dense is None else gain(dense, measure)
            drawn.append(_gates(axes, rows, {row["key"]: gain(row, measure) for row in rows}, reference))
            minus = " minus the base's" if is_paired else ""
            axes.set(
                xlabel="steered tokens that are asked for", ylabel=reward_title(results, measure) + minus
            )
            if is_paired:
                axes.axhline(0, color="#222222", linewidth=0.9, zorder=0)
        for axes, (labels, marks) in zip(panels, drawn, strict=True):
            place_labels(axes, labels, marks, [])

    shown = rows if dense is None else [*rows, dense]
    return Picture(
        "gates",
        "Gates at equal ratio: reward" + (" minus the base's" if is_paired else ""),
        (1 + 5.5 * len(measures), 5),
        (
            "method",
            "measure",
            "asked_ratio",
            "steered",
            "minus_base" if is_paired else "reward",
            "low",
            "high",
        ),
        [
            [row["name"], measure, row["asked_ratio"], row["ratio"], *interval_cells(gain(row, measure))]
            for measure in measures
            for row in shown
        ],
        draw,
    )


def _gates(
    axes: Any, rows: Sequence[Row], gains: Mapping[str, Interval], dense: Interval | None
) -> tuple[list[Label], list[Mark]]:
    """Draw the gates side by side at each ratio; what is to be labelled, and what labels are kept off."""
    ratios = sorted({row["asked_ratio"] for row in rows})
    series, styles = by_series(rows), styles_of(rows)
    labels: list[Label] = []
    marks: list[Mark] = []
    for place, (name, own) in enumerate(series.items()):
        for row in own:
            gain = gains[row["key"]]
            at = ratios.index(row["asked_ratio"]) + 0.7 * ((place + 0.5) / len(series) - 0.5)
            below, above = ends(gain)
            axes.errorbar(
                [at],
                [gain.mean],
                yerr=([below], [above]),
                linestyle="none",
                elinewidth=1.4,
                capsize=2.5,
                markersize=6.5,
                **styles[name],
            )
            marks.append(Mark(at, gain.mean, gain.mean - below, gain.mean + above))
            if row is own[-1]:
                labels.append(Label(at, gain.mean, name, styles[name]["color"]))
    axes.set_xticks(range(len(ratios)), [f"{100 * ratio:.4g}%" for ratio in ratios])
    axes.set_xlim(-0.5, len(ratios) - 0.1)
    for edge in range(1, len(ratios)):
        axes.axvline(edge - 0.5, color="#bbbbbb", linewidth=0.6, zorder=0)
    if dense is not None:
        colour = styles_of([{"kind": "dense", "name": "dense", "n": 1}])["dense"]["color"]
        axes.axhline(dense.mean, color=colour, linewidth=1.2, linestyle="--", zorder=0)
        if dense.is_known:
            axes.axhspan(dense.low, dense.high, color=colour, alpha=0.15, linewidth=0, zorder=0)
        labels.append(Label(len(ratios) - 0.35, dense.mean, "dense", colour))
    axes.margins(y=0.12)
    plain_axes(axes)
    axes.grid(visible=False, axis="x")
    return labels, marks


def junctions_picture(results: Results) -> Picture | None:
    """The share of each gate's junctions that lie in each tenth of the reply, a panel for each ratio.

    Args:
      results: of a comparison; None where no gate has counts.
    """
    found = (results.get("tokens") or {}).get("junctions", [])
    gates = [one for one in found if one["asked_ratio"] is not None and _has_any(one)]
    if not gates:
        return None
    dense = [one for one in found if one["kind"] == "dense" and one["asked_ratio"] is None and _has_any(one)]
    ratios = sorted({one["asked_ratio"] for one in gates})
    across = min(3, len(ratios))
    down = -(-len(ratios) // across)
    rows = [{**one, "n": 1} for one in (*gates, *dense)]
    styles = styles_of(rows)

    def draw(figure: Any) -> None:
        panels = figure.subplots(down, across, squeeze=False).ravel()
        drawn = []
        for axes in panels[len(ratios) :]:
            axes.set_axis_off()
        for axes, ratio in zip(panels, ratios, strict=False):
            own = [row for row in rows if row["asked_ratio"] == ratio]
            drawn.append((axes, _tenths(axes, own, [r for r in rows if r["asked_ratio"] is None], styles)))
            axes.set_title(f"{100 * ratio:.4g}% of the tokens steered", fontsize="medium")
            axes.set(xlabel="place in the reply, % of its tokens", ylabel="share of the junctions, %")
        for axes, (labels, lines) in drawn:
            marks = [Mark(x, y) for line in lines for x, y in line]
            place_labels(axes, labels, marks, lines)

    return Picture(
        "junctions",
        "Where in the reply the junctions of each gate lie",
        (1.2 + 3.9 * across, 0.6 + 3.4 * down),
        ("method", "from_percent", "to_percent", "junctions", "tokens", "share", "low", "high"),
        [
            [
                one["name"],
                10 * tenth,
                10 * (tenth + 1),
                part["junctions"],
                part["tokens"],
                *(part["share"][name] for name in ("mean", "low", "high")),
            ]
            for one in (*gates, *dense)
            for tenth, part in enumerate(one["tenths"])
        ],
        draw,
    )


def _tenths(
    axes: Any, rows: Sequence[Row], dense: Sequence[Row], styles: Mapping[str, Mapping[str, str]]
) -> tuple[list[Label], list[list[tuple[float, float]]]]:
    """Draw the shares of one ratio's gates; what is to be labelled, and what labels are kept off."""
    labels: list[Label] = []
    lines: list[list[tuple[float, float]]] = []
    for row in (*dense, *rows):
        name = series_of(row)
        colour, shares = styles[name]["color"], [part["share"] for part in row["tenths"]]
        middle = [100 * share["mean"] for share in shares]
        style = {"linestyle": ":", "marker": "none"} if row["asked_ratio"] is None else {}
        axes.plot(_CENTRES, middle, linewidth=1.4, markersize=4, **{**styles[name], **style})
        if all(number(Interval.from_json(share).low) is not None for share in shares):
            low, high = ([100 * share[end] for share in shares] for end in ("low", "high"))
            axes.fill_between(_CENTRES, low, high, color=colour, alpha=0.15, linewidth=0)
        line = [(float(x), y) for x, y in zip(_CENTRES, middle, strict=True)]
        lines.append(line)
        # Where it lies farthest from the even tenth, lines are farthest apart.
        x, y = max(line, key=lambda point: abs(point[1] - 10))
        labels.append(Label(x, y, name, colour))
    axes.set_xlim(0, 100)
    axes.set_xticks(range(0, 101, 20))
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    plain_axes(axes)
    return labels, lines


def _has_any(one: Mapping[str, Any]) -> bool:
    """Whether there is a junction."""
    return any(part["junctions"] for part in one["tenths"])
