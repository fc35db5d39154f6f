"""Methods compared on the same prompts under the same seeds: means, differences, shares, costs.

A reply may have no reward: one that a reward model could not score, or that a reward function has none for.
It counts in no mean of that reward; of a difference both replies of the pair are left out; and it is said how
many were.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from sia_jax.evaluation.gate_numbers import LATER, numbers_in
from sia_jax.evaluation.likelihoods import likelihoods
from sia_jax.evaluation.methods import Method
from sia_jax.evaluation.multiplicity import holm
from sia_jax.evaluation.search.expressions import text_of
from sia_jax.evaluation.statistics import Interval, mean_interval, paired_difference, win_rate
from sia_jax.evaluation.text_measures import perplexity, reply_measures, set_measures

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
time; "flops" by model; "threshold" and "rate", and the other numbers that its gate has (`numbers_in`). Its
"text" and "policy_logprob" (nats, the sum over its tokens; None where that is not finite), of all records or
of none. Its "logprob" under the law that it was drawn from, likewise, and its "fluency_logprob" and
"fluency_tokens" under and of a second model.
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

    @property
    def perplexity(self) -> float | None:
        """Of all replies under the unsteered policy; None where a record does not say, or all are empty."""
        sums = [record.get("policy_logprob") for record in self.records]
        if not self.tokens or any(logprob is None for logprob in sums):
            return None
        return perplexity(sums, [record["length"] for record in self.records])

    @property
    def texts(self) -> list[str] | None:
        """The replies that were chosen; None where a record has no text."""
        if any("text" not in record for record in self.records):
            return None
        return [record["text"] for record in self.records]


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
        self._differences: dict[tuple[Measured, Measured, Measure], Interval] = {}
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
        """The method of a kind, under the run's own tilt, if it was measured."""
        return next(
            (
                m
                for m in self.measured
                if (m.method.kind, m.method.ratio, m.method.n) == (kind, ratio, n)
                and m.method.search is None
                and m.method.bound is None
            ),
            None,
        )

    def mean(self, one: Measured, measure: Measure) -> Interval:
        """Of a method's rewards."""
        return self._of_pairs(mean_interval, one.prompts, one.rewards(measure))

    def difference(self, one: Measured, other: Measured, measure: Measure) -> Interval:
        """By how much a method earns more than another on the same prompts under the same seeds."""
        key = (one, other, measure)
        if key not in self._differences:
            self._differences[key] = self.beyond(one, other.rewards(measure), measure)
        return self._differences[key]

    def beyond(self, one: Measured, rewards: np.ndarray, measure: Measure) -> Interval:
        """By how much a method earns more than given rewards, [n], of the same prompts and seeds."""
        return self._of_pairs(paired_difference, one.prompts, one.rewards(measure), rewards)

    def wins(self, one: Measured, other: Measured, measure: Measure) -> Interval:
        """How often a method earns more than another on the same prompt and seed; a tie counts one half."""
        return self._of_pairs(win_rate, one.prompts, one.rewards(measure), other.rewards(measure))

    def rivals(self, one: Measured) -> dict[str, Measured]:
        """What a method is held against: base and dense steering, if they were measured and are not it."""
        found = {"base": self.find("base"), "dense": self.find("dense")}
        return {name: rival for name, rival in found.items() if rival is not None and rival is not one}

    @cached_property
    def adjusted(self) -> dict[Measure, dict[frozenset[str], float]]:
        """By measure and the keys of both methods: the p-value of their difference, adjusted by `holm`.

        What is corrected for are all differences of a measure between a method and its rivals, each once. One
        without an interval has a p-value of 1, and counts.
        """
        pairs: dict[frozenset[str], tuple[Measured, Measured]] = {}
        for one in self.measured:
            for rival in self.rivals(one).values():
                pairs.setdefault(_pair(one, rival), (one, rival))
        return {
            measure: dict(zip(pairs, self._holm([*pairs.values()], measure), strict=True))
            for measure in self.measures
        }

    def differences(
        self, pairs: Sequence[tuple[Measured, Measured]], measure: Measure
    ) -> list[dict[str, Any]]:
        """Of each pair the difference, its p-value adjusted for all by `holm`, and the wins; JSON."""
        adjusted = self._holm(pairs, measure)
        return [self._told(one, rival, measure, p) for (one, rival), p in zip(pairs, adjusted, strict=True)]

    def _holm(self, pairs: Sequence[tuple[Measured, Measured]], measure: Measure) -> list[float]:
        found = [self.difference(one, rival, measure).p for one, rival in pairs]
        return [float(p) for p in holm([1.0 if own is None else own for own in found])]

    def _against(self, one: Measured, rival: Measured, measure: Measure) -> dict[str, Any]:
        """A difference, its p-value adjusted for all, and the share of wins; JSON."""
        return self._told(one, rival, measure, self.adjusted[measure][_pair(one, rival)])

    def _told(self, one: Measured, rival: Measured, measure: Measure, adjusted: float) -> dict[str, Any]:
        found, wins = self.difference(one, rival, measure), self.wins(one, rival, measure)
        p = None if found.p is None else adjusted
        return found.to_json() | {"p_adjusted": p, "wins": wins.to_json()}

    def _of_pairs(
        self, figure: Callable[..., Interval], prompts: Sequence[int], *values: np.ndarray
    ) -> Interval:
        """A figure of the replies that have all these values, [n] each."""
        has: np.ndarray = np.isfinite(np.stack(values)).all(axis=0)
        left = [prompt for prompt, known in zip(prompts, has, strict=True) if known]
        if len(set(left)) < 2:
            why = f"{len(set(left))} prompts with a value, of 2 needed"
            return Interval(math.nan, -math.inf, math.inf, why)
        return figure(*(own[has] for own in values), left, resamples=self._resamples)

    def _of_texts(self, one: Measured) -> dict[str, Any]:
        """The measures of a method's texts, JSON; nothing without texts."""
        if one.texts is None:
            return {}
        found: dict[str, Any] = {}
        for name, values in reply_measures(one.texts).items():
            interval = self._of_pairs(mean_interval, one.prompts, values)
            found[name] = interval.within(0, math.inf if name == "words" else 1).to_json()
        shares = set_measures(one.texts)
        return found | {name: None if math.isnan(share) else share for name, share in shares.items()}

    def _likelihoods(self, one: Measured) -> dict[str, Any]:
        """The perplexities and the KL of a method, JSON."""

        def of_pairs(figure: Callable[..., Interval], *values: np.ndarray) -> Interval:
            return self._of_pairs(figure, one.prompts, *values)

        rivals = {name: rival.records for name, rival in self.rivals(one).items()}
        drawn = one.method.n if one.method.search is None else None
        return likelihoods(one.records, rivals, of_pairs, drawn=drawn)

    def row(self, one: Measured) -> dict[str, Any]:
        """All that is reported of a method; JSON."""
        method, count = one.method, len(one.records)
        ends = [record["finish_reason"] for record in one.records]
        return {
            "key": method.key,
            "name": method.name,
            "kind": method.kind,
            "asked_ratio": method.ratio,
            "n": method.n,
            "chooser": method.chooser,
            "search": None if method.search is None else text_of(method.search),
            "bound": method.bound,
            "threshold": one.records[0]["threshold"],
            "rates": sorted({record["rate"] for record in one.records}),
            **{name: x for name, x in numbers_in(one.records[0]).items() if name in LATER},
            "replies": count,
            "ratio": one.ratio,
            "values_per_token": one.values_per_token,
            "decided": one.decided,
            "rewards": {measure: self.mean(one, measure).to_json() for measure in self.measures},
            "differences": {
                name: {measure: self._against(one, rival, measure) for measure in self.measures}
                for name, rival in self.rivals(one).items()
            },
            "tokens_per_second": tokens_per_second(one.tokens, _seconds(one.records)),
            "tokens_per_second_by_seed": [_rate_of(one.records, seed) for seed in self.seeds],
            "seconds_per_reply_by_seed": [_seconds_of(one.records, seed) for seed in self.seeds],
            "flops_per_token": {
                model: sum(record["flops"][model] for record in one.records) / max(one.tokens, 1)
                for model in ("policy", "value", "reward")
            },
            "length": one.tokens / count,
            "cut": ends.count("length") / count,
            "non_finite": ends.count("non_finite"),
            "unscored": one.unscored("proxy"),
            **({"gold_unscored": one.unscored("gold")} if "gold" in self.measures else {}),
            "perplexity": one.perplexity,
            **self._likelihoods(one),
            **self._of_texts(one),
        }


def _pair(one: Measured, other: Measured) -> frozenset[str]:
    return frozenset((one.method.key, other.method.key))


def tokens_per_second(tokens: int, seconds: float) -> float | None:
    """The rate; None where it was measured for less than `MEASURED_SECONDS`."""
    return tokens / seconds if seconds >= MEASURED_SECONDS else None


def _rate_of(records: Sequence[Record], seed: int) -> float | None:
    """Of the replies that were chosen under a seed; None where it was measured too briefly."""
    own = [record for record in records if record["seed"] == seed]
    return tokens_per_second(sum(record["length"] for record in own), _seconds(own))


def _seconds_of(records: Sequence[Record], seed: int) -> float | None:
    """A reply's, under a seed; None as above."""
    own = [record for record in records if record["seed"] == seed]
    seconds = _seconds(own)
    return seconds / len(own) if seconds >= MEASURED_SECONDS else None


def _seconds(records: Sequence[Record]) -> float:
    return float(sum(record["seconds"] for record in records))
