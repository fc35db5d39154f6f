"""At which entropies dense steering shifts tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sia_jax.reports.labels import Label, place_labels
from sia_jax.reports.pictures import Picture, is_plain, plain_axes

_STYLES = {"shifted": ("#d55e00", "-"), "unshifted": ("#0072b2", "--")}
_COLUMNS = ("share", "up_to")


def entropy_picture(results: Mapping[str, Any]) -> Picture | None:
    """Entropies of the tokens that dense steering shifted, and of the others: histograms, and sums of them.

    Args:
      results: of a comparison; None where dense steering has no counts, or nothing to compare.
    """
    found = (results.get("tokens") or {}).get("entropy")
    if found is None or not found["shifted"] or not found["unshifted"]:
        return None
    thresholds = [
        (row["asked_ratio"], row["threshold"])
        for row in results["rows"]
        if row["kind"] == "entropy" and is_plain(row)
    ]

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, 2)
        drawn = [_panel(axes, found, which) for axes, which in zip(panels, _COLUMNS, strict=True)]
        panels[0].set(ylabel=f"share of the tokens in each {_width(found):g} nats, %")
        panels[1].set(ylabel="share of the tokens up to there, %", ylim=(0, 104))
        for axes in panels:
            for _, threshold in thresholds:
                axes.axvline(threshold, color="#999999", linewidth=0.8, linestyle=":", zorder=0)
            axes.set(xlabel="entropy of the policy's candidates, nats", xlim=(0, found["bins"][-1]["high"]))
            plain_axes(axes)
        top = panels[1].get_ylim()[1]
        marked = [Label(x, 0.04 * top, f"{100 * ratio:.4g}%", "#555555") for ratio, x in thresholds]
        for axes, (labels, lines), more in zip(panels, drawn, ([], marked), strict=True):
            place_labels(axes, [*labels, *more], [], lines)

    return Picture(
        "entropy",
        "Entropy of the tokens that dense steering shifted, and of the others"
        + ("; dotted: thresholds of the entropy gates" if thresholds else ""),
        (12, 4.8),
        (
            "from_nats",
            "to_nats",
            *(f"{name}{end}" for name in _STYLES for end in ("", *_ends("share"), *_ends("up_to"))),
        ),
        [
            [
                part["low"],
                part["high"],
                *(
                    cell
                    for name in _STYLES
                    for cell in (
                        part[name],
                        *(
                            part[f"{name}_{which}"][end]
                            for which in _COLUMNS
                            for end in ("mean", "low", "high")
                        ),
                    )
                ),
            ]
            for part in found["bins"]
        ],
        draw,
    )


def _ends(which: str) -> Sequence[str]:
    return f"_{which}", f"_{which}_low", f"_{which}_high"


def _width(found: Mapping[str, Any]) -> float:
    return float(found["bins"][0]["high"] - found["bins"][0]["low"])


def _panel(
    axes: Any, found: Mapping[str, Any], which: str
) -> tuple[list[Label], list[list[tuple[float, float]]]]:
    """Draw both kinds of tokens; what is to be labelled, and what labels are kept off."""
    bins = found["bins"]
    edges = [bins[0]["low"], *(part["high"] for part in bins)]
    labels: list[Label] = []
    lines: list[list[tuple[float, float]]] = []
    for name, (colour, style) in _STYLES.items():
        shares = [part[f"{name}_{which}"] for part in bins]
        middle, low, high = (
            [np.nan if share[end] is None else 100 * share[end] for share in shares]
            for end in ("mean", "low", "high")
        )
        if which == "share":
            axes.stairs(middle, edges, color=colour, linewidth=1.5, linestyle=style)
            line = [point for k, y in enumerate(middle) for point in ((edges[k], y), (edges[k + 1], y))]
            if not np.isnan(low).any():
                axes.stairs(high, edges, baseline=low, color=colour, fill=True, alpha=0.2)
            place = int(np.argmax(middle))
            at = ((edges[place] + edges[place + 1]) / 2, middle[place])
        else:
            line = [(edges[0], 0.0), *zip(edges[1:], middle, strict=True)]
            axes.plot(*zip(*line, strict=True), color=colour, linewidth=1.5, linestyle=style)
            if not np.isnan(low).any():
                axes.fill_between(edges[1:], low, high, color=colour, alpha=0.2, linewidth=0)
            at = line[int(np.argmin([abs(y - 50) for _, y in line]))]
        lines.append(line)
        labels.append(Label(*at, f"{name}\n({found[name]:,} tokens)", colour))
    if which == "share":
        axes.set_ylim(bottom=0)
        axes.margins(y=0.12)
    return labels, lines
