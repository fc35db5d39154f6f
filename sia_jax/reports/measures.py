"""What a comparison says beside its means: differences with p-values and wins, and measures of the texts."""

import math
from collections.abc import Mapping
from typing import Any

from sia_jax.evaluation.statistics import Interval
from sia_jax.evaluation.text_measures import BEGINNING, DISTINCT, REPEATED
from sia_jax.reports import markdown


def differences_section(results: Mapping[str, Any]) -> str:
    """The differences from base and dense steering, with the section's heading; empty if there are none.

    Args:
      results: of a comparison, as of `sia_jax.evaluation.claims.to_json`.
    """
    measures = results["measures"]
    lines = [
        [row["name"], rival, *(cell for measure in measures for cell in difference_cells(found[measure]))]
        for row in results["rows"]
        if row["key"] != "base"  # whose difference from dense steering is told of that
        for rival, found in row["differences"].items()
    ]
    if not lines:
        return ""
    columns = ["method", "minus"]
    for measure in measures:
        columns += [f"{measure} reward", f"p, {measure}", f"wins, {measure}"]
    return (
        "## Differences\n\n"
        f"{markdown.table(columns, lines, labels=2)}\n"
        "p is the two-sided p-value that belongs to the interval beside it, adjusted by Holm's method for "
        f"the {len(lines)} differences of this table on the same reward: if only those with a p of at most "
        "0.05 are called different, the chance that any of these calls is wrong is at most 5%. The two "
        "rewards are not corrected for each other, nor are intervals. Wins are the share of replies that "
        "earn more than their partner, the reply to the same prompt under the same seed; ties count one "
        "half, and intervals are over prompts.\n"
    )


def texts_section(results: Mapping[str, Any]) -> str:
    """The measures of the texts, with the section's heading; empty if the records had no texts.

    Args:
      results: of a comparison.
    """
    rows = [row for row in results["rows"] if "words" in row]
    if not rows:
        return ""
    repeated, distinct = [f"rep_{n}" for n in REPEATED], [f"distinct_{n}" for n in DISTINCT]
    columns = ["method", "tokens a reply", "words a reply", "cut"]
    columns += [name.replace("_", "-") for name in (*repeated, *distinct)]
    lines = [
        [
            row["name"],
            f"{row['length']:.1f}",
            Interval.from_json(row["words"]).text(digits=1),
            f"{row['cut']:.1%}",
            *(Interval.from_json(row[name]).text(digits=3) for name in repeated),
            *("" if row[name] is None else f"{row[name]:.3f}" for name in distinct),
            "" if row.get("perplexity") is None else f"{row['perplexity']:.2f}",
            Interval.from_json(row["refusals"]).text(),
        ]
        for row in rows
    ]
    return (
        "## Fluency and length\n\n"
        f"{markdown.table([*columns, 'perplexity', 'refusals'], lines, labels=1)}\n"
        "rep-n is the share of a reply's n-grams of words that have stood in it before, on average of the "
        "replies; distinct-n the share of the n-grams of all replies together that are unique, which falls "
        "as replies get longer, and has no interval. Perplexity is exp(-mean log-probability) of all tokens "
        "under the unsteered policy at temperature 1. Cut are the replies that ended by their length. "
        "Refusals are replies with one of the phrases of `sia_jax.evaluation.text_measures` in their first "
        f"{BEGINNING} words, or with no words: a count of English phrases, and no judgement.\n"
    )


def difference_cells(found: Mapping[str, Any]) -> list[str]:
    """A difference with its interval, its p-value, and its wins.

    Args:
      found: as of `sia_jax.evaluation.comparison.Comparison.differences`.
    """
    wins = Interval.from_json(found["wins"])
    return [
        Interval.from_json(found).text(signed=True, digits=3),
        p_text(found["p_adjusted"]),
        wins.text(),
    ]


def p_text(p: float | None) -> str:
    """'0.012', rounded up, so that 0.0501 is not 0.05; '<0.001' below that; '?' where there is none."""
    if p is None:
        return "?"
    return "<0.001" if p < 0.001 else f"{math.ceil(1000 * p - 1e-9) / 1000:.3f}"
