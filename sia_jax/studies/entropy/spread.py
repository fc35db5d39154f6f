"""How much hangs on the choice at one position: the spread of its candidates' values, and of their rewards.

The spread is that under the policy's distribution over the candidates, p: the variance of v_a if a is drawn
from p. It is 0 where all candidates are worth the same, and small where one of them has nearly all mass.
Rewards are noisy (the same candidate is followed by many replies), so of them variances are estimated without
bias, and may come out negative: their means over many positions are right, and so are correlations with them
but for noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

EXCHANGES = 400
"""Random exchanges of rewards at a position."""


def variance(values: Any, weights: Any = None) -> np.ndarray:
    """sum_a p_a (v_a - sum_b p_b v_b)^2, p = w / sum w.

    Args:
      values: [..., C].
      weights: [..., C], 0 or more; None: equal ones.

    Returns:
      [...] float64, in squared units of the values.
    """
    v = np.asarray(values, np.float64)
    p = _shares(np.ones(v.shape) if weights is None else np.broadcast_to(weights, v.shape))
    centred = v - np.sum(p * v, axis=-1, keepdims=True)
    return np.asarray(np.sum(p * centred**2, axis=-1))


def between_variance(rewards: Any, weights: Any) -> float:
    """The variance of the candidates' expected rewards under p, from M rewards of each; unbiased.

    sum_a p_a (m_a - sum_b p_b m_b)^2 - sum_a p_a (1 - p_a) s_a^2 / M, where m_a and s_a^2 are mean and
    (unbiased) variance of candidate a's rewards. The second term is what noise adds to the first.

    Args:
      rewards: [K, M], M at least 2, independent of each other.
      weights: [K], 0 or more.

    Returns:
      Squared units of the reward; may be negative.

    Raises:
      ValueError: another shape.
    """
    r = _check(rewards)
    p = _shares(weights)
    noise = np.sum(p * (1 - p) * r.var(axis=1, ddof=1)) / r.shape[1]
    return float(variance(r.mean(axis=1), p) - noise)


def covariance(values: Any, rewards: Any, weights: Any) -> float:
    """The covariance under p of the candidates' values with their expected rewards; unbiased.

    Args:
      values: [K], fixed numbers.
      rewards: [K, M].
      weights: [K], 0 or more.
    """
    v, p = np.asarray(values, np.float64), _shares(weights)
    return float(np.sum(p * (v - np.sum(p * v)) * np.asarray(rewards, np.float64).mean(axis=1)))


def halves(rewards: Any) -> tuple[np.ndarray, np.ndarray]:
    """Every other reward of each candidate: two independent studies of half the size, [K, M // 2] each."""
    r = _check(rewards)
    size = r.shape[1] // 2 * 2
    return r[:, :size:2], r[:, 1:size:2]


@dataclass(frozen=True)
class Difference:
    """Whether one position's candidates differ in reward at all."""

    p_value: float
    """Share of random exchanges of rewards between candidates with means as far apart as those found."""
    lot: float
    """The same with ties decided by lot, so that it is uniform in (0, 1) where candidates are alike."""
    gain: float
    """Best candidate's mean reward less that of the favourite; 0 where the favourite is the best."""
    by_chance: float
    """Share of the exchanges in which this exceeds `margin`, though there the candidates are all alike."""


def difference(rewards: Any, favourite: int, margin: float, rng: np.random.Generator) -> Difference:
    """Compare the candidates of a position with what chance makes of candidates that are alike.

    Args:
      rewards: [K, M].
      favourite: place of the candidate that the policy likes best.
      margin: a gain that counts, units of the reward.
      rng: for `EXCHANGES` exchanges.
    """
    r = _check(rewards)
    k, m = r.shape
    pool = np.broadcast_to(r.reshape(-1), (EXCHANGES, k * m))
    means = rng.permuted(pool, axis=1).reshape(EXCHANGES, k, m).mean(axis=-1)
    found = r.mean(axis=1)
    apart = variance(found)
    # As many rewards of each: ordered by this, exchanges are ordered by F. Sums in another order round anew.
    further = variance(means) - apart
    rounding = 1e-9 * (1 + apart)
    more, ties = int(np.sum(further > rounding)), 1 + int(np.sum(np.abs(further) <= rounding))
    gains = means.max(axis=1) - means[:, favourite]
    return Difference(
        p_value=(more + ties) / (1 + EXCHANGES),
        lot=(more + float(rng.random()) * ties) / (1 + EXCHANGES),
        gain=float(found.max() - found[favourite]),
        by_chance=float(np.mean(gains > margin)),
    )


def share_alike(lots: Any, weights: Any = None) -> float:
    """Storey's estimate of the share of positions without any difference: 2 x the share with p > 1/2.

    p is uniform where there is no difference, and rarely above 1/2 where there is one that can be seen. So
    the estimate errs upwards, by differences too small for the number of rewards. At most 1; NaN of none.

    Args:
      lots: [n] `Difference.lot`.
      weights: [n], 0 or more; None: equal ones.
    """
    p = np.asarray(lots, np.float64)
    w = np.ones(p.shape) if weights is None else np.asarray(weights, np.float64)
    return float(min(1.0, 2 * np.sum(w * (p > 0.5)) / np.sum(w))) if np.sum(w) > 0 else float("nan")


def quantile_bins(x: Any, bins: int) -> np.ndarray:
    """[n] bins of equal size, 0 for the smallest: of n members, n // bins or one more in each."""
    order = np.argsort(np.asarray(x), kind="stable")
    found = np.empty(len(order), np.int64)
    found[order] = np.arange(len(order)) * bins // max(len(order), 1)
    return found


def draw_by_stratum(
    strata: Sequence[int] | np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw as many members of each stratum, without replacement; the weight of each undoes the inequality.

    Args:
      strata: [n] each member's stratum.
      count: members of a stratum that are drawn; all, where there are fewer.
      rng: consumed.

    Returns:
      ([m] places of the drawn in order, [m] weights: members of their stratum over those drawn from it).
    """
    strata = np.asarray(strata)
    keys = rng.random(len(strata))
    chosen, weights = [], []
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        drawn = members[np.argsort(keys[members], kind="stable")][:count]
        chosen.append(drawn)
        weights.append(np.full(len(drawn), len(members) / max(len(drawn), 1)))
    places = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
    order = np.argsort(places)
    return places[order], (np.concatenate(weights) if weights else np.zeros(0))[order]


def _shares(weights: Any) -> np.ndarray:
    w = np.asarray(weights, np.float64)
    total = w.sum(axis=-1, keepdims=True)
    if not (w >= 0).all() or not (total > 0).all():
        raise ValueError("weights must be 0 or more, and not all 0")
    return np.asarray(w / total)


def _check(rewards: Any) -> np.ndarray:
    r = np.asarray(rewards, np.float64)
    if r.ndim != 2 or r.shape[0] < 1 or r.shape[1] < 2:
        raise ValueError(
            f"expected rewards [K, M] of K candidates, M at least 2 of each, got shape {r.shape}"
        )
    return r
