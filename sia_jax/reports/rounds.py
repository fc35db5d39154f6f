"""The page of an iteration: what each round came to on validation prompts, as a table and curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sia_jax.data.prompts import parse_threshold
from sia_jax.evaluation.rounds import ALONE
from sia_jax.evaluation.statistics import LEVEL, Interval
from sia_jax.files.writing import write_text
from sia_jax.reports import markdown
from sia_jax.reports.pictures import Picture, ends, interval_cells, plain_axes, save_picture

PAGE, CURVES = "iteration.md", "curves"
_ALONE, _STEERED, _FIT, _ORDER = "#555555", "#0072b2", "#d55e00", "#009e73"


def write_page(results: Mapping[str, Any], folder: Path) -> None:
    """iteration.md, curves.png and curves.csv in a folder.

    Args:
      results: what `train.iterate` writes as results.json.
      folder: is there.
    """
    save_picture(curves(results["rows"], results["best"]), folder)
    write_text(folder / PAGE, page_text(results))


def page_text(results: Mapping[str, Any]) -> str:
    """The page, as Markdown.

    Args:
      results: see `write_page`.
    """
    rows, best = results["rows"], results["best"]
    columns = (
        *("what steers", "learned from", "reward", "above the policy alone", "above the one before"),
        *("R2", "in order", "tokens", "without a reward"),
    )
    lines = [
        (
            f"**{row['name']}**" if row["name"] == best else row["name"],
            _learned_from(row),
            _cell(row["reward"]),
            _cell(row.get("gain"), signed=True),
            _cell(row.get("step"), signed=True),
            _number(row.get("r2"), ".3f"),
            _number(row.get("in_order"), ".1%"),
            f"{row['tokens']:.1f}",
            f"{row['missing']:,}",
        )
        for row in rows
    ]
    whys = {row["reward"]["why"] for row in rows if row["reward"].get("why")}
    no_interval = f" [?]: no interval ({'; '.join(sorted(whys))})." if whys else ""
    settings, left_out = results["settings"], results["validation_left_out"]
    said = {
        **{name: results[name] for name in ("best", "mixture", "data", "reward", "command")},
        "threshold": f"{parse_threshold(settings['threshold']):g}",
        "beta": f"{settings['beta']:g}",
        "replies": settings["validation_replies"],
        "prompts": f"{results['validation_prompts']:,}",
        "left_out": f" ({left_out:,} more have no room for a reply)" if left_out else "",
        "table": markdown.table(columns, lines, labels=2),
        "level": f"{LEVEL:.0%}",
        "no_interval": no_interval,
        "curves": CURVES,
        "caption": _CAPTION,
    }
    return _PAGE.format(**said)


_PAGE = """# Value models that learn from their own steering

Made by `train.iterate`; not edited by hand.

Each round samples replies to the training prompts, {mixture}, scores them, and trains the value model of the
round before further on {data}. Then the policy, steered with the new value model at threshold {threshold} and
beta {beta}, replies {replies} times to each of {prompts} validation prompts{left_out}, of which none is a
training prompt. All rows have the same random numbers for the same prompt and reply. In brackets the {level}
interval over prompts; differences are of pairs.{no_interval}

{table}
The best is **{best}**, by the mean reward here: `best/`. It was chosen by these very prompts, so its reward
on others is likely to be a little lower; `decode.evaluate` measures that. R2 of the mean value, and pairs of
replies to one prompt in order, are of training prompts that were held out, on the replies that the round
learned from: each round on other replies.

![{caption}]({curves}.png)

Reward: {reward}. The numbers of the picture: [{curves}.csv]({curves}.csv).

```sh
{command}
```
"""
_CAPTION = "Reward of the steered policy by round, and how well its value model predicts rewards"


def curves(rows: Sequence[Mapping[str, Any]], best: str) -> Picture:
    """Reward of the steered policy by round, and the fit of the value models.

    Args:
      rows: of `sia_jax.evaluation.rounds.compare_rounds`, with "r2" and "in_order" where they are known.
      best: the name of the best.
    """
    steered = [row for row in rows if row["name"] != ALONE]
    alone = next(Interval.from_json(row["reward"]) for row in rows if row["name"] == ALONE)
    names = [row["name"] for row in steered]
    places = list(range(len(steered)))

    def draw(figure: Any) -> None:
        reward, fit = figure.subplots(1, 2)
        found = [Interval.from_json(row["reward"]) for row in steered]
        if alone.is_known:
            reward.axhspan(alone.low, alone.high, color=_ALONE, alpha=0.15, linewidth=0)
        reward.axhline(alone.mean, color=_ALONE, linewidth=1.2, label=ALONE)
        reward.errorbar(
            places,
            [one.mean for one in found],
            yerr=list(zip(*map(ends, found), strict=True)),
            color=_STEERED,
            marker="o",
            capsize=3,
            label="steered",
        )
        at = names.index(best)
        reward.plot([at], [found[at].mean], "*", color=_STEERED, markersize=16, label="best")
        reward.set(title="reward on validation prompts", ylabel="mean reward, and its interval")
        for name, label, colour, marker in (
            ("r2", "$R^2$ of the mean value", _FIT, "o"),
            ("in_order", "pairs of replies in order", _ORDER, "s"),
        ):
            known = [(place, row[name]) for place, row in enumerate(steered) if row.get(name) is not None]
            if known:
                fit.plot(*zip(*known, strict=True), color=colour, marker=marker, label=label)
        fit.set(title="fit on held-out prompts", ylim=(min(0.0, fit.get_ylim()[0]), 1.02))
        for axes in (reward, fit):
            axes.set_xticks(places, names)
            axes.set_xlim(-0.4, len(places) - 0.6)
            plain_axes(axes)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(frameon=False, fontsize="small")

    columns = ("what steers", *_triple("reward"), *_triple("gain"), *_triple("step"), "r2", "in_order")
    cells = [
        (
            row["name"],
            *_cells(row["reward"]),
            *_cells(row.get("gain")),
            *_cells(row.get("step")),
            row.get("r2"),
            row.get("in_order"),
        )
        for row in rows
    ]
    return Picture(CURVES, _CAPTION, (10, 4), columns, cells, draw)


def _triple(name: str) -> tuple[str, str, str]:
    return name, f"{name} low", f"{name} high"


def _cells(found: Mapping[str, Any] | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if found is None else interval_cells(Interval.from_json(found))


def _cell(found: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    return "" if found is None else Interval.from_json(found).text(signed=signed, digits=3)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _learned_from(row: Mapping[str, Any]) -> str:
    """'240 replies, 120 of them steered'; of what did not learn here, nothing."""
    if row.get("learned_from") is None:
        return ""
    steered = f", {row['learned_from_steered']:,} of them steered" if row["learned_from_steered"] else ""
    return f"{row['learned_from']:,} replies{steered}"
