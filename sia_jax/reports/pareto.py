"""Reward against what it takes: the share of steered tokens, FLOPs a token, seconds a reply."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sia_jax.evaluation.statistics import Interval
from sia_jax.reports.labels import Label, Mark, place_labels
from sia_jax.reports.pictures import (
    Picture,
    Row,
    by_series,
    ends,
    interval_cells,
    is_plain,
    plain_axes,
    series_of,
    styles_of,
)
from sia_jax.reports.titles import reward_title

Results = Mapping[str, Any]
"""What `decode.evaluate` writes to results.json."""

_MODELS = ("policy", "value", "reward")
_MOST_TOLD = 3
"""Series whose points all have labels; of more each has one, at its last point."""


@dataclass(frozen=True)
class _Cost:
    """What a method's point stands over."""

    at: float
    low: float
    high: float
    """Ends of what was measured; both `at` where that is one number."""


def share_picture(results: Results) -> Picture:
    """Reward over the share of steered tokens.

    Args:
      results: of a comparison.
    """
    return _picture(
        results,
        "pareto",
        "Reward over the share of steered tokens",
        ("steered",),
        lambda row: [row["ratio"]],
        lambda row: _Cost(*[100 * row["ratio"]] * 3),
        "steered tokens, %",
        is_log=False,
    )


def flops_picture(results: Results) -> Picture | None:
    """Reward over the FLOPs of all models for each token of the reply; None where they are not known.

    Args:
      results: of a comparison.
    """
    if any("flops_per_token" not in row for row in results["rows"]):
        return None

    def total(row: Row) -> float:
        return float(sum(row["flops_per_token"][model] for model in _MODELS))

    return _picture(
        results,
        "pareto-flops",
        "Reward over FLOPs a token, of all models",
        ("flops_per_token", *(f"flops_per_token_{model}" for model in _MODELS)),
        lambda row: [total(row), *(row["flops_per_token"][model] for model in _MODELS)],
        lambda row: _Cost(*[total(row)] * 3),
        "FLOPs a token of the reply, all models",
        is_log=True,
    )


def seconds_picture(results: Results) -> Picture | None:
    """Reward over the seconds a reply, from the fastest to the slowest seed.

    Args:
      results: of a comparison; None where the seconds of no method are known.
    """
    measured = [row for row in results["rows"] if _seconds(row) is not None]
    if not measured:
        return None

    brief = len(results["rows"]) - len(measured)
    left_out = (
        f"; not drawn, as measured too briefly: {brief} of {len(results['rows'])} methods" if brief else ""
    )

    def cells(row: Row) -> list[float | None]:
        cost = _seconds(row)
        return [None] * 3 if cost is None else [cost.at, cost.low, cost.high]

    return _picture(
        results,
        "pareto-seconds",
        "Reward over seconds a reply, from the fastest to the slowest seed" + left_out,
        ("seconds_per_reply", "seconds_fastest_seed", "seconds_slowest_seed"),
        cells,
        _seconds,
        "seconds a reply, with all that it takes",
        is_log=True,
    )


def _seconds(row: Row) -> _Cost | None:
    """A reply's; None where a seed was measured too briefly, or an earlier release wrote the results."""
    rates = row.get("seconds_per_reply_by_seed") or [None]
    known = [rate for rate in rates if rate is not None]
    if len(known) < len(rates):
        return None
    return _Cost(sum(known) / len(known), min(known), max(known))


def _picture(
    results: Results,
    name: str,
    caption: str,
    columns: Sequence[str],
    cells: Callable[[Row], Sequence[float | None]],
    cost: Callable[[Row], _Cost | None],
    xlabel: str,
    *,
    is_log: bool,
) -> Picture:
    """A panel for each measure, and the numbers of all its points."""
    measures, rows = results["measures"], results["rows"]

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, len(measures), squeeze=False)[0]
        drawn = []
        for axes, measure in zip(panels, measures, strict=True):
            drawn.append(_panel(axes, rows, measure, cost, is_log=is_log))
            axes.set(xlabel=xlabel, ylabel=reward_title(results, measure))
        for axes, (labels, marks, lines) in zip(panels, drawn, strict=True):
            place_labels(axes, labels, marks, lines)

    return Picture(
        name,
        caption,
        (1 + 5.5 * len(measures), 5),
        ("method", "measure", "reward", "low", "high", *columns),
        [
            [
                row["name"],
                measure,
                *interval_cells(Interval.from_json(row["rewards"][measure])),
                *cells(row),
            ]
            for measure in measures
            for row in rows
        ],
        draw,
    )


def _panel(
    axes: Any, rows: Sequence[Row], measure: str, cost: Callable[[Row], _Cost | None], *, is_log: bool
) -> tuple[list[Label], list[Mark], list[list[tuple[float, float]]]]:
    """Draw the points of a measure; what is to be labelled, and what labels are kept off."""
    points = [(row, x, Interval.from_json(row["rewards"][measure])) for row in rows if (x := cost(row))]
    points = [
        (row, x, reward)
        for row, x, reward in points
        if not math.isnan(reward.mean) and (x.at > 0 or not is_log)
    ]
    styles = styles_of(rows)
    labels: list[Label] = []
    marks: list[Mark] = []
    lines: list[list[tuple[float, float]]] = []
    series = by_series(row for row, _, _ in points)
    is_full = sum(len(own) > 1 for own in series.values()) > _MOST_TOLD
    for name, own in series.items():
        mine = sorted(
            ((x, reward, row) for row, x, reward in points if series_of(row) == name),
            key=lambda point: point[2]["ratio"],
        )
        for x, reward, _ in mine:
            below, above = ends(reward)
            axes.errorbar(
                [x.at],
                [reward.mean],
                yerr=([below], [above]),
                xerr=None if x.low == x.high else ([x.at - x.low], [x.high - x.at]),
                fmt="none",
                ecolor=styles[name]["color"],
                elinewidth=1.2,
                capsize=2.5,
                alpha=0.75,
            )
            horizontal = (None, None) if x.low == x.high else (x.low, x.high)
            marks.append(Mark(x.at, reward.mean, reward.mean - below, reward.mean + above, *horizontal))
        track = [(x.at, reward.mean) for x, reward, _ in mine]
        joined = "-" if len(track) > 1 else "none"
        axes.plot(*zip(*track, strict=True), linestyle=joined, linewidth=1.4, markersize=6.5, **styles[name])
        lines.append(track)
        for place, (x, reward, row) in enumerate(mine):
            is_last = place == len(mine) - 1
            text = _label(row, name, is_last=is_last, is_alone=len(own) == 1, tells_x=not is_log)
            if text and (is_last or not is_full):
                labels.append(Label(x.at, reward.mean, text, styles[name]["color"]))
        if own[0]["kind"] in ("base", "dense") and is_plain(own[0]):
            axes.axhline(track[0][1], color=styles[name]["color"], linewidth=0.8, linestyle=":", zorder=0)
    _scale(axes, [x for _, x, _ in points], is_log=is_log)
    return labels, marks, [line for line in lines if len(line) > 1]


def _label(row: Row, series: str, *, is_last: bool, is_alone: bool, tells_x: bool) -> str:
    """The method's name; in a series only the last point tells it, and the ratios of the others are enough.

    Where the axis is the share of steered tokens, it tells those itself.
    """
    whole, ratio = in_lines(str(row["name"])), row.get("asked_ratio")
    if is_alone:
        return whole
    if tells_x:
        return in_lines(series) if is_last else ""
    return whole if is_last or ratio is None else f"{100 * ratio:.4g}%"


def in_lines(name: str) -> str:
    """The name of a method with a line for each of its parts; numbers in parentheses stay together."""
    return re.sub(r", (?![^()]*\))", ",\n", name)


def _scale(axes: Any, costs: Sequence[_Cost], *, is_log: bool) -> None:
    """Limits with room for labels; a logarithmic axis has ticks at 1, 2 and 5."""
    if not is_log:
        axes.set_xlim(-8, 116)
        axes.set_xticks(range(0, 101, 20))
    elif costs:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        low, high = min(cost.low for cost in costs), max(cost.high for cost in costs)
        axes.set_xscale("log")
        axes.set_xlim(low / 1.5, high * 1.7)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _tick(x)))
    axes.margins(y=0.12)
    plain_axes(axes)


def _tick(value: float) -> str:
    """'0.5', '20', '5e+09' as '5 G'."""
    for factor, unit in ((1e15, " P"), (1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:g}{unit}"
    return f"{value:g}"
