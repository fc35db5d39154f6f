r"""How often the intervals of decode.evaluate hold the true mean: simulated, as a table.

    python -m decode.demo --prompts 300 --out out/demo300
    python -m decode.coverage --replies out/demo300/replies.jsonl --out docs/intervals.md

A trial draws n differences, one a prompt, from a law whose mean is known: the normal and the exponential one,
and the differences between methods in a file of replies (of decode.demo or decode.evaluate), each of them
equally likely. The table has the share of trials whose interval holds the mean, for the intervals that are
used and for others that are not.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from sia_jax.data.prompts import check_seed
from sia_jax.evaluation.coverage import EXPONENTIAL, KINDS, NORMAL, Cover, Law, cover, from_values
from sia_jax.evaluation.statistics import FEWEST, FEWEST_OTHERS, LEVEL
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs, check_suffix
from sia_jax.files.reading import check_file
from sia_jax.files.shown import shown_value
from sia_jax.files.strict_json import parse_object, stream_lines
from sia_jax.files.writing import write_text
from sia_jax.runs.cli import Count, check_used, command, program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.journal import number_in, place_in
from sia_jax.runs.progress import waiting


@dataclass(frozen=True, kw_only=True)
class Args:
    """Simulate the cover of intervals."""

    replies: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Replies with gold rewards under several methods: replies.jsonl of decode.demo or decode.evaluate."""
    pairs: tuple[str, ...] = ("sparse 20%:base", "dense:base", "sparse 10%:sparse 20%", "sparse 20%:dense")
    """Methods of the file whose differences are drawn from, as ONE:OTHER."""
    prompts: tuple[int, ...] = (3, 5, 10, 20, 30, 100, 300)
    """Differences of a trial."""
    trials: Count = 2000
    """Of each law and size."""
    resamples: Count = 2000
    """Of each bootstrap."""
    seed: Count = 0
    """Of everything random."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("out/intervals.md")
    """The page, a .md file."""


def main(args: Args) -> None:
    """Simulate, and write the page; exits with 1 if something is wrong with options or files."""
    with program("decode.coverage") as console:
        check_seed(args.seed, "--seed")
        if args.trials < 1 or args.resamples < 1 or not args.prompts or min(args.prompts) < 2:
            raise ValueError("--trials and --resamples must be 1 or more, and --prompts 2 or more each")
        if args.replies is None:
            check_used(args, ("pairs",), "--replies FILE")
        check_outputs(inputs={"--replies": args.replies}, files={"--out": args.out})
        check_suffix("--out", args.out, ".md")
        with locked(files=(args.out,)):
            laws = [NORMAL, EXPONENTIAL, *(_differences(args) if args.replies else [])]
            rows = []
            for law in laws:
                for prompts in args.prompts:
                    with waiting(console, f"{law.name}, {prompts} prompts: {args.trials:,} trials"):
                        rows.append((law, prompts, _cover(law, prompts, args)))
            page = _page(rows, args)
            write_text(args.out, page)
            Terminal().say(page)


def _cover(law: Law, prompts: int, args: Args) -> Cover:
    return cover(law, prompts, trials=args.trials, resamples=args.resamples, seed=args.seed)


def _differences(args: Args) -> list[Law]:
    """The law of each pair of methods: the mean difference of each prompt's gold rewards.

    Raises:
      FileNotFoundError, ValueError: no such file, or none of such replies.
    """
    assert args.replies is not None
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    check_file(args.replies, "file of replies")
    with args.replies.open("rb") as file:
        for number, line in stream_lines(file, str(args.replies)):
            place = f"{args.replies}, line {number}"
            record = parse_object(line, place, is_line=True)
            try:
                method, index, gold = record["method"], place_in(record, "index"), number_in(record, "gold")
                if not isinstance(method, str):
                    raise ValueError(f"method must be a text, got {shown_value(method, 60)}")
            except (ValueError, KeyError) as error:
                raise ValueError(
                    f"{place}: this is no reply with a method, an index and a gold reward ({error})"
                ) from None
            found[method][index].append(gold)
    laws = []
    for pair in args.pairs:
        one, _, other = pair.partition(":")
        if one not in found or other not in found or found[one].keys() != found[other].keys():
            raise ValueError(
                f"{args.replies} has no replies of both methods of --pairs {pair} to the same prompts, only "
                f"of {sorted(found)}"
            )
        means = [np.mean(found[one][i]) - np.mean(found[other][i]) for i in sorted(found[one])]
        laws.append(from_values(f"{one} minus {other}", np.array(means)))
    return laws


def _page(rows: list[tuple[Law, int, Cover]], args: Args) -> str:
    lines = [("differences", "prompts", *KINDS, "no interval", "median width"), ("---", *["---:"] * 8)]
    for law, prompts, found in rows:
        held = [f"{found.held[kind]:.1%}" for kind in KINDS]
        width = "" if np.isnan(found.width) else f"{found.width:.2f}"
        lines.append((law.name, f"{prompts}", *held, f"{found.refused:.0%}", width))
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"""# Intervals of means, and how often they hold the mean

Made by `decode.coverage`; not edited by hand.

Each share is that of {args.trials:,} simulated trials (so it is known to about half a point) in which the
interval holds the mean of the law that the differences were drawn from; {LEVEL:.0%} is what is promised.
"Used here" is what `decode.evaluate` and `decode.demo` give: the wider end, on either side, of Student's t
and the studentised bootstrap (bootstrap-t). It gives no interval below {FEWEST} prompts, nor where fewer
than {FEWEST_OTHERS} prompts have another value than the commonest one; its share is that of the trials in
which it gives none that misses. The width is that of those it gives, in standard errors of the law (3.92 is
that of a normal mean of known spread). Other laws than the normal and the exponential one are the
differences of gold rewards between methods in the embedded world, each prompt's equally likely; where two
methods differ at few prompts, most differences are 0.

{table}
```
{command("decode.coverage", args)}
```
"""


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
