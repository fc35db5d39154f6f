"""Replies with what stood to choice all along them, and which of their positions are followed further."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sia_jax.studies.entropy import spread
from sia_jax.studies.entropy.study import Drawn, Population


class Place(NamedTuple):
    """A position of a reply."""

    prompt: int
    """Its index."""
    position: int
    """Tokens of the reply before it."""


@dataclass(frozen=True)
class Studied:
    """A reply and what stood to choice all along it."""

    tokens: list[int]  # [T]
    entropy: np.ndarray  # [T] nats
    ids: np.ndarray  # [T, C] candidates, most probable first
    probabilities: np.ndarray  # [T, C] the policy's, renormalised over the candidates
    outside: np.ndarray  # [T] the policy's probability of all other ids
    values: np.ndarray  # [T, C]

    def chosen(self, position: int, floor: float, most: int) -> np.ndarray:
        """[K] the places of the candidates that have some weight, at least one."""
        heavy = np.flatnonzero(self.probabilities[position] >= floor)[:most]
        return heavy if len(heavy) else np.zeros(1, np.int64)


def describe(
    replies: Mapping[int, Studied], floor: float, most: int, bins: int, seed: int
) -> tuple[list[Place], Population]:
    """Every position of the replies, in the order of prompts, and what is known of it without rewards.

    Args:
      replies: by prompt, complete.
      floor: probability from which a candidate has weight.
      most: candidates of a position that are looked at.
      bins: of entropy, among the positions with two candidates or more.
      seed: of the values that are drawn by lot.
    """
    places = [Place(i, t) for i in sorted(replies) for t in range(len(replies[i].tokens))]
    each = [replies[i] for i in sorted(replies)]
    entropy, p, values = (
        np.concatenate([getattr(reply, name) for reply in each])
        for name in ("entropy", "probabilities", "values")
    )
    branches = np.array([len(replies[i].chosen(t, floor, most)) > 1 for i, t in places])
    strata = np.full(len(places), -1)
    strata[branches] = spread.quantile_bins(entropy[branches], bins)
    return places, Population(
        prompts=np.array([i for i, _ in places]),
        entropies=entropy,
        spreads=np.sqrt(spread.variance(values, p)),
        plain_spreads=np.sqrt(spread.variance(values)),
        lot_spreads=np.sqrt(spread.variance(np.random.default_rng([seed, 2]).normal(size=p.shape), p)),
        strata=strata,
    )


def draw_places(population: Population, count: int, bins: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which positions are continued: as many of each bin of entropy; their places and weights."""
    branching = np.flatnonzero(population.branches)
    each = -(-count // bins)
    chosen, weights = spread.draw_by_stratum(
        population.strata[branching], each, np.random.default_rng([seed, 0])
    )
    return branching[chosen], weights


def as_drawn(
    places: Sequence[Place],
    chosen: np.ndarray,
    weights: np.ndarray,
    replies: Mapping[int, Studied],
    rewards: Mapping[Place, np.ndarray],
    floor: float,
    most: int,
) -> list[Drawn]:
    """The drawn positions with their rewards, for the figures.

    Args:
      places: of the population.
      chosen: [n] those drawn.
      weights: [n] of each.
      replies: by prompt, complete.
      rewards: [K, M] of each drawn position.
      floor: as in `describe`.
      most: likewise.
    """
    drawn = []
    for number, weight in zip(chosen.tolist(), weights.tolist(), strict=True):
        place = places[number]
        reply, t = replies[place.prompt], place.position
        own = reply.chosen(t, floor, most)
        p, values = reply.probabilities[t, own], reply.values[t, own]
        drawn.append(Drawn(number, weight, p, values, rewards[place]))
    return drawn
