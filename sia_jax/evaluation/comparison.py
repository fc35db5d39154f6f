"""Methods compared on the same prompts under the same seeds: means, differences, shares, costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sia_jax.evaluation.methods import Method
from sia_jax.evaluation.statistics import Interval, bootstrap_mean, paired_difference

Measure = Literal["gold", "proxy"]

MEASURES: tuple[Measure, ...] = ("gold", "proxy")

Record = Mapping[str, Any]
"""What became of one prompt under one seed and one method.

Its "index" and "seed"; "gold" and "proxy", the rewards of the reply that was chosen ("gold" may be None);
its "length" and "finish_reason"; "sampled_tokens" and "sampled_junctions" of all replies that were sampled
for it; "seconds", its share of its batch; "flops" by model; "threshold" and "rate".
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

    def rewards(self, measure: Measure) -> np.ndarray:
        """[n] gold or proxy."""
        return np.array([record[measure] for record in self.records], np.float64)


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
        given = {record["gold"] is not None for measured in self.measured for record in measured.records}
        if len(given) != 1:
            raise ValueError("some replies have a gold reward and others none")
        self.measures: tuple[Measure, ...] = MEASURES if given == {True} else ("proxy",)
        """What there is of gold and proxy; the first one is what counts."""

    def find(self, kind: str, ratio: float | None = None, n: int = 1) -> Measured | None:
        """The method of a kind, if it was measured."""
        return next(
            (m for m in self.measured if (m.method.kind, m.method.ratio, m.method.n) == (kind, ratio, n)),
            None,
        )

    def mean(self, one: Measured, measure: Measure) -> Interval:
        """Of a method's rewards."""
        return bootstrap_mean(one.rewards(measure), one.prompts, resamples=self._resamples)

    def difference(self, one: Measured, other: Measured, measure: Measure) -> Interval:
        """By how much a method earns more than another on the same prompts under the same seeds."""
        return self.beyond(one, other.rewards(measure), measure)

    def beyond(self, one: Measured, rewards: np.ndarray, measure: Measure) -> Interval:
        """By how much a method earns more than given rewards, [n], of the same prompts and seeds."""
        return paired_difference(one.rewards(measure), rewards, one.prompts, resamples=self._resamples)

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
            "threshold": one.records[0]["threshold"],
            "rates": sorted({record["rate"] for record in one.records}),
            "replies": count,
            "ratio": one.ratio,
            "rewards": {measure: self.mean(one, measure).to_json() for measure in self.measures},
            "differences": {
                name: {m: self.difference(one, rival, m).to_json() for m in self.measures}
                for name, rival in rivals.items()
                if rival is not None and rival is not one
            },
            "tokens_per_second": _tokens_per_second(one.records),
            "tokens_per_second_by_seed": [
                _tokens_per_second([record for record in one.records if record["seed"] == seed])
                for seed in sorted({record["seed"] for record in one.records})
            ],
            "flops_per_token": {
                model: sum(record["flops"][model] for record in one.records) / max(one.tokens, 1)
                for model in ("policy", "value", "reward")
            },
            "length": one.tokens / count,
            "cut": ends.count("length") / count,
            "non_finite": ends.count("non_finite"),
        }


def _tokens_per_second(records: Sequence[Record]) -> float:
    """Of the replies that were chosen."""
    tokens = sum(record["length"] for record in records)
    return float(tokens / max(sum(record["seconds"] for record in records), 1e-9))
