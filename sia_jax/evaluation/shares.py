"""Numbers of gates for shares of tokens: from what a gate compares, along the policy's own replies.

A gate steers a token whose score reaches a number: its entropy, the logarithm of a ratio of entropies, a
weighted sum, or how early it comes. Which number steers a share of the tokens is a quantile of their scores.
"""

import numpy as np


def threshold_for(entropies: np.ndarray, ratio: float) -> float:
    """The threshold that steers the share of tokens nearest to a ratio; a token is steered if H >= threshold.

    Args:
      entropies: [n] nats, as the gate sees them (float32).
      ratio: in (0, 1).

    Raises:
      ValueError: no entropies, one that is no number, or a ratio that is no share.
    """
    if not len(entropies) or not np.isfinite(entropies).all():
        raise ValueError(f"expected finite entropies, at least one, got {len(entropies)} of them")
    return number_for(entropies, ratio)


def number_for(scores: np.ndarray, ratio: float) -> float:
    """The number that steers the share of tokens nearest to a ratio; a token is steered if score >= number.

    Between two neighbouring scores any number steers the same tokens; it is the middle. Tokens of equal
    score are steered together or not at all, so the share may be another than the ratio: of a nearer and a
    farther side the nearer, of two that are as near the one that steers fewer.

    Args:
      scores: [n] as the gate sees them (float32); -inf: never steered.
      ratio: in (0, 1).

    Raises:
      ValueError: a ratio that is no share.
    """
    if not 0 < ratio < 1:
        raise ValueError(f"a ratio must lie between 0 and 1, both excluded, got {ratio}")
    known = np.asarray(scores, np.float32)
    known = known[known > -np.inf]
    if not len(known):
        return 0.0  # any number steers none
    x, counts = np.unique(known, return_counts=True)
    # Shares of the numbers that begin at each score, and of one above them all.
    shares = np.append(np.cumsum(counts[::-1])[::-1] / len(scores), 0.0)
    distances = np.abs(shares - ratio)
    nearest = int(np.flatnonzero(distances <= distances.min() + 1e-12)[-1])
    if nearest == len(x):
        return float(np.nextafter(x[-1], np.float32(np.inf)))
    if nearest == 0:
        return float(x[0])
    middle = np.float32((float(x[nearest - 1]) + float(x[nearest])) / 2)
    return float(middle if middle > x[nearest - 1] else x[nearest])


def realised_share(scores: np.ndarray, number: float) -> float:
    """The share of tokens that a number steers, as the gate compares."""
    return float(np.mean(np.asarray(scores, np.float32) >= np.float32(number)))


def share_caution(
    ratio: float,
    share: float,
    tokens: int,
    what: str = "threshold",
    since: str = "many have the same entropy",
) -> str:
    """What must be said of a share that is not the one asked for; empty if it is, as near as it can be.

    Args:
      ratio: asked for.
      share: of all tokens that the number steers.
      tokens: how many there are.
      what: the number is, in words.
      since: why there may be none that steers the ratio.
    """
    if abs(share - ratio) <= max(1 / tokens, 0.05 * min(ratio, 1 - ratio)):
        return ""
    return (
        f"no {what} steers {ratio:.4g} of the tokens, since {since}: the nearest steers {share:.4g} of them"
    )
