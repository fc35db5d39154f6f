"""How far high entropy predicts value spread: figures, from all positions and rewards at some of them.

The population is every position of the replies. At each, entropy and the values of its candidates are known.
Rewards are known only of positions drawn by stratum: bins of entropy, among the positions that *branch* (have
two or more candidates of any weight). A position that does not branch has a reward spread of 0 by definition
and is not drawn. Every drawn position counts as often as its stratum has members for each one drawn, so all
figures are those of the population; in a resample of the prompts too, which has its own numbers of both.

Some of the correlation is form: where one candidate has nearly all mass, entropy and spread are small
whatever the values. What entropy says of values that were drawn by lot is what the correlations have to be
compared with. Among positions that branch, spreads with equal weights have none of this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sia_jax.evaluation.resampling import Figure, bootstrap
from sia_jax.studies.entropy import spread
from sia_jax.studies.entropy.correlation import Pair

ALIKE = 0.1
"""A value spread below this, in units of the reward, is taken for none: a matter of style."""

MARGIN = 0.3
"""A difference in reward between two candidates that matters."""

P_VALUE = 0.05
"""Below it, a position's candidates are said to differ in reward."""


@dataclass(frozen=True)
class Population:
    """All positions, N."""

    prompts: np.ndarray  # [N] the prompt of each, 0 .. P-1
    entropies: np.ndarray  # [N] nats
    spreads: np.ndarray  # [N] standard deviation of candidate values under the policy's distribution
    plain_spreads: np.ndarray  # [N] the same with equal weights
    lot_spreads: np.ndarray  # [N] as `spreads`, of values that were drawn by lot, alike at all positions
    strata: np.ndarray  # [N] bin of entropy, from 0; -1: it does not branch

    @property
    def branches(self) -> np.ndarray:
        """[N] whether a position has two or more candidates of any weight."""
        return self.strata >= 0


@dataclass(frozen=True)
class Drawn:
    """A position whose candidates were each followed to the end of the reply M times."""

    place: int
    """In the population."""
    weight: float
    """Positions of its stratum for each one drawn."""
    probabilities: np.ndarray  # [K] the policy's, renormalised or not
    values: np.ndarray  # [K]
    rewards: np.ndarray  # [K, M]


@dataclass(frozen=True)
class Measured:
    """What a drawn position's rewards say."""

    variance: float
    """Of the candidates' expected rewards under the policy's distribution; unbiased, maybe negative."""
    plain_variance: float
    """The same with equal weights."""
    halves: tuple[float, float]
    """The same from every other reward."""
    raw_variance: float
    """The same with the noise in it."""
    value_variance: float
    """Of the same candidates' values."""
    covariance: float
    """Of values and expected rewards."""
    difference: spread.Difference


def measure(drawn: Drawn, rng: np.random.Generator) -> Measured:
    """The statistics of one drawn position; `rng` is for its random exchanges."""
    p, rewards = drawn.probabilities, drawn.rewards
    first, second = spread.halves(rewards)
    return Measured(
        variance=spread.between_variance(rewards, p),
        plain_variance=spread.between_variance(rewards, np.ones(len(p))),
        halves=(spread.between_variance(first, p), spread.between_variance(second, p)),
        raw_variance=float(spread.variance(rewards.mean(axis=1), p)),
        value_variance=float(spread.variance(drawn.values, p)),
        covariance=spread.covariance(drawn.values, rewards, p),
        difference=spread.difference(rewards, int(np.argmax(p)), MARGIN, rng),
    )


def study(
    population: Population,
    drawn: Sequence[Drawn],
    *,
    threshold: float,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, Figure], list[Measured]]:
    """All figures, with 95% intervals from a bootstrap that draws prompts.

    Args:
      population: every position.
      drawn: those with rewards; none: the figures of values alone.
      threshold: entropy in nats from which a position is of high entropy.
      resamples: of the bootstrap.
      seed: of bootstrap and exchanges.

    Returns:
      (figures by name, what each drawn position's rewards say). Names, where SCOPE is "all" or "branching":

      - value/SCOPE/pearson, value/SCOPE/spearman: of entropy and value spread; plain_value/...: unweighted;
        lot/...: of entropy and the spread of values drawn by lot.
      - gold/SCOPE/...: of entropy and the variance of expected rewards (the variance, since its estimate may
        be negative; ranks do not mind); plain_gold/...: unweighted.
      - value_gold/SCOPE/...: of the variances of values and of expected rewards.
      - reliability/half, .../whole, .../ceiling: of branching positions, correlation of the variances from
        two halves of the rewards; what that makes of the whole, 2 r / (1 + r); its root, the highest
        correlation that noise leaves to be found.
      - high/share, high/value_variance, high/gold_variance: the share of positions of high entropy, and of
        all variance that lies at them.
      - high/alike_value: share of them whose value spread is below `ALIKE`; high/alike_gold: share of the
        branching ones without a difference in reward (`share_alike`); high/undecided: with p above `P_VALUE`.
      - agreement/observed, agreement/corrected: correlation of values and mean rewards of one position's
        candidates, over all drawn positions; the second with the noise taken out.
      - bin/I/share, .../value, .../gold_variance, .../gain, .../chance: of stratum I (-1: no branch): share
        of positions, mean value spread, mean variance, share of gains over `MARGIN`, and of those by chance.
    """
    rng = np.random.default_rng([seed, 1])
    measured = [measure(each, rng) for each in drawn]
    table = _Table(population, drawn, measured, threshold)
    prompts = int(population.prompts.max()) + 1
    return bootstrap(table.figures, prompts, resamples=resamples, seed=seed), measured


class _Table:
    """Everything as arrays, prepared for figures under any counts of the prompts."""

    def __init__(
        self,
        population: Population,
        drawn: Sequence[Drawn],
        measured: Sequence[Measured],
        threshold: float,
    ):
        self.population, self.high = population, population.entropies >= threshold
        h, branches = population.entropies, population.branches
        self.members = {int(s): population.strata == s for s in np.unique(population.strata)}
        scopes = {"all": np.ones(len(h), bool), "branching": branches}
        self.values = {
            f"{name}/{scope}": (Pair(h[mask], numbers[mask]), mask)
            for name, numbers in (
                ("value", population.spreads),
                ("plain_value", population.plain_spreads),
                ("lot", population.lot_spreads),
            )
            for scope, mask in scopes.items()
        }
        self.has_gold = bool(drawn)
        if not drawn:
            return
        self.drawn = np.array([each.place for each in drawn])
        # Where rewards are known: by definition, and by replies.
        flat = np.flatnonzero(~branches)
        self.known = np.concatenate([flat, self.drawn])
        self.weights = np.concatenate([np.ones(len(flat)), [each.weight for each in drawn]])
        self.is_drawn = np.arange(len(self.known)) >= len(flat)
        strata = population.strata[self.known]
        self.of_stratum = {s: np.flatnonzero(self.is_drawn & (strata == s)) for s in self.members if s >= 0}
        self.gold, plain, first, second = (
            np.concatenate([np.zeros(len(flat)), numbers])
            for numbers in np.array([(m.variance, m.plain_variance, *m.halves) for m in measured]).T
        )
        values = population.spreads[self.known] ** 2
        values[self.is_drawn] = [each.value_variance for each in measured]
        entropies = h[self.known]
        self.golds = {}
        for scope, mask in (("all", np.ones(len(self.known), bool)), ("branching", self.is_drawn)):
            self.golds[f"gold/{scope}"] = Pair(entropies[mask], self.gold[mask]), mask
            self.golds[f"plain_gold/{scope}"] = Pair(entropies[mask], plain[mask]), mask
            self.golds[f"value_gold/{scope}"] = Pair(values[mask], self.gold[mask]), mask
        # Where nothing was measured both halves are 0, which says nothing of noise.
        self.golds["reliability"] = Pair(first[self.is_drawn], second[self.is_drawn]), self.is_drawn
        self.moments = np.array(
            [(m.covariance, m.value_variance, m.raw_variance, m.variance) for m in measured]
        )
        self.p_values = np.array([each.difference.p_value for each in measured])
        self.lots = np.array([each.difference.lot for each in measured])
        self.gains = np.array([each.difference.gain > MARGIN for each in measured])
        self.by_chance = np.array([each.difference.by_chance for each in measured])

    def figures(self, counts: np.ndarray) -> dict[str, float]:
        """See `study`; counts are [P]."""
        own = counts[self.population.prompts]
        found: dict[str, float] = {}
        for name, (pair, mask) in self.values.items():
            found[f"{name}/pearson"] = pair.pearson(own[mask])
            found[f"{name}/spearman"] = pair.spearman(own[mask])
        variances, spreads = self.population.spreads**2, self.population.spreads
        found["high/share"] = _mean(self.high, own)
        found["high/value_variance"] = _mean(self.high, own * variances)
        found["high/alike_value"] = _mean(spreads < ALIKE, own * self.high)
        for stratum, is_member in self.members.items():
            members = own * is_member
            found[f"bin/{stratum}/share"] = _ratio(members.sum(), own.sum())
            found[f"bin/{stratum}/value"] = _mean(spreads, members)
        if self.has_gold:
            found |= self._gold(own)
        return found

    def _gold(self, own: np.ndarray) -> dict[str, float]:
        weights = self.weights * own[self.known]
        # Of how many positions a stratum has the drawn ones say little, and all of them everything.
        for stratum, places in self.of_stratum.items():
            if (mass := weights[places].sum()) > 0:
                weights[places] *= own[self.members[stratum]].sum() / mass
        found: dict[str, float] = {}
        for name, (pair, mask) in self.golds.items():
            if name == "reliability":
                half = pair.pearson(weights[mask])
                whole = _ratio(2 * half, 1 + half)
                ceiling = float(np.sqrt(whole)) if whole >= 0 else float("nan")
                found |= {f"{name}/half": half, f"{name}/whole": whole, f"{name}/ceiling": ceiling}
                continue
            found[f"{name}/pearson"] = pair.pearson(weights[mask])
            found[f"{name}/spearman"] = pair.spearman(weights[mask])
        high = self.high[self.known]
        found["high/gold_variance"] = _mean(high, weights * self.gold)
        weights, high = weights[self.is_drawn], high[self.is_drawn]
        found["high/alike_gold"] = spread.share_alike(self.lots, weights * high)
        found["high/undecided"] = _mean(self.p_values > P_VALUE, weights * high)
        covariance, values, raw, gold = weights @ self.moments
        found["agreement/observed"] = _ratio(covariance, np.sqrt(values * raw))
        found["agreement/corrected"] = _ratio(covariance, np.sqrt(values * max(gold, 0.0)))
        for stratum, is_member in self.members.items():
            if stratum < 0:
                continue
            members = weights * is_member[self.drawn]
            found[f"bin/{stratum}/gold_variance"] = _mean(self.gold[self.is_drawn], members)
            found[f"bin/{stratum}/gain"] = _mean(self.gains, members)
            found[f"bin/{stratum}/chance"] = _mean(self.by_chance, members)
        return found


def _mean(numbers: Any, weights: np.ndarray) -> float:
    # No BLAS product: see `sia_jax.studies.entropy.correlation`.
    return _ratio(np.sum(weights * numbers), weights.sum())


def _ratio(part: float, whole: float) -> float:
    """NaN where there is nothing, or less, to divide by."""
    return float(part / whole) if whole > 0 else float("nan")
