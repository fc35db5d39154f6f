"""How often intervals hold the mean: the laws of real replies, and the page."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sia_jax.evaluation.coverage import KINDS, Cover, Law, from_values
from sia_jax.evaluation.replies import read_rewards
from sia_jax.evaluation.statistics import FEWEST, FEWEST_OTHERS, LEVEL
from sia_jax.reports import markdown


def laws_of(replies: Path, pairs: Sequence[str]) -> list[Law]:
    """The law of each pair of methods: the mean difference of each prompt's gold rewards.

    Args:
      replies: a file of `decode.demo` or `decode.evaluate`.
      pairs: of methods, ONE:OTHER.

    Raises:
      FileNotFoundError, ValueError: no such file, or none of such replies.
    """
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for reply in read_rewards(replies, "gold"):
        assert reply.reward is not None  # as a proxy reward may be
        found[reply.method][reply.index].append(reply.reward)
    laws = []
    for pair in pairs:
        one, _, other = pair.partition(":")
        if one not in found or other not in found or found[one].keys() != found[other].keys():
            raise ValueError(
                f"{replies} has no replies of both methods of --pairs {pair} to the same prompts, only "
                f"of {sorted(found)}"
            )
        means = [np.mean(found[one][i]) - np.mean(found[other][i]) for i in sorted(found[one])]
        laws.append(from_values(f"{one} minus {other}", np.array(means)))
    return laws


def page_text(rows: Sequence[tuple[Law, int, Cover]], trials: int, command: str) -> str:
    """The page.

    Args:
      rows: what was found for each law and number of prompts.
      trials: of each.
      command: by which the page is made.
    """
    columns, lines = ("differences", "prompts", *KINDS, "no interval", "median width"), []
    for law, prompts, found in rows:
        held = [f"{found.held[kind]:.1%}" for kind in KINDS]
        width = "" if np.isnan(found.width) else f"{found.width:.2f}"
        lines.append((law.name, f"{prompts}", *held, f"{found.refused:.0%}", width))
    table = markdown.table(columns, lines, labels=1)
    return f"""# Intervals of means, and how often they hold the mean

Made by `decode.coverage`; not edited by hand.

Each share is that of {trials:,} simulated trials (so it is known to about half a point) in which the
interval holds the mean of the law that the differences were drawn from; {LEVEL:.0%} is what is promised.
"Used here" is what `decode.evaluate` and `decode.demo` give: the wider end, on either side, of Student's t
and the studentised bootstrap (bootstrap-t). It gives no interval below {FEWEST} prompts, nor where fewer
than {FEWEST_OTHERS} prompts have another value than the commonest one; its share is that of the trials in
which it gives none that misses. The width is that of those it gives, in standard errors of the law (3.92 is
that of a normal mean of known spread). Other laws than the normal and the exponential one are the
differences of gold rewards between methods in the embedded world, each prompt's equally likely; where two
methods differ at few prompts, most differences are 0.

{table}
```sh
{command}
```
"""
