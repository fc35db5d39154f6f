"""A threshold with a promise: of the tokens that steering would shift, at most a share alpha is missed.

Steer where H >= lambda. Of prompt i, steered densely, the loss is the share of its shifted tokens that such a
gate would not have steered,

    L_i(lambda) = |{t shifted: H_t < lambda}| / |{t shifted}|,     0 where nothing is shifted,

which only grows with lambda. The promise: E L(lambda) <= alpha for a new prompt, with a confidence of
1 - delta over the prompts that were calibrated on. Prompts are what is exchangeable, tokens are not. From
small lambda to large ones E L(lambda) > alpha is tested at level delta by the p-value of Hoeffding and
Bentkus, until one is not refused: tests in a fixed order need no correction.

    p = min(exp(-n h(min(R, alpha), alpha)), e P(Bin(n, alpha) <= ceil(n R))),     R = mean_i L_i(lambda)
    h(a, b) = a log(a / b) + (1 - a) log((1 - a) / (1 - b))

Bates et al., "Distribution-free, risk-controlling prediction sets" (JACM 2021); Angelopoulos et al., "Learn
then test" (2021). `expected_only` asks less, E L <= alpha on average over calibrations too: the largest
lambda with (n R + 1) / (n + 1) <= alpha, "Conformal risk control" (ICLR 2024).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class SteeredReply:
    """A reply that was steered at every token."""

    entropy: np.ndarray  # [T] nats, as gates see it
    shifted: np.ndarray  # [T] bool: the policy alone would have said another


@dataclass(frozen=True)
class PromisedThreshold:
    """A threshold, and what it was found with."""

    threshold: float
    """Nats; -inf: only dense steering keeps the promise."""
    alpha: float
    delta: float | None
    """None: of the promise on average."""
    prompts: int
    missed: float
    """R: the mean share of shifted tokens that it misses, on these prompts."""
    steered: float
    """Share of all their tokens that it steers."""


def losses(replies: Sequence[SteeredReply], thresholds: np.ndarray) -> np.ndarray:
    """[n, m] the share of each reply's shifted tokens that each threshold misses.

    Args:
      replies: n.
      thresholds: [m] nats.
    """
    found = np.zeros((len(replies), len(thresholds)))
    for row, reply in zip(found, replies, strict=True):
        shifted = np.sort(np.asarray(reply.entropy, np.float32)[np.asarray(reply.shifted, bool)])
        if len(shifted):
            row[:] = np.searchsorted(shifted, thresholds.astype(np.float32), side="left") / len(shifted)
    return found


def promised_threshold(
    replies: Sequence[SteeredReply], alpha: float, delta: float = 0.05, *, expected_only: bool = False
) -> PromisedThreshold:
    """The largest threshold that keeps the promise; see the module.

    Args:
      replies: one to each prompt, steered at every token.
      alpha: the share of shifted tokens that may be missed, in (0, 1).
      delta: 1 - confidence, in (0, 1).
      expected_only: promise it on average over calibrations, not with a confidence.

    Raises:
      ValueError: no shares, no replies, or too few to promise anything.
    """
    for name, share in (("alpha", alpha), ("delta", delta)):
        if not 0 < share < 1:
            raise ValueError(f"{name} must lie between 0 and 1, both excluded, got {share}")
    n = len(replies)
    needed = fewest(alpha, None if expected_only else delta)
    if n < needed:
        raise ValueError(
            f"{n} prompts promise nothing: a miss rate of {alpha:g} takes {needed} or more even where "
            "nothing is missed; take more prompts, a larger rate, or less confidence"
        )
    entropies = np.unique(np.concatenate([np.asarray(one.entropy, np.float32) for one in replies]))
    if not len(entropies) or not np.isfinite(entropies).all():
        raise ValueError("expected replies with finite entropies, one token at least")
    # Between two entropies all thresholds miss the same; above the last, everything.
    thresholds = np.append(entropies, np.nextafter(entropies[-1], np.float32(np.inf)))
    risks = losses(replies, thresholds).mean(axis=0)
    if expected_only:
        kept = (n * risks + 1) / (n + 1) <= alpha
    else:
        kept = np.array([p_value(risk, n, alpha) <= delta for risk in risks])
    count = int(np.argmin(kept)) if not kept.all() else len(kept)  # up to the first that is not refused
    threshold = float(thresholds[count - 1]) if count else -math.inf
    whole = np.concatenate([np.asarray(one.entropy, np.float32) for one in replies])
    return PromisedThreshold(
        threshold=threshold,
        alpha=alpha,
        delta=None if expected_only else delta,
        prompts=n,
        missed=float(risks[count - 1]) if count else 0.0,
        steered=float(np.mean(whole >= np.float32(threshold))),
    )


def fewest(alpha: float, delta: float | None) -> int:
    """Prompts below which nothing can be promised, even if nothing is missed.

    (1 - alpha)^n <= delta; on average, 1 / (n + 1) <= alpha.

    Args:
      alpha: the share that may be missed.
      delta: 1 - confidence; None: on average.

    Examples:
      >>> fewest(0.1, delta=0.05), fewest(0.1, delta=None)
      (29, 9)
    """
    if delta is None:
        return math.ceil(1 / alpha - 1 - 1e-9)
    return math.ceil(math.log(delta) / math.log1p(-alpha) - 1e-9)


def p_value(risk: float, n: int, alpha: float) -> float:
    """Of E L > alpha, for n losses in [0, 1] whose mean is `risk`: Hoeffding's and Bentkus's, the smaller.

    Args:
      risk: R, their mean.
      n: how many.
      alpha: in (0, 1).
    """
    if risk >= alpha:
        return 1.0
    hoeffding = math.exp(-n * _divergence(risk, alpha))
    bentkus = math.e * binomial_cdf(math.ceil(n * risk - 1e-9), n, alpha)
    return min(hoeffding, bentkus, 1.0)


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(Bin(n, p) <= k), summed term by term.

    Args:
      k: 0 or more.
      n: trials.
      p: in (0, 1).
    """
    terms = [
        math.lgamma(n + 1)
        - math.lgamma(j + 1)
        - math.lgamma(n - j + 1)
        + j * math.log(p)
        + (n - j) * math.log1p(-p)
        for j in range(min(k, n) + 1)
    ]
    return min(math.fsum(map(math.exp, terms)), 1.0)


def _divergence(a: float, b: float) -> float:
    """h(a, b), for 0 <= a < b < 1."""
    first = a * math.log(a / b) if a > 0 else 0.0
    return first + (1 - a) * (math.log1p(-a) - math.log1p(-b))
