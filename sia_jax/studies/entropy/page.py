"""How far high entropy predicts value spread: a Markdown section and a picture."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sia_jax.evaluation.resampling import FEWEST
from sia_jax.files.writing import make_folder, replacing
from sia_jax.studies.entropy.study import ALIKE, MARGIN, P_VALUE, Drawn, Measured, Population

_SCOPES = {"all": "all positions", "branching": "those that branch"}
_AGAINST = {
    "value": "entropy, value spread",
    "lot": "entropy, spread of values drawn by lot",
    "plain_value": "entropy, value spread with equal weights",
    "gold": "entropy, gold variance",
    "plain_gold": "entropy, gold variance with equal weights",
    "value_gold": "value variance, gold variance",
}


def section(summary: dict[str, Any], picture: str) -> str:
    """The Markdown of a study.

    Args:
      summary: what `decode.entropy_study` writes, without its positions.
      picture: link to what `plot` draws, relative to the page.
    """
    settings, figures = summary["settings"], summary["figures"]
    text = (
        "## How far high entropy predicts value spread\n\n"
        f"Policy {settings['policy']} ({settings['policy_fingerprint']}), value model {settings['value']} "
        f"({settings['value_fingerprint']}), seed {settings['seed']}: {_count(summary['prompts'], 'prompt')} "
        f"with one unsteered reply each, {_count(summary['positions'], 'position')}, of which "
        f"{_share(summary['branching'] / summary['positions'])} branch (two or more candidates of "
        f"{_share(settings['floor'])}). {settings['num_candidates']} candidates; all other tokens together "
        f"have {summary['outside']:.2%} on average. "
    )
    if summary["drawn"]:
        text += (
            f"Gold rewards at {_count(summary['drawn'], 'position')}, as many of each of {settings['bins']} "
            f"bins of entropy, from {settings['continuations']} replies after each candidate, "
            f"{summary['continuations']:,} in all. Where a position does not branch, its gold variance is "
            "taken as 0, and not measured. "
        )
    text += (
        "Brackets: 95% intervals, from a bootstrap that draws prompts; none ([?, ?]) below "
        f"{FEWEST} prompts.\n\n"
    )
    rows = [
        (
            text_of,
            where,
            _interval(figures[f"{name}/{scope}/spearman"]),
            _interval(figures[f"{name}/{scope}/pearson"]),
        )
        for name, text_of in _AGAINST.items()
        for scope, where in _SCOPES.items()
        if f"{name}/{scope}/spearman" in figures
    ]
    text += _table(("correlation of", "over", "Spearman", "Pearson"), rows)
    text += (
        "\nValues drawn by lot are alike at all positions, and mean nothing: where one candidate has nearly "
        "all mass, entropy and spread under the policy's distribution are small whatever the values. Among "
        "positions that branch, spreads with equal weights have none of this.\n"
    )
    if summary["drawn"]:
        text += f"\n{_reliability(figures)}"
    drawn_as = f"![Spread over entropy, position by position]({picture})"
    return f"{text}\n{_high(summary)}\n{_strata(summary)}\n{drawn_as}\n\n```sh\n{summary['command']}\n```\n"


def _reliability(figures: dict[str, Any]) -> str:
    half, whole, ceiling = (figures[f"reliability/{n}"] for n in ("half", "whole", "ceiling"))
    agreement = figures["agreement/observed"], figures["agreement/corrected"]
    return (
        f"Reliability of the gold variance over the positions that branch: {_interval(half)} between the two "
        f"halves of the replies, which makes {_number(whole)} of the whole: noise leaves correlations of at "
        f"most {_number(ceiling)} to be found.\n\n"
        "Within a position, the value model's values and the candidates' mean gold rewards correlate by "
        f"{_interval(agreement[0])}; without the noise of the means, {_interval(agreement[1])}.\n"
    )


def _high(summary: dict[str, Any]) -> str:
    figures, threshold = summary["figures"], summary["threshold"]
    share, values, alike = (
        _interval(figures[f"high/{name}"], "%") for name in ("share", "value_variance", "alike_value")
    )
    text = (
        f"Entropy is high (at least {threshold:g} nats) at {share} of positions. There lies {values} of all "
        "value variance"
    )
    if not summary["drawn"]:
        return (
            f"{text}. The value spread is below {ALIKE:g}, a matter of style, at {alike} of the positions of "
            "high entropy.\n"
        )
    gold, undecided, none = (
        _interval(figures[f"high/{name}"], "%") for name in ("gold_variance", "undecided", "alike_gold")
    )
    return (
        f"{text}, and {gold} of all gold variance. Matters of style among the positions of high entropy: at "
        f"{alike} the value spread is below {ALIKE:g}. Of those that branch, at {undecided} no difference in "
        f"gold is seen (p > {P_VALUE:g}), and by the p-values {none} have none.\n"
    )


def _strata(summary: dict[str, Any]) -> str:
    figures, has_gold = summary["figures"], bool(summary["drawn"])
    columns = ["entropy, nats", "of positions", "mean value spread"]
    if has_gold:
        columns += ["gold spread", f"best beats favourite by > {MARGIN:g}", "by chance alone"]
    rows = []
    for each in summary["strata"]:
        name = f"bin/{each['stratum']}"
        branches = each["stratum"] >= 0
        row = [
            f"{each['low']:.2f} to {each['high']:.2f}" + ("" if branches else ", no branch"),
            _interval(figures[f"{name}/share"], "%", brackets=False),
            _interval(figures[f"{name}/value"]),
        ]
        if has_gold and branches:
            row += [
                _interval(figures[f"{name}/gold_variance"], root=True),
                _interval(figures[f"{name}/gain"], "%"),
                _interval(figures[f"{name}/chance"], "%", brackets=False),
            ]
        elif has_gold:
            row += ["taken as 0", "", ""]
        rows.append(tuple(row))
    note = "\nValue spread: in units of the reward that the value model has learned.\n"
    note += (
        "Gold spread: the root of the mean gold variance (with a minus, of its size, where noise has made "
        "it negative).\n"
        if has_gold
        else ""
    )
    return _table(tuple(columns), rows) + note


def plot(
    summary: dict[str, Any],
    population: Population,
    drawn: Sequence[Drawn],
    measured: Sequence[Measured],
    path: Path,
) -> None:
    """Value spread, and gold spread where there are rewards, over entropy: each position, and the strata.

    Args:
      summary: as for `section`.
      population: every position.
      drawn: positions with rewards.
      measured: what these say.
      path: made, with its folder, if need be; a file that is there is replaced.
    """
    # Imported here because it takes a second; without pyplot, which would look for a display.
    from matplotlib.figure import Figure

    panels = 2 if drawn else 1
    figure = Figure(figsize=(5.6 * panels, 4.4), dpi=120, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _panel(axes[0], summary, population, population.entropies, population.spreads, "value", root=False)
    axes[0].set(ylabel="standard deviation of candidate values", title="Value spread, all positions")
    if drawn:
        entropies = population.entropies[[each.place for each in drawn]]
        roots = np.array([_root(each.variance) for each in measured])
        _panel(axes[1], summary, population, entropies, roots, "gold_variance", root=True)
        axes[1].set(
            ylabel="root of the gold variance (with its sign)",
            title=f"Gold spread, {len(drawn)} positions that branch",
        )
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    make_folder(path.parent)
    with replacing(path) as new:
        figure.savefig(new, format="png")


def _panel(
    axes: Any,
    summary: dict[str, Any],
    population: Population,
    entropies: np.ndarray,
    numbers: np.ndarray,
    name: str,
    *,
    root: bool,
) -> None:
    """Points, and over them the means of the strata with their intervals."""
    small = 4 if len(numbers) > 1000 else 12
    axes.scatter(
        entropies,
        numbers,
        s=small,
        color="#4c72b0",
        alpha=0.25,
        linewidths=0,
        label="a position",
    )
    figures = summary["figures"]
    strata = [s["stratum"] for s in summary["strata"] if f"bin/{s['stratum']}/{name}" in figures]
    centres = [float(population.entropies[population.strata == stratum].mean()) for stratum in strata]
    found = [figures[f"bin/{stratum}/{name}"] for stratum in strata]
    points = [
        (centre, *(_root(f[key]) if root else f[key] for key in ("estimate", "low", "high")))
        for centre, f in zip(centres, found, strict=True)
        if None not in f.values()
    ]
    if points:
        x, middle, low, high = np.array(points).T
        below, above = np.maximum(middle - low, 0), np.maximum(high - middle, 0)
        axes.errorbar(
            x,
            middle,
            (below, above),
            color="#c44e52",
            marker="o",
            markersize=4,
            capsize=3,
            label="a bin, with its 95% interval",
        )
    axes.axvline(summary["threshold"], color="0.4", linestyle="--", linewidth=1, label="high from here on")
    if root:
        axes.axhline(0, color="0.7", linewidth=0.8)
    axes.set(xlabel="entropy of the candidates, nats")
    axes.spines[["top", "right"]].set_visible(False)


def _root(variance: float) -> float:
    return math.copysign(math.sqrt(abs(variance)), variance)


def _interval(
    figure: dict[str, float | None], unit: str = "", *, brackets: bool = True, root: bool = False
) -> str:
    """'0.71 [0.68, 0.74]', or '24% [22%, 26%]'."""
    numbers = [figure[name] for name in ("estimate", "low", "high")]
    if root:
        numbers = [None if number is None else _root(number) for number in numbers]
    middle, low, high = ("?" if n is None else f"{n:.0%}" if unit else f"{n:.2f}" for n in numbers)
    return f"{middle} [{low}, {high}]" if brackets else middle


def _number(figure: dict[str, float | None]) -> str:
    return "?" if figure["estimate"] is None else f"{figure['estimate']:.2f}"


def _share(number: float) -> str:
    return f"{number:.0%}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
