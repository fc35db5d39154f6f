"""How well values predict the rewards of replies, with intervals of resampled prompts.

    R2 = 1 - sum_i (p_i - r_i)^2 / sum_i (r_i - mean r)^2

is 0 for the best constant that one could have known afterwards. Rank agreement is the share of pairs of
replies to one prompt, unequal in reward, that p puts in the order of r, ties in p one half; of a coin 1/2.
"""

from collections.abc import Sequence

import numpy as np

from sia_jax.evaluation.resampling import Figure, bootstrap


def prediction_quality(
    predictions: Sequence[float], rewards: Sequence[float], prompts: Sequence[str], *, resamples: int = 1000
) -> dict[str, Figure]:
    """R2, rank agreement and mean error of predictions, each with a percentile interval.

    Args:
      predictions: [n] p, in units of the reward.
      rewards: [n] r.
      prompts: [n] of which prompt each reply is; prompts are drawn, with all of their replies.
      resamples: of the bootstrap.

    Returns:
      By the names r2, rank_agreement and mae. NaN where there is nothing to say: R2 of equal rewards,
      agreement without a pair, the intervals of fewer than 100 prompts.

    Raises:
      ValueError: other lengths, nothing at all, or a number that is not finite.
    """
    p, r = np.asarray(predictions, np.float64), np.asarray(rewards, np.float64)
    if not (p.shape == r.shape == (len(prompts),)) or not len(p):
        raise ValueError(
            f"expected as many predictions, rewards and prompts, one at least, got {p.shape}, {r.shape} and "
            f"{len(prompts)}"
        )
    if not (np.isfinite(p).all() and np.isfinite(r).all()):
        raise ValueError("predictions and rewards must be finite numbers")
    names, own = np.unique(np.asarray(prompts, str), return_inverse=True)
    sums = {
        "n": np.ones(len(p)),
        "r": r,
        "rr": r**2,
        "error": (p - r) ** 2,
        "miss": np.abs(p - r),
    }
    by_prompt = {name: np.bincount(own, x, len(names)) for name, x in sums.items()}
    agreed, pairs = np.zeros(len(names)), np.zeros(len(names))
    for prompt in range(len(names)):
        mine = np.flatnonzero(own == prompt)
        a, b = mine[np.triu_indices(len(mine), 1)[0]], mine[np.triu_indices(len(mine), 1)[1]]
        sign = np.sign(r[a] - r[b])
        agreed[prompt] = np.sum(np.where(sign != 0, (1 + sign * np.sign(p[a] - p[b])) / 2, 0))
        pairs[prompt] = np.sum(sign != 0)

    def figures(weights: np.ndarray) -> dict[str, float]:
        total = {name: float(weights @ x) for name, x in by_prompt.items()}
        spread = total["rr"] - total["r"] ** 2 / total["n"]
        compared = float(weights @ pairs)
        return {
            "r2": 1 - total["error"] / spread if spread > 1e-12 * total["rr"] else np.nan,
            "rank_agreement": float(weights @ agreed) / compared if compared else np.nan,
            "mae": total["miss"] / total["n"],
        }

    return bootstrap(figures, len(names), resamples=resamples)
