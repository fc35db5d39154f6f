r"""How many prompts, and seeds, a difference between two methods needs to be found, as a table.

    python -m decode.power --difference 0.1 0.2 --replies out/evaluation/results.json --pair dense:base
    python -m decode.power --difference 0.1 --deviation 1.5 --correlation 0.6 --seeds 1

How much differences vary, from prompt to prompt and from seed to seed, is taken from the replies of an
evaluation (of decode.evaluate or decode.demo); or reckoned from the standard deviation of the rewards and
how far both methods' rewards of one prompt and seed are correlated. The test is the paired one that
decode.evaluate makes. --comparisons N asks for what stands after a correction for N comparisons.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sia_jax.evaluation.comparison import Measure
from sia_jax.evaluation.power import spread_from, spread_of
from sia_jax.evaluation.replies import read_pairs
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs, check_suffix
from sia_jax.reports.power import Plan, draw_power, power_text
from sia_jax.runs.cli import Count, File, Float, check_used, named_as_options, program, read_options
from sia_jax.runs.console import Terminal


@dataclass(frozen=True, kw_only=True)
class Args:
    """Plan an evaluation."""

    difference: tuple[float, ...] = ()
    """True differences that should be found, in the unit of rewards."""
    replies: File = None
    """Where the spread is from: replies.jsonl or results.json of decode.evaluate, or their folder."""
    pair: Annotated[str, tyro.conf.arg(metavar="ONE:OTHER")] = "dense:base"
    """The methods of the replies whose differences are looked at."""
    measure: Measure = "proxy"
    """Which of their rewards."""
    deviation: Float = None
    """Without replies: the standard deviation of a method's rewards."""
    correlation: Float = None
    """Without replies: of both methods' rewards of the same prompt and seed."""
    within: float = 0.0
    """Without replies: the share of the difference's variance that seeds make."""
    seeds: tuple[int, ...] = (1, 3, 5)
    """Replies of each method to each prompt."""
    power: tuple[float, ...] = (0.8, 0.9)
    """How often a difference should be found."""
    comparisons: Count = 1
    """That are corrected for."""
    plot: File = None
    """A .png file for the power over the number of prompts."""


def main(args: Args) -> None:
    """Print the table, and draw the picture; exits with 1 if something is wrong with options or files."""
    with program("decode.power"):
        check_suffix("--plot", args.plot, ".png")
        check_outputs(inputs={"--replies": args.replies}, files={"--plot": args.plot})
        if not (args.difference and args.seeds and args.power):
            raise ValueError("--difference, --seeds and --power take one number or more each")
        with named_as_options(args):
            plan, origin = _plan(args)
            text = power_text(plan, origin)
        if args.plot is not None:
            with locked(files=(Path(args.plot),)):
                draw_power(plan, Path(args.plot))
        Terminal().say(text)


def _plan(args: Args) -> tuple[Plan, str]:
    """What is asked for, and where its spread is from."""
    asked = args.difference, args.seeds, args.power, args.comparisons
    if args.replies is None:
        check_used(args, ("pair", "measure"), "--replies FILE")
        if args.deviation is None or args.correlation is None:
            raise ValueError("give --replies FILE, or --deviation X and --correlation X")
        spread = spread_from(args.deviation, args.correlation, args.within)
        origin = f"rewards of deviation {args.deviation:g}, correlated by {args.correlation:g}"
        return Plan(spread, *asked), origin
    check_used(args, ("deviation", "correlation", "within"), "a spread without --replies")
    pairs = read_pairs(Path(args.replies), args.pair, args.measure)
    prompts = len(set(pairs.prompts))
    origin = f"{len(pairs.prompts):,} pairs of {args.pair} on {prompts:,} prompts, {args.measure} reward"
    origin += f", without {pairs.left_out:,} that have no reward" if pairs.left_out else ""
    return Plan(spread_of(pairs.differences, pairs.prompts), *asked, prompts), origin


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
