"""Learning a gate from densely steered replies, and measuring it on prompts that it has not seen.

Tokens that were steered densely say of each position whether reading the values shifted the token. A
logistic regression predicts that from what a gate sees before it reads any; see
`sia_jax.evaluation.learned_gate`. How well it ranks the tokens of prompts held out is measured beside the
entropy alone: prompts are what is exchangeable, tokens are not, so resamples draw prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sia_jax.evaluation.gate_examples import Examples, Label
from sia_jax.evaluation.learned_gate import FEATURES, FORMAT, LearnedGate
from sia_jax.evaluation.logistic import PENALTY, fit_logistic
from sia_jax.evaluation.ranking import Ranking, rank
from sia_jax.evaluation.resampling import FEWEST, Figure, bootstrap
from sia_jax.evaluation.shares import realised_share, threshold_for
from sia_jax.evaluation.statistics import Interval
from sia_jax.steering.gates import LARGEST_WEIGHT


@dataclass(frozen=True)
class Comparison:
    """A figure of the learned gate and of the entropy alone, on the same tokens of prompts held out."""

    learned: Interval
    entropy: Interval
    difference: Interval

    def to_json(self) -> dict[str, Any]:
        """Strict JSON."""
        return {name: interval.to_json() for name, interval in vars(self).items()}


@dataclass(frozen=True)
class Learned:
    """A learned gate, and how it did on prompts that it had not seen."""

    gate: LearnedGate
    above: float | None
    """The gain from which on a token was labelled, in units of the reward; None: shifted tokens were."""
    prompts: tuple[int, int]
    """Learned from, held out."""
    tokens: tuple[int, int]
    labelled: tuple[float, float]
    """Share of the tokens."""
    area: Comparison
    """Under the ROC curve."""
    caught: Mapping[float, Comparison]
    """Ratio -> the share of labelled tokens among so many tokens of the best scores."""
    steered: Mapping[float, float]
    """Ratio -> the share of held-out tokens that its bias steers."""

    def to_json(self) -> dict[str, Any]:
        """Strict JSON: the content of the file, but for where it comes from."""
        rows = [
            {
                "ratio": ratio,
                "bias": bias,
                "steered": self.steered[ratio],
                "caught": self.caught[ratio].to_json(),
            }
            for ratio, bias in sorted(self.gate.biases.items())
        ]
        return {
            "format": FORMAT,
            "weights": dict(zip(FEATURES, self.gate.weights, strict=True)),
            "intercept": self.gate.intercept,
            "biases": rows,
            "area": self.area.to_json(),
            "label": "shifted" if self.above is None else "gain",
            "gain_above": self.above,
            **{
                name: dict(zip(("learned_from", "held_out"), getattr(self, name), strict=True))
                for name in ("prompts", "tokens", "labelled")
            },
            "settings": dict(self.gate.settings),
        }


def hold_out(count: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """The places of prompts to learn from, and of those held out; both in order, at least one each.

    Args:
      count: prompts.
      share: of them that is held out, between 0 and 1.
      seed: of the draw.

    Raises:
      ValueError: no share, or fewer than two prompts.
    """
    if not 0 < share < 1:
        raise ValueError(f"held_out must lie between 0 and 1, both excluded, got {share}")
    if count < 2:
        raise ValueError(f"expected two prompts or more, one of them to hold out, got {count}")
    held = min(max(round(share * count), 1), count - 1)
    drawn = np.random.default_rng(seed).permutation(count)
    return sorted(drawn[held:].tolist()), sorted(drawn[:held].tolist())


def learn(
    examples: Sequence[Examples],
    elsewhere: Sequence[Examples],
    settings: Mapping[str, Any],
    *,
    label: Label = "shifted",
    gain_quantile: float = 0.5,
    ratios: Sequence[float] = (0.1, 0.2, 0.4),
    penalty: float = PENALTY,
    resamples: int = 1000,
) -> Learned:
    """Learn a gate from some prompts, and measure it on others.

    Args:
      examples: of the prompts to learn from.
      elsewhere: of the prompts held out.
      settings: of the run that made them.
      label: what is predicted; "gain": that the gain is above a quantile of those learned from.
      gain_quantile: in 0 .. 1.
      ratios: shares of tokens to steer.
      penalty: see `fit_logistic`.
      resamples: of the prompts held out.

    Raises:
      ValueError: a ratio that is none, tokens that are all labelled or none of them, on either side, or a
        weight that the gate does not take.
    """
    if not ratios or len(set(ratios)) < len(ratios) or not all(0 < ratio < 1 for ratio in ratios):
        raise ValueError(f"ratios must be different shares over 0 and below 1, got {tuple(ratios)}")
    above = None
    if label == "gain":
        if not 0 <= gain_quantile < 1:
            raise ValueError(f"gain_quantile must lie in 0 .. 1, 1 excluded, got {gain_quantile}")
        gains = np.concatenate([_gain_of(prompt) for prompt in examples])
        above = float(np.quantile(gains, gain_quantile)) if len(gains) else 0.0
    sides = [_tokens(examples, above), _tokens(elsewhere, above)]
    for (features, labels), where in zip(sides, ("to learn from", "held out"), strict=True):
        if not labels.any() or labels.all():
            told = "shifted" if above is None else f"of a gain above {above:.4g}"
            raise ValueError(
                f"{int(labels.sum())} of {len(features)} tokens {where} are {told}: it takes both kinds; "
                "give more replies" + ("" if above is None else " or another quantile")
            )
    weights, intercept = fit_logistic(*sides[0], penalty)
    if np.abs(weights).max() > LARGEST_WEIGHT:
        most = FEATURES[int(np.abs(weights).argmax())]
        raise ValueError(f"the weight of {most} is above {LARGEST_WEIGHT:g}, for it hardly varies")
    # Few digits are told, and what is told is what was measured.
    told_weights, told_intercept = tuple(_short(w) for w in weights), _short(intercept)
    features, labels = sides[1]
    found = features @ np.array(told_weights)
    biases = {ratio: _short(-threshold_for(found, ratio)) for ratio in sorted(ratios)}
    gate = LearnedGate(told_weights, told_intercept, biases, dict(settings))
    prompt_of = np.repeat(np.arange(len(elsewhere)), [len(prompt.shifted) for prompt in elsewhere])
    rankings = {"learned": rank(found, labels), "entropy": rank(features[:, 0], labels)}
    area, caught = _compare(rankings, prompt_of, len(elsewhere), tuple(biases), resamples)
    return Learned(
        gate,
        above,
        (len(examples), len(elsewhere)),
        (len(sides[0][1]), len(labels)),
        (float(sides[0][1].mean()), float(labels.mean())),
        area,
        caught,
        {ratio: realised_share(found, -bias) for ratio, bias in biases.items()},
    )


def _tokens(prompts: Sequence[Examples], above: float | None) -> tuple[np.ndarray, np.ndarray]:
    """([n, 5] features, [n] labels) of all prompts, one after the other."""
    features = [prompt.features for prompt in prompts] or [np.zeros((0, len(FEATURES)))]
    labels = [prompt.shifted if above is None else _gain_of(prompt) > above for prompt in prompts]
    return np.concatenate(features), np.concatenate([np.zeros(0, bool), *labels])


def _gain_of(prompt: Examples) -> np.ndarray:
    if prompt.gain is None:
        raise ValueError('expected examples that were read with label "gain"')
    return prompt.gain


def _compare(
    rankings: Mapping[str, Ranking],
    prompt_of: np.ndarray,
    prompts: int,
    ratios: Sequence[float],
    resamples: int,
) -> tuple[Comparison, dict[float, Comparison]]:
    """Both rankings of the same tokens, in the same resamples of their prompts."""

    def figures(counts: np.ndarray) -> dict[str, float]:
        weights = counts[prompt_of]
        found = {}
        for name, ranking in rankings.items():
            found[f"area {name}"] = ranking.area(weights)
            found |= {f"{ratio} {name}": ranking.caught(ratio, weights) for ratio in ratios}
        for what in ("area", *ratios):
            found[f"{what} difference"] = found[f"{what} learned"] - found[f"{what} entropy"]
        return found

    drawn = bootstrap(figures, prompts, resamples=resamples)

    def told(what: str | float) -> Comparison:
        names = (*rankings, "difference")
        return Comparison(*(_interval(drawn[f"{what} {name}"], prompts) for name in names))

    return told("area"), {ratio: told(ratio) for ratio in ratios}


def _interval(figure: Figure, prompts: int) -> Interval:
    if np.isnan(figure.low):
        return Interval(figure.estimate, -np.inf, np.inf, f"{prompts} prompts, of {FEWEST} needed")
    return Interval(figure.estimate, figure.low, figure.high)


def _short(x: float) -> float:
    return float(f"{x:.6g}")
