"""How many prompts a difference needs: a table and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sia_jax.evaluation.power import MOST, RESAMPLES, Spread, power, prompts_needed
from sia_jax.evaluation.statistics import FEWEST, LEVEL
from sia_jax.files.writing import make_folder, replacing
from sia_jax.reports import markdown

_COLOURS = ("#1f6fb4", "#d9822b", "#7b3fa0", "#2e8b57", "#b03060", "#555555")


@dataclass(frozen=True)
class Plan:
    """What is asked for."""

    spread: Spread
    """Of the differences of pairs."""
    differences: Sequence[float]
    """True ones, in the unit of rewards."""
    seeds: Sequence[int]
    """Replies of each method to each prompt."""
    powers: Sequence[float]
    """How often a difference should be found."""
    comparisons: int = 1
    """That are corrected for."""
    prompts: int | None = None
    """That there are already; None: nothing is there."""


def power_text(plan: Plan, origin: str) -> str:
    """The table and what it says, as Markdown.

    Args:
      plan: what is asked for.
      origin: where the spread is from, a clause.

    Raises:
      ValueError: a number out of its range.
    """
    spread, columns = plan.spread, ["difference", "seeds"]
    columns += [f"prompts, power {wanted:.0%}" for wanted in plan.powers]
    columns += [] if plan.prompts is None else [f"power of {plan.prompts:,} prompts"]
    lines = []
    for difference in plan.differences:
        for seeds in plan.seeds:
            needed = [
                prompts_needed(difference, spread, seeds, wanted, comparisons=plan.comparisons)
                for wanted in plan.powers
            ]
            line = [f"{difference:g}", f"{seeds}"]
            line += [f"above {MOST:,}" if count is None else f"{count:,}" for count in needed]
            if plan.prompts is not None:
                line.append(f"{_power(plan, difference, plan.prompts, seeds):.0%}")
            lines.append(line)
    level = f"{(1 - LEVEL) / plan.comparisons:.2g}"
    corrected = "" if plan.comparisons == 1 else f" (5% over {plan.comparisons:,} comparisons)"
    seeds_make = f"and of {np.sqrt(spread.within):.3g} between seeds at one prompt"
    if spread.within == 0:
        seeds_make = "in which the part of the seeds is not known, so that more of them are not said to help"
    return (
        f"{markdown.table(columns, lines, labels=0)}\n"
        f"Differences of pairs vary with a standard deviation of {np.sqrt(spread.between):.3g} between "
        f"prompts, {seeds_make}: {origin}. Tested is the mean of paired differences, two-sided at "
        f"{level}{corrected}, by the interval of decode.evaluate over {RESAMPLES:,} resamples: a little more "
        f"than Student's t takes, more where rewards are skewed, and none below {FEWEST} prompts.\n"
    )


def draw_power(plan: Plan, path: Path) -> None:
    """The power over the number of prompts, a line for each difference and number of seeds, as a PNG.

    Args:
      plan: what is asked for.
      path: its folder is made if need be; an old file is replaced.
    """
    # Imported here because it takes a second; without pyplot, which would look for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    prompts = np.unique(np.geomspace(FEWEST, _last(plan), 60).astype(int))
    styles = ("-", "--", ":", "-.")
    for place, difference in enumerate(plan.differences):
        for number, seeds in enumerate(plan.seeds):
            found = [100 * _power(plan, difference, int(count), seeds) for count in prompts]
            axes.plot(
                prompts,
                found,
                styles[number % len(styles)],
                color=_COLOURS[place % len(_COLOURS)],
                label=f"{difference:g}, {seeds} seeds",
            )
    for wanted in plan.powers:
        axes.axhline(100 * wanted, color="#999999", linewidth=0.8, zorder=0)
    axes.set(xscale="log", xlabel="prompts", ylabel="power, %", ylim=(0, 101))
    axes.legend(frameon=False, fontsize="small")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    make_folder(path.parent)
    with replacing(path) as new:
        figure.savefig(new, format="png")


def _power(plan: Plan, difference: float, prompts: int, seeds: int) -> float:
    return power(difference, plan.spread, prompts, seeds, comparisons=plan.comparisons)


def _last(plan: Plan) -> int:
    """Prompts at the right end: where the smallest difference is found nearly always."""
    smallest = min(plan.differences, key=abs)
    needed = prompts_needed(smallest, plan.spread, min(plan.seeds), 0.99, comparisons=plan.comparisons)
    return max(needed or MOST, 2 * FEWEST)
