"""What gates see of the tokens of replies, on the host: as a journal's records say, reply by reply."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sia_jax.engine.reply import Reply, json_numbers
from sia_jax.files.shown import shown_value
from sia_jax.runs.journal import place_in
from sia_jax.steering.gates import LARGEST_GAP

OF_LEARNED_GATES = ("top_probability", "logit_gap")
"""What only learned gates look at, and only their records have."""

HIDING = ("repetition_penalty", "presence_penalty", "frequency_penalty", "min_new_tokens")
"""Numbers that stand between the policy's own logits and the gate: under them no record tells the top
probability."""


@dataclass(frozen=True, eq=False)
class TokenFeatures:
    """The features of some replies' tokens, one reply after another; [T] each."""

    position: np.ndarray
    """t."""
    entropy: np.ndarray
    """H_t, nats; float32."""
    previous_entropy: np.ndarray
    """H_{t-1}, nats; 0 at t = 0."""
    top_probability: np.ndarray | None = None
    """Largest of softmax(l); None: not recorded."""
    logit_gap: np.ndarray | None = None
    """Largest l less the second largest, at most `LARGEST_GAP` nats; None: not recorded."""

    def __len__(self) -> int:
        return len(self.entropy)


def features_of(replies: Sequence[dict[str, Sequence[float]]]) -> TokenFeatures:
    """The features of replies.

    Args:
      replies: each its "entropy", nats, and those of `OF_LEARNED_GATES` in all of them or in none; [T] each.
    """
    lengths = [len(reply["entropy"]) for reply in replies]
    entropy = _joined(replies, "entropy")
    position = np.concatenate([np.arange(length) for length in lengths])
    previous = np.where(position > 0, np.roll(entropy, 1), np.float32(0))
    more = {name: _joined(replies, name) for name in OF_LEARNED_GATES if name in replies[0]}
    return TokenFeatures(position, entropy, previous, **more)


class FeatureRecords:
    """The features of each reply, as a journal's records say.

    Args:
      ids: of the prompts, in their order.
      learned: whether learned gates are to be calibrated.
    """

    def __init__(self, ids: Sequence[str | int], *, learned: bool = False):
        self.names = ("entropy", *OF_LEARNED_GATES) if learned else ("entropy",)
        """Of what a record has."""
        self._rows: dict[tuple[int, int], dict[str, Sequence[float]]] = {}
        """By index of the prompt, and branch."""
        self._ids = ids

    def record_of(self, reply: Reply) -> dict[str, Any]:
        """What stands in the record of a reply, with its candidates if learned gates are to be calibrated."""
        record = {"entropy": json_numbers(reply.entropy)}
        if "logit_gap" in self.names:
            assert reply.candidates is not None
            best, logits = reply.candidates.policy_logprobs[:, 0], reply.candidates.logits
            # It is of two candidates or more: of one alone no second logit is known.
            gap = np.minimum(logits[:, 0] - logits[:, 1], np.float32(LARGEST_GAP))
            record |= {"top_probability": json_numbers(np.exp(best)), "logit_gap": json_numbers(gap)}
        return record

    def take(self, record: dict[str, Any]) -> Hashable:
        """Keep a record's.

        Raises:
          ValueError: it is of another prompt, or has no such numbers.
        """
        index, branch = place_in(record, "index"), place_in(record, "branch")
        if index >= len(self._ids) or self._ids[index] != record["id"]:
            raise ValueError(f"prompt {record['id']!r} is not the input's prompt at place {index}")
        own = {name: record[name] for name in self.names}
        for name, numbers in own.items():
            if not isinstance(numbers, list) or any(type(x) is not float for x in numbers):
                raise ValueError(f"expected a list of numbers for {name}, got {shown_value(numbers, 60)}")
            if len(numbers) != len(own["entropy"]):
                raise ValueError(f"{name} has {len(numbers)} numbers, and entropy {len(own['entropy'])}")
        self._rows[index, branch] = own
        return index, branch

    def all(self) -> TokenFeatures:
        """Of all tokens, prompt by prompt."""
        return features_of([self._rows[row] for row in sorted(self._rows)])


def _joined(replies: Sequence[dict[str, Sequence[float]]], name: str) -> np.ndarray:
    return np.concatenate([np.asarray(reply[name], np.float32) for reply in replies])
