"""Every gate against the entropy gate of its ratio, on the same prompts under the same seeds."""

from typing import Any

from sia_jax.evaluation.comparison import Comparison


def against_entropy(comparison: Comparison) -> list[dict[str, Any]]:
    """The steered methods with a ratio, but for best-of-n and searches, less the entropy gate of that ratio.

    The p-values of a measure are adjusted for all differences of this list, and for no others.

    Args:
      comparison: of all methods.

    Returns:
      JSON, one row for each that has its rival among the methods: "key", "name", the ratio that was asked
      for, the shares of tokens that it and its rival have "steered", and its "differences" by measure.
    """
    pairs = []
    for one in comparison.measured:
        method = one.method
        if method.ratio is not None and method.n == 1 and method.search is None:
            rival = comparison.find("entropy", method.ratio)
            if rival is not None and rival is not one:
                pairs.append((one, rival))
    differences = {measure: comparison.differences(pairs, measure) for measure in comparison.measures}
    return [
        {
            "key": one.method.key,
            "name": one.method.name,
            "asked_ratio": one.method.ratio,
            "steered": one.ratio,
            "steered_by_entropy": rival.ratio,
            "differences": {measure: found[place] for measure, found in differences.items()},
        }
        for place, (one, rival) in enumerate(pairs)
    ]
