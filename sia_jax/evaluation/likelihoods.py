"""How likely replies are: perplexity under the policy and a second model, and KL from the policy.

Perplexities are of all tokens of a method's replies, exp(-sum log p / tokens), and are compared as ratios.

KL(q || p) is that of the distribution q that a method draws its replies from, against the unsteered policy p
at temperature 1. Its estimate is the mean over replies y, drawn from q, of

  log q(y) - log p(y) = sum over tokens of log q(y_t | y_<t) - log p(y_t | y_<t)

which is right on average, and exact at every token where both agree. Of the best of n replies the law is not
known, and bounded:

  KL <= log n - (n - 1) / n + E log q(y) / p(y),   y the reply that was chosen

(the first terms bound the KL of best-of-n against what it draws from: Beirami et al., "Theoretical guarantees
on the best-of-n alignment policy", 2024; the last one is what is left of the chain of both).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sia_jax.evaluation.ratios import ratio_difference, ratio_interval
from sia_jax.evaluation.statistics import Interval, mean_interval

Record = Mapping[str, Any]
Figure = Callable[..., Interval]
"""(a figure of `sia_jax.evaluation.statistics` or `ratios`, its values [n] ...) -> that of the replies that
have all of them."""

MODELS = {"policy": ("policy_logprob", "length"), "fluency": ("fluency_logprob", "fluency_tokens")}
"""By what a perplexity is under: a record's nats, the sum over its tokens, and how many tokens those are."""


def likelihoods(
    records: Sequence[Record],
    rivals: Mapping[str, Sequence[Record]],
    of_pairs: Figure,
    *,
    drawn: int | None,
) -> dict[str, Any]:
    """What is reported of a method's perplexities and KL, JSON: "perplexities" and "kl" as far as known.

    Args:
      records: the method's.
      rivals: of others, by the names that the report has for them, each in the order of the method's.
      of_pairs: makes a figure of the replies that have all its values.
      drawn: n replies of which one was chosen; None: the law is not that of a draw, as of a search.
    """
    perplexities = {
        name: _perplexity(name, records, rivals, of_pairs)
        for name, (nats, _) in MODELS.items()
        if any(nats in record for record in records)
    }
    ours = None if drawn is None else _log_ratios(records, drawn)
    found: dict[str, Any] = {"perplexities": perplexities} if perplexities else {}
    if ours is None:
        return found
    lengths = np.array([record["length"] for record in records], np.float64)
    kl = {"reply": of_pairs(mean_interval, ours).to_json(), "is_bound": drawn != 1}
    if lengths.any():
        kl["token"] = of_pairs(ratio_interval, ours, lengths).to_json()
    return found | {"kl": kl}


def best_of_n_kl(n: int) -> float:
    """log n - (n - 1) / n, nats: no more is the KL of the best of n against what they are drawn from.

    Args:
      n: 1 or more.
    """
    return math.log(n) - (n - 1) / n


def _perplexity(
    name: str, records: Sequence[Record], rivals: Mapping[str, Sequence[Record]], of_pairs: Figure
) -> dict[str, Any]:
    own, over = _values(name, records), {}
    for rival, theirs in rivals.items():
        found = _exp(_figure(of_pairs, ratio_difference, *own, *_values(name, theirs)))
        over[rival] = found.to_json()
    return {
        "perplexity": _exp(_figure(of_pairs, ratio_interval, *own)).to_json(),
        "over": over,
        "unscored": int(np.isnan(own[0]).sum()),
    }


def _values(name: str, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
    """([n] -log p in nats, NaN where it is not known, [n] tokens)."""
    nats, tokens = MODELS[name]
    totals = [math.nan if record.get(nats) is None else -record[nats] for record in records]
    return np.array(totals, np.float64), np.array([record.get(tokens, 0) for record in records], np.float64)


def _figure(of_pairs: Figure, figure: Callable[..., Interval], *values: np.ndarray) -> Interval:
    """A figure of ratios; unknown where no reply has a number, or those that have one have no tokens."""
    known: np.ndarray = np.isfinite(np.stack(values)).all(axis=0)
    if not all(sizes[known].any() for sizes in values[1::2]):
        why = "no tokens" if known.any() else "no reply with a number"
        return Interval(math.nan, -math.inf, math.inf, why)
    return of_pairs(figure, *values)


def _exp(found: Interval) -> Interval:
    """The interval of exp(x) from that of x; p-values are the same."""
    with np.errstate(over="ignore"):
        mean, low, high = map(float, np.exp([found.mean, found.low, found.high]))
    return replace(found, mean=mean, low=low if found.is_known else -math.inf, high=high)


def _log_ratios(records: Sequence[Record], drawn: int) -> np.ndarray | None:
    """[n] log q(y) - log p(y), with what choosing among n adds; None if one is not known.

    One alone is not left out: under a bounded tilt those that are not known are the steered ones.
    """
    pairs = [(record.get("logprob"), record.get("policy_logprob")) for record in records]
    if any(own is None or policy is None for own, policy in pairs):
        return None
    own, policy = np.array(pairs, np.float64).T
    found: np.ndarray = own - policy + best_of_n_kl(drawn)
    return found
