"""What a comparison says of how likely replies are: perplexities, their ratios, and KL from the policy."""

from collections.abc import Mapping
from typing import Any

from sia_jax.evaluation.likelihoods import MODELS
from sia_jax.evaluation.statistics import Interval
from sia_jax.reports import markdown


def likelihoods_section(results: Mapping[str, Any]) -> str:
    """The perplexities and KL of all methods, with the section's heading; empty if there are none.

    Args:
      results: of a comparison, as of `sia_jax.evaluation.claims.to_json`.
    """
    rows = [row for row in results["rows"] if "perplexities" in row or "kl" in row]
    if not rows:
        return ""
    models = [name for name in MODELS if any(name in row.get("perplexities", {}) for row in rows)]
    columns = ["method"]
    for name in models:
        columns += [f"perplexity, {name}", "/ base", "/ dense"]
    columns += ["KL a reply, nats", "KL a token, nats"]
    lines = [
        [row["name"], *(cell for name in models for cell in _perplexity(row, name)), *_kl(row)]
        for row in rows
    ]
    return (
        "## Perplexity and distance from the policy\n\n"
        f"{markdown.table(columns, lines, labels=1)}\n"
        "Perplexity is exp(-mean log-probability) of all tokens of the replies; intervals are of the ratio "
        "of sums, over prompts, and ratios to base and dense steering are paired. Under the policy it is "
        "that of the tokens that were drawn, at temperature 1."
        f"{_second(results, rows)}"
        " KL is that of the law which replies were drawn from against the unsteered policy at temperature 1, "
        "the mean of log q(y) - log p(y) over replies, of which single ones may be below 0. It counts what "
        "temperature and filters do, to the base too, whose number is rounding without them. Of best-of-n it "
        "is a bound, ≤: log n - (n - 1) / n is added for the choice. It is not told where the law of a "
        "token is unknown: of searches, and under a bounded tilt, whose values are not all read "
        "(--read-all 1 does that).\n"
    )


def _perplexity(row: Mapping[str, Any], name: str) -> list[str]:
    found = row.get("perplexities", {}).get(name)
    if found is None:
        return ["", "", ""]
    ratios = [found["over"].get(rival) for rival in ("base", "dense")]
    return [
        Interval.from_json(found["perplexity"]).text(),
        *("" if ratio is None else Interval.from_json(ratio).text(digits=3) for ratio in ratios),
    ]


def _kl(row: Mapping[str, Any]) -> list[str]:
    found = row.get("kl")
    if found is None:
        return ["", ""]
    bound = "≤ " if found["is_bound"] else ""
    parts = [found.get("reply"), found.get("token")]
    return ["" if part is None else bound + Interval.from_json(part).text(digits=3) for part in parts]


def _second(results: Mapping[str, Any], rows: list[Mapping[str, Any]]) -> str:
    """What the second model is, and how many replies it could not read."""
    fluency = results.get("settings", {}).get("fluency")
    if fluency is None:
        return ""
    text = (
        f" Fluency is under `{fluency}`, with its own tokens and template: of the reply's text, without the "
        "token that ends it; an empty reply has none."
    )
    lacking = {row["name"]: row["perplexities"]["fluency"]["unscored"] for row in rows if _has_fluency(row)}
    counts = ", ".join(f"{name}: {count}" for name, count in lacking.items() if count)
    if counts:
        text += f" Replies that it has no number for, left out with their partners: {counts}."
    return text


def _has_fluency(row: Mapping[str, Any]) -> bool:
    return "fluency" in row.get("perplexities", {})
