"""How rewards are distributed: numbers, and a picture."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sia_jax.files.writing import make_folder, replacing

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class RewardDistribution:
    """Of at least one reward."""

    count: int
    mean: float
    sd: float
    """Of the sample, 0 for a single reward."""
    quantiles: dict[float, float]

    def to_json(self) -> dict[str, Any]:
        """Strict JSON; the quantiles under the texts of their shares."""
        quantiles = {f"{share:g}": value for share, value in self.quantiles.items()}
        return {"count": self.count, "mean": self.mean, "sd": self.sd, "quantiles": quantiles}

    def describe(self) -> str:
        """'mean 1.2, sd 3.4, quantiles: 0% -7.1, 5% -4, ..., 100% 9.8'."""
        quantiles = ", ".join(f"{share:.0%} {value:.4g}" for share, value in self.quantiles.items())
        return f"mean {self.mean:.4g}, sd {self.sd:.4g}, quantiles: {quantiles}"


def reward_distribution(rewards: Sequence[float]) -> RewardDistribution:
    """Mean, standard deviation and `QUANTILES`.

    Raises:
      ValueError: no rewards.
    """
    if not len(rewards):
        raise ValueError("there are no rewards to describe")
    array = np.asarray(rewards, np.float64)
    quantiles = dict(zip(QUANTILES, np.quantile(array, QUANTILES).tolist(), strict=True))
    sd = float(array.std(ddof=1)) if len(array) > 1 else 0.0
    return RewardDistribution(len(array), float(array.mean()), sd, quantiles)


def parts_distribution(parts: Iterable[Mapping[str, float]]) -> dict[str, Any]:
    """How the parts of rewards that are sums are distributed, as a report's "reward_parts"; nothing of none.

    Args:
      parts: of each reward, by the same names.
    """
    columns: dict[str, list[float]] = {}
    for one in parts:
        for name, number in one.items():
            columns.setdefault(name, []).append(number)
    described = {name: reward_distribution(column).to_json() for name, column in columns.items()}
    return {"reward_parts": described} if described else {}


def plot_rewards(rewards: Sequence[float], path: Path, title: str) -> None:
    """A histogram, with the mean and the median, as a PNG; a file that is there is replaced.

    Args:
      rewards: at least one.
      path: made, with its folder, if need be.
      title: what they are the rewards of.
    """
    # Imported here because it takes a second; without pyplot, which would look for a display.
    from matplotlib.figure import Figure

    distribution = reward_distribution(rewards)
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    bins = int(np.clip(round(2 * distribution.count ** (1 / 3)), 5, 80))
    axes.hist(np.asarray(rewards), bins=bins, color="#4c72b0", edgecolor="white", linewidth=0.4)
    lines = (("mean", distribution.mean, "-"), ("median", distribution.quantiles[0.5], "--"))
    for name, value, style in lines:
        axes.axvline(value, color="#c44e52", linestyle=style, label=f"{name} {value:.4g}")
    axes.set(xlabel="reward", ylabel="conversations", title=title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title=f"{distribution.count:,} rewards, sd {distribution.sd:.3g}", frameon=False)
    make_folder(path.parent)
    with replacing(path) as new:
        figure.savefig(new, format="png")
