"""What a comparison says of gates: how each is set, and how it does beside the entropy gate of its ratio."""

from collections.abc import Mapping
from typing import Any

from sia_jax.reports import markdown
from sia_jax.reports.measures import difference_cells


def gate_text(row: Mapping[str, Any]) -> str:
    """'H ≥ 1.21 nats', 'p = 0.193', 'every token', 't < 3'; empty for the policy alone.

    Args:
      row: of a method, as of `sia_jax.evaluation.comparison.Comparison.row`.
    """
    kind = row["kind"]
    if kind == "base":
        return ""
    if kind == "dense":
        return "every token"
    if kind == "random":
        rates = sorted({f"{rate:.3f}" for rate in (row["rates"][0], row["rates"][-1])})
        return f"p = {' to '.join(rates)}"
    if kind == "entropy-ratio":
        return f"ln H/H before ≥ {row['entropy_ratio']:.3g}"
    if kind == "position":
        return f"t < {row['position']:g}" if "position" in row else "no token"
    if kind == "learned":
        return f"w·x ≥ {-row['learned']['bias']:.3g}"
    threshold = f"H ≥ {row['threshold']:.3g} nats"
    return f"{row['budget']:.0%} held, at first {threshold}" if kind == "budget" else threshold


def equal_ratio_section(results: Mapping[str, Any]) -> str:
    """The gates less the entropy gates of their ratios, with the section's heading; empty if there are none.

    Args:
      results: of a comparison, as of `sia_jax.evaluation.claims.to_json`; one of an earlier release has none.
    """
    rows, measures = results.get("equal_ratio", []), results["measures"]
    if not rows:
        return ""
    columns = ["method", "steered", "by entropy"]
    for measure in measures:
        columns += [f"{measure} reward", f"p, {measure}", f"wins, {measure}"]
    lines = [
        [
            row["name"],
            f"{row['steered']:.1%}",
            f"{row['steered_by_entropy']:.1%}",
            *(cell for measure in measures for cell in difference_cells(row["differences"][measure])),
        ]
        for row in rows
    ]
    return (
        "## Gates at equal ratio\n\n"
        f"{markdown.table(columns, lines, labels=1)}\n"
        "Each gate less the entropy gate that was asked for the same ratio, paired by prompt and seed, and "
        "the shares of tokens that both have really steered: numbers of gates are calibrated on the policy's "
        "own replies, and steering writes others. A random gate takes the share of the entropy gate. p is "
        f"adjusted by Holm's method for the {len(rows)} differences of this table on the same reward.\n"
    )
