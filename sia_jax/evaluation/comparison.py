"""Methods compared on the same prompts under the same seeds: means, differences, shares, costs.

A reply may have no reward: one that a reward model could not score, or that a reward function has none for.
It counts in no mean of that reward; of a difference both replies of the pair are left out; and it is said how
many were.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sia_jax.evaluation.methods import Method
from sia_jax.evaluation.search.expressions import text_of
from sia_jax.evaluation.statistics import Interval, paired_difference

Measure = Literal["gold", "proxy"]

MEASURES: tuple[Measure, ...] = ("gold", "proxy")

MEASURED_SECONDS = 5.0
"""Below so many seconds of sampling, tokens/s are those of a few batches: noise, and not told."""

Record = Mapping[str, Any]
"""What became of one prompt under one seed and one method.

Its "index" and "seed"; "gold" and "proxy", the rewards of the reply that was chosen ("gold" is None of all
records where there is no gold reward; either is None where the reply has none);
its "length" and "finish_reason"; "sampled_tokens", "sampled_junctions" and, unless an earlier release wrote
it, "sampled_decided" and "values_read" of all replies that were sampled for it; "seconds", its share of the
time; "flops" by model; "threshold" and "rate".
"""


@dataclass(frozen=True, eq=False)
class Measured:
    """All replies of one method, in the order of (index, seed), which is that of every other method."""

    method: Method
    records: Sequence[Record]

    @property
    def prompts(self) -> list[int]:
        """[n] the prompt of each reply: what is drawn as one."""
        return [record["index"] for record in self.records]

    @property
    def tokens(self) -> int:
        """Of the replies that were chosen."""
        return sum(record["length"] for record in self.records)

    @property
    def ratio(self) -> float:
        """Share of all sampled tokens that were steered."""
        sampled = sum(record["sampled_tokens"] for record in self.records)
        return sum(record["sampled_junctions"] for record in self.records) / max(sampled, 1)

    @property
    def values_per_token(self) -> float | None:
        """Candidates whose values were read, a sampled token; None where an old record does not say."""
        return self._share("values_read", "sampled_tokens")

    @property
    def decided(self) -> float | None:
        """Share of the steered tokens that were decided without a value; None as above."""
        return self._share("sampled_decided", "sampled_junctions")

    def _share(self, part: str, whole: str) -> float | None:
        if any(part not in record for record in self.records):
            return None
        return sum(r[part] for r in self.records) / max(sum(r[whole] for r in self.records), 1)

    def rewards(self, measure: Measure) -> np.ndarray:
        """[n] gold or proxy; NaN where there is none."""
        return np.array([record[measure] for record in self.records], np.float64)

    def unscored(self, measure: Measure) -> int:
        """Replies without a reward."""
        return int(np.isnan(self.rewards(measure)).sum())


class Comparison:
    """Some methods, all measured on the same prompts under the same seeds.

    Args:
      methods: in the order in which they are shown.
      records: of each method's key, whichever order.
      resamples: of the bootstrap.

    Raises:
      ValueError: no methods, or replies of one that have no partner among those of another.
    """

    def __init__(
        self, methods: Sequence[Method], records: Mapping[str, Sequence[Record]], *, resamples: int = 10_000
    ):
        self.measured = [
            Measured(method, sorted(records[method.key], key=lambda r: (r["index"], r["seed"])))
            for method in methods
        ]
        self._resamples = resamples
        pairs = [[(r["index"], r["seed"]) for r in measured.records] for measured in self.measured]
        for measured, own in zip(self.measured, pairs, strict=True):
            if not own or own != pairs[0]:
                raise ValueError(
                    f"{measured.method.name} has other prompts or seeds than {self.measured[0].method.name}"
                )
        whole = [record for measured in self.measured for record in measured.records]
        lacking = [record for record in whole if record["gold"] is None]
        has_gold = len(lacking) < len(whole) or any("gold_unscored" in record for record in lacking)
        if has_gold and not all("gold_unscored" in record for record in lacking):
            raise ValueError("some replies have a gold reward and others none, and not why")
        self.measures: tuple[Measure, ...] = MEASURES if has_gold else ("proxy",)
        """What there is of gold and proxy; the first one is what counts."""

    @property
    def prompts(self) -> int:
        """How many there are."""
        return len(set(self.measured[0].prompts))

    @property
    def seeds(self) -> list[int]:
        """Under which they were replied to."""
        return sorted({record["seed"] for record in self.measured[0].records})

    def find(self, kind: str, ratio: float | None = None, n: int = 1) -> Measured | None:
        """The method of a kind, if it was measured."""
        return next(
            (
                m
                for m in self.measured
                if (m.method.kind, m.method.ratio, m.method.n, m.method.search) == (kind, ratio, n, None)
            ),
            None,
        )

    def mean(self, one: Measured, measure: Measure) -> Interval:
        """Of a method's rewards."""
        rewards = one.rewards(measure)
        return self._difference(rewards, np.zeros_like(rewards), one.prompts)

    def difference(self, one: Measured, other: Measured, measure: Measure) -> Interval:
        """By how much a method earns more than another on the same prompts under the same seeds."""
        return self.beyond(one, other.rewards(measure), measure)

    def beyond(self, one: Measured, rewards: np.ndarray, measure: Measure) -> Interval:
        """By how much a method earns more than given rewards, [n], of the same prompts and seeds."""
        return self._difference(one.rewards(measure), rewards, one.prompts)

    def _difference(self, values: np.ndarray, others: np.ndarray, prompts: Sequence[int]) -> Interval:
        """Of the pairs in which both replies have a reward."""
        both = np.isfinite(values) & np.isfinite(others)
        left = [prompt for prompt, has in zip(prompts, both, strict=True) if has]
        if len(set(left)) < 2:
            mean = float(np.mean((values - others)[both])) if left else math.nan
            return Interval(mean, -math.inf, math.inf, f"{len(set(left))} prompts with a reward of both")
        return paired_difference(values[both], others[both], left, resamples=self._resamples)

    def row(self, one: Measured) -> dict[str, Any]:
        """All that is reported of a method; JSON."""
        method, count = one.method, len(one.records)
        ends = [record["finish_reason"] for record in one.records]
        rivals = {"base": self.find("base"), "dense": self.find("dense")}
        return {
            "key": method.key,
            "name": method.name,
            "kind": method.kind,
            "asked_ratio": method.ratio,
            "n": method.n,
            "chooser": method.chooser,
            "search": None if method.search is None else text_of(method.search),
            "threshold": one.records[0]["threshold"],
            "rates": sorted({record["rate"] for record in one.records}),
            "replies": count,
            "ratio": one.ratio,
            "values_per_token": one.values_per_token,
            "decided": one.decided,
            "rewards": {measure: self.mean(one, measure).to_json() for measure in self.measures},
            "differences": {
                name: {m: self.difference(one, rival, m).to_json() for m in self.measures}
                for name, rival in rivals.items()
                if rival is not None and rival is not one
            },
            "tokens_per_second": tokens_per_second(one.tokens, _seconds(one.records)),
            "tokens_per_second_by_seed": [_rate_of(one.records, seed) for seed in self.seeds],
            "flops_per_token": {
                model: sum(record["flops"][model] for record in one.records) / max(one.tokens, 1)
                for model in ("policy", "value", "reward")
            },
            "length": one.tokens / count,
            "cut": ends.count("length") / count,
            "non_finite": ends.count("non_finite"),
            "unscored": one.unscored("proxy"),
            **({"gold_unscored": one.unscored("gold")} if "gold" in self.measures else {}),
        }


def tokens_per_second(tokens: int, seconds: float) -> float | None:
    """The rate; None where it was measured for less than `MEASURED_SECONDS`."""
    return tokens / seconds if seconds >= MEASURED_SECONDS else None


def _rate_of(records: Sequence[Record], seed: int) -> float | None:
    """Of the replies that were chosen under a seed."""
    own = [record for record in records if record["seed"] == seed]
    return tokens_per_second(sum(record["length"] for record in own), _seconds(own))


def _seconds(records: Sequence[Record]) -> float:
    return float(sum(record["seconds"] for record in records))
