"""The records of a comparison that is under way: how one is made and checked, and which are missing."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sia_jax.data.prompts import PromptLine
from sia_jax.evaluation.comparison import Record
from sia_jax.evaluation.gate_numbers import GateNumbers, check_numbers_in, numbers_in
from sia_jax.evaluation.method_runner import Chosen
from sia_jax.evaluation.methods import CalibratedGates, Method, gate_numbers
from sia_jax.evaluation.official import check_official, official_fields
from sia_jax.evaluation.token_counts import check_counts, token_counts
from sia_jax.files.shown import shown_value
from sia_jax.runs.journal import is_finite

Unit = tuple[Method, int]
"""A method under a seed."""

PromptKey = tuple[str | int, str]
"""A prompt's id and its `prompt_digest`."""

GROWS = ("prompts_sha256",)
"""Settings in which records of one comparison may differ: each record tells which prompt it is of, so that a
file of prompts may get further ones behind those that have replies."""


class Records:
    """What is there of a comparison, by method, seed and prompt.

    Args:
      methods: each random gate after the entropy gate whose share it takes.
      seeds: under which every prompt is replied to.
      prompts: `prompt_key` of each.
      gates: calibrated, for the methods that have such.
      gold: whether records have gold rewards.
      fluency: whether they have what a second language model says.
      prompts_sha256: of their file, by which records of earlier releases know it.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        seeds: Sequence[int],
        prompts: Sequence[PromptKey],
        gates: CalibratedGates,
        *,
        gold: bool,
        fluency: bool = False,
        prompts_sha256: str = "",
    ):
        self.methods, self.seeds = methods, seeds
        self._prompts, self._gates, self._gold = prompts, gates, gold
        self._fluency, self._prompts_sha256 = fluency, prompts_sha256
        self._records: dict[tuple[str, int, int], Record] = {}

    @property
    def units(self) -> list[Unit]:
        """All that is to be done, in its order."""
        return [(method, seed) for method in self.methods for seed in self.seeds]

    @property
    def total(self) -> int:
        """Records of all units."""
        return len(self.units) * len(self._prompts)

    def take(self, record: dict[str, Any]) -> tuple[str, int, int]:
        """Keep a record; returns (the method's key, the seed, the prompt's index).

        Raises:
          KeyError: a field that is missing.
          ValueError: it is of another prompt, or of one that reads otherwise now, or has another thing where
            a number should be; or it is there already, and differs.
        """
        check_record(record, gold=self._gold, fluency=self._fluency)
        key = record_key(record)
        self._check_prompt(record, key[2])
        if self._records.setdefault(key, record) != record:
            name = shown_value(record["id"], 60)
            raise ValueError(
                f"prompt {name} has two replies of {key[0][:60]} under seed {key[1]}, which differ"
            )
        return key

    def _check_prompt(self, record: Mapping[str, Any], index: int) -> None:
        """A record is of the prompt that the input has at its place.

        Raises:
          ValueError: it is of another one, or of one that was worded otherwise.
        """
        name, digest = self._prompts[index] if 0 <= index < len(self._prompts) else (None, "")
        if name is None or name != record["id"]:
            raise ValueError(
                f"prompt {shown_value(record['id'], 60)} is not the input's prompt at place {index}, and has "
                "replies; put new prompts behind those that were there"
            )
        if "prompt_sha256" in record:
            if record["prompt_sha256"] != digest:
                raise ValueError(
                    f"prompt {shown_value(name, 60)} has replies, and was worded otherwise; give it back its "
                    "words, or put the new ones behind all others under another id"
                )
        elif record.get("settings", {}).get("prompts_sha256", "") != self._prompts_sha256:
            raise ValueError(
                f"prompt {shown_value(name, 60)} has replies of an earlier release, which go on with the "
                "same file of prompts alone"
            )

    @property
    def ids(self) -> list[str | int]:
        """Of the prompts, in their order."""
        return [name for name, _ in self._prompts]

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

    def rival(self, unit: Unit) -> Unit | None:
        """The entropy gate whose share a random one takes; None: the gate of the unit is known without."""
        method, seed = unit
        if method.kind != "random":
            return None
        rival = Method("entropy", method.ratio)
        return (rival, seed) if rival in self.methods else None

    def is_ready(self, unit: Unit) -> bool:
        """Whether all is there that the gate of a unit depends on."""
        rival = self.rival(unit)
        return rival is None or not self.missing(rival)

    def gate(self, unit: Unit) -> GateNumbers:
        """The gate of a unit that `is_ready`.

        A random gate takes the share that its entropy gate has realised. One that has replies keeps the share
        that it began with, that of the prompts which were there then.

        Raises:
          ValueError: replies that are there were made with another one.
        """
        method, seed = unit
        realised = None
        if method.kind == "random":
            rival = self.rival(unit)
            realised = method.ratio if rival is None else self._realised(rival[0], unit)
        gate = gate_numbers(method, self._gates, realised)
        ours = gate.to_json()
        for index in range(len(self._prompts)):
            record = self._records.get((method.key, seed, index))
            theirs = ours if record is None else numbers_in(record)
            if theirs != ours:
                raise ValueError(f"{method.name} under seed {seed} was made with {theirs} (now {ours})")
        return gate

    def _realised(self, rival: Method, unit: Unit) -> float:
        """The share that an entropy gate has realised under the seed of a random one.

        Over all prompts; or over the first so many of them, where the random gate began with those.
        """
        method, seed = unit
        steered = self.of(rival, [seed])
        tokens = np.cumsum([record["sampled_tokens"] for record in steered])
        shares = np.cumsum([record["sampled_junctions"] for record in steered]) / np.maximum(tokens, 1)
        own = (self._records.get((method.key, seed, i)) for i in range(len(steered)))
        begun = next((record["rate"] for record in own if record is not None), None)
        return float(shares[-1] if begun is None or begun not in shares else begun)


def record_key(record: Mapping[str, Any]) -> tuple[str, int, int]:
    """(the method's key, the seed, the prompt's index) of a record."""
    return record["method"], record["seed"], record["index"]


def prompt_key(prompt: PromptLine) -> PromptKey:
    """What tells a prompt that has replies from another one."""
    return prompt.id, prompt_digest(prompt)


def prompt_digest(prompt: PromptLine) -> str:
    """sha256 of a conversation, hexadecimal, the first 16 digits: whatever form of file it stands in.

    Args:
      prompt: of messages.
    """
    messages = [dict(message) for message in prompt.messages or ()]
    text = json.dumps(messages, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_record(
    unit: Unit,
    gate: GateNumbers,
    index: int,
    name: PromptKey,
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
      name: `prompt_key` of it.
      chosen: what the method gives.
      gold: the gold reward of that, and why there is none, where one is asked for.
      official: whether it holds what the official form of results tells of a reply.
    """
    (method, seed), reply = unit, chosen.reply
    return {
        "method": method.key,
        "seed": seed,
        "index": index,
        "id": name[0],
        "prompt_sha256": name[1],
        **gate.to_json(),
        "text": reply.text,
        "finish_reason": reply.finish_reason.name.lower(),
        "length": len(reply.tokens),
        "junctions": reply.num_junctions,
        "shifted": reply.num_shifted,
        "counts": token_counts(reply.junction, reply.entropy, reply.shifted),
        **(official_fields(reply) if official else {}),
        "policy_logprob": _nats(reply.policy_logprob),
        "logprob": None if method.search is not None else _nats(reply.logprob),
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


def _nats(logprobs: np.ndarray) -> float | None:
    """The sum of log-probabilities; None where one is not known."""
    total = float(np.sum(logprobs, dtype=np.float64))
    return min(total, 0.0) if math.isfinite(total) else None  # rounding may leave 1e-8


_NUMBERS = ("length", "sampled_tokens", "sampled_junctions", "seconds")
_LATER_NUMBERS = ("sampled_decided", "values_read")
"""Which records of earlier releases lack."""


def check_record(record: Mapping[str, Any], *, gold: bool, fluency: bool = False) -> None:
    """A record of an earlier run has numbers where the comparison looks for numbers.

    Args:
      record: of a reply; its file may have been written by anybody.
      gold: whether the run has gold rewards.
      fluency: whether the run has a second language model.

    Raises:
      KeyError: a field that is missing.
      ValueError: one that holds something else.
    """
    numbers = {name: record[name] for name in _NUMBERS}
    numbers |= {name: record[name] for name in _LATER_NUMBERS if name in record}
    numbers |= {f"flops of the {model}": record["flops"][model] for model in ("policy", "value", "reward")}
    if gold and not (record["gold"] is None and isinstance(record.get("gold_unscored"), str)):
        numbers["gold"] = record["gold"]
    if fluency or "fluency_tokens" in record:
        numbers["fluency_tokens"] = record["fluency_tokens"]
        if record["fluency_logprob"] is None and not isinstance(record.get("fluency_unscored"), str):
            raise ValueError("a fluency_logprob of null needs a text, fluency_unscored, that says why")
    for name, number in numbers.items():
        if not is_finite(number) or (number < 0 and name != "gold"):
            got = shown_value(number, 60)
            raise ValueError(f"{name} must be a number, of 0 or more but for rewards, got {got}")
    if record["proxy"] is not None and not is_finite(record["proxy"]):
        raise ValueError(f"proxy must be a number, or null, got {shown_value(record['proxy'], 60)}")
    for name in ("policy_logprob", "logprob", "fluency_logprob"):
        logprob = record.get(name)
        if logprob is not None and not (is_finite(logprob) and logprob <= 0):
            raise ValueError(f"{name} must be a number up to 0, or null, got {shown_value(logprob, 60)}")
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
    check_numbers_in(record)
