"""The records of a comparison that is under way: how one is made and checked, and which are missing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sia_jax.engine.reply import json_threshold
from sia_jax.evaluation.comparison import Record
from sia_jax.evaluation.method_runner import Chosen
from sia_jax.evaluation.methods import GateNumbers, Method, gate_numbers
from sia_jax.evaluation.official import check_official, official_fields
from sia_jax.evaluation.token_counts import check_counts, token_counts
from sia_jax.files.shown import shown_value
from sia_jax.runs.journal import is_finite

Unit = tuple[Method, int]
"""A method under a seed."""


class Records:
    """What is there of a comparison, by method, seed and prompt.

    Args:
      methods: each random gate after the entropy gate whose share it takes.
      seeds: under which every prompt is replied to.
      prompts: their ids.
      thresholds: of entropy gates, by ratio, nats.
      gold: whether records have gold rewards.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        seeds: Sequence[int],
        prompts: Sequence[str | int],
        thresholds: Mapping[float, float],
        *,
        gold: bool,
    ):
        self.methods, self.seeds = methods, seeds
        self._prompts, self._thresholds, self._gold = prompts, thresholds, gold
        self._records: dict[tuple[str, int, int], Record] = {}

    @property
    def units(self) -> list[Unit]:
        """All that is to be done, in its order."""
        return [(method, seed) for method in self.methods for seed in self.seeds]

    @property
    def total(self) -> int:
        """Records of all units."""
        return len(self.units) * len(self._prompts)

    @property
    def work(self) -> float:
        """What is missing, in unsteered replies."""
        return sum(unit[0].work * len(self.missing(unit)) for unit in self.units)

    def take(self, record: dict[str, Any]) -> tuple[str, int, int]:
        """Keep a record; returns (the method's key, the seed, the prompt's index).

        Raises:
          KeyError: a field that is missing.
          ValueError: it is of another prompt, or has another thing where a number should be.
        """
        check_record(record, gold=self._gold)
        key = (record["method"], record["seed"], record["index"])
        if not 0 <= key[2] < len(self._prompts) or self._prompts[key[2]] != record["id"]:
            raise ValueError(f"prompt {record['id']!r} is not the input's prompt at place {key[2]}")
        self._records[key] = record
        return key

    def missing(self, unit: Unit) -> list[int]:
        """Indices of the prompts without a record."""
        method, seed = unit
        return [i for i in range(len(self._prompts)) if (method.key, seed, i) not in self._records]

    def lacking(self, *names: str) -> int:
        """How many records of the units lack one of these fields."""
        keys = ((method.key, seed, i) for method, seed in self.units for i in range(len(self._prompts)))
        there = [self._records[key] for key in keys if key in self._records]
        return sum(any(name not in record for name in names) for record in there)

    def of(self, method: Method, seeds: Sequence[int] | None = None) -> list[Record]:
        """Those of a method, all of which are there.

        Args:
          method: one of the comparison's.
          seeds: under which; None: all.
        """
        seeds = self.seeds if seeds is None else seeds
        return [self._records[method.key, seed, i] for seed in seeds for i in range(len(self._prompts))]

    def gate(self, unit: Unit) -> GateNumbers:
        """The gate of a unit; for a random one, all records of its entropy gate are there.

        Raises:
          ValueError: replies that are there were made with another one.
        """
        method, seed = unit
        threshold = realised = None
        if method.kind == "entropy":
            assert method.ratio is not None
            threshold = self._thresholds[method.ratio]
        if method.kind == "random":
            realised = method.ratio
            rival = Method("entropy", method.ratio)
            if rival in self.methods:
                steered = self.of(rival, [seed])
                tokens = sum(record["sampled_tokens"] for record in steered)
                realised = sum(record["sampled_junctions"] for record in steered) / max(tokens, 1)
        gate = gate_numbers(method, threshold, realised)
        ours = {"threshold": json_threshold(gate.threshold), "rate": gate.rate}
        for index in range(len(self._prompts)):
            record = self._records.get((method.key, seed, index))
            theirs = ours if record is None else {name: record[name] for name in ours}
            if theirs != ours:
                raise ValueError(f"{method.name} under seed {seed} was made with {theirs} (now {ours})")
        return gate


def make_record(
    unit: Unit,
    gate: GateNumbers,
    index: int,
    name: str | int,
    chosen: Chosen,
    gold: tuple[float | None, str],
    *,
    official: bool = False,
) -> dict[str, Any]:
    """A record, but for where it was made.

    Args:
      unit: the method and the seed.
      gate: of the unit.
      index: of the prompt.
      name: its id.
      chosen: what the method gives.
      gold: the gold reward of that, and why there is none, where one is asked for.
      official: whether it holds what the official form of results tells of a reply.
    """
    (method, seed), reply = unit, chosen.reply
    total = float(np.sum(reply.policy_logprob, dtype=np.float64))
    return {
        "method": method.key,
        "seed": seed,
        "index": index,
        "id": name,
        "threshold": json_threshold(gate.threshold),
        "rate": gate.rate,
        "text": reply.text,
        "finish_reason": reply.finish_reason.name.lower(),
        "length": len(reply.tokens),
        "junctions": reply.num_junctions,
        "shifted": reply.num_shifted,
        "counts": token_counts(reply.junction, reply.entropy, reply.shifted),
        **(official_fields(reply) if official else {}),
        "policy_logprob": min(total, 0.0) if math.isfinite(total) else None,  # rounding may leave 1e-8
        "gold": gold[0],
        **({"gold_unscored": gold[1]} if gold[1] else {}),
        "proxy": chosen.proxy,
        "unscored": chosen.unscored or None,
        **({} if chosen.parts is None else {"parts": dict(chosen.parts)}),
        "branch": chosen.branch,
        "scores": chosen.scores,
        "sampled_tokens": chosen.sampled_tokens,
        "sampled_junctions": chosen.sampled_junctions,
        "sampled_decided": chosen.sampled_decided,
        "values_read": chosen.values_read,
        "seconds": chosen.seconds,
        "flops": chosen.flops.to_json(),
    }


_NUMBERS = ("length", "sampled_tokens", "sampled_junctions", "seconds", "rate")
_LATER_NUMBERS = ("sampled_decided", "values_read")
"""Which records of earlier releases lack."""


def check_record(record: Mapping[str, Any], *, gold: bool) -> None:
    """A record of an earlier run has numbers where the comparison looks for numbers.

    Args:
      record: of a reply; its file may have been written by anybody.
      gold: whether the run has gold rewards.

    Raises:
      KeyError: a field that is missing.
      ValueError: one that holds something else.
    """
    numbers = {name: record[name] for name in _NUMBERS}
    numbers |= {name: record[name] for name in _LATER_NUMBERS if name in record}
    numbers |= {f"flops of the {model}": record["flops"][model] for model in ("policy", "value", "reward")}
    if gold and not (record["gold"] is None and isinstance(record.get("gold_unscored"), str)):
        numbers["gold"] = record["gold"]
    for name, number in numbers.items():
        if not is_finite(number) or (number < 0 and name != "gold"):
            got = shown_value(number, 60)
            raise ValueError(f"{name} must be a number, of 0 or more but for rewards, got {got}")
    if record["proxy"] is not None and not is_finite(record["proxy"]):
        raise ValueError(f"proxy must be a number, or null, got {shown_value(record['proxy'], 60)}")
    logprob = record.get("policy_logprob")
    if logprob is not None and not (is_finite(logprob) and logprob <= 0):
        raise ValueError(f"policy_logprob must be a number up to 0, or null, got {shown_value(logprob, 60)}")
    if "counts" in record:
        check_counts(record["counts"], record["length"])
    if "official" in record:
        check_official(record["official"], record["length"])
    for name in ("method", "finish_reason", "commit", "machine"):
        if not isinstance(record[name], str):
            raise ValueError(f"{name} must be a text, got {shown_value(record[name], 60)}")
    if not isinstance(record.get("text", ""), str):
        raise ValueError(f"text must be a text, got {shown_value(record['text'], 60)}")
    if type(record["index"]) is not int or type(record["seed"]) is not int:
        got = " and ".join(shown_value(record[name], 60) for name in ("index", "seed"))
        raise ValueError(f"index and seed must be integers, got {got}")
    threshold = record["threshold"]
    if not is_finite(threshold) and threshold not in ("inf", "-inf"):
        raise ValueError(f'threshold must be a number, "inf" or "-inf", got {shown_value(threshold, 60)}')
