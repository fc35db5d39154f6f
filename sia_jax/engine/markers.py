"""Markers such as </think> in a run: as ids of its policy, and in its prompts."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from sia_jax.pretrained import Policy
from sia_jax.steering.expressions import Encode
from sia_jax.steering.gates import After, Gate, markers
from sia_jax.text.tokenizer import exact_ids

_TAIL = 16
"""Ids that a template writes behind the last message, and what it opens the reply with, are no more."""

_UNREAD = 2**31 - 1


def encode_of(policy: Policy | None) -> Encode | None:
    """How the texts of a gate become ids.

    Args:
      policy: with or without weights; None: it is not known yet, and every text becomes one id that no
        vocabulary has, so that the gate can be checked, and cannot be run.

    Returns:
      None: the policy has no tokenizer.
    """
    if policy is None:
        return lambda text: (_UNREAD,)
    tokenizer = policy.tokenizer
    return None if tokenizer is None else lambda text: exact_ids(tokenizer, text)


def is_read(gate: Gate) -> bool:
    """Whether the gate's markers are ids of a policy; see `encode_of`."""
    return all(_UNREAD not in marker for marker in markers(gate))


def marker_in_prompt(ids: Sequence[int], marker: Sequence[int]) -> bool:
    """Whether a prompt's reply is after the marker from its first token on.

    It is complete within the last 16 + n ids, n those of the marker: there templates put it, behind the last
    message, as Qwen3's does without thinking. A message that ends with the marker counts too, if the template
    writes little after it.
    """
    n = len(marker)
    tail = [int(token) for token in ids[-(_TAIL + n) :]]
    return any(tail[i : i + n] == list(marker) for i in range(len(tail) - n + 1))


def with_markers(gate: Gate, prompts: Sequence[Sequence[int]]) -> Gate:
    """The gate with `started` [B] of every `After`: 1 where the prompt has its marker, and where it was 1.

    Args:
      gate: any; one without an `After` is returned as it is.
      prompts: B, the policy's ids.
    """
    if isinstance(gate, After):
        found = np.array([marker_in_prompt(ids, gate.tokens) for ids in prompts], np.float32)
        started: Any = np.maximum(np.asarray(gate.started, np.float32), found)
        return replace(gate, started=started)
    node: Any = gate
    parts = {f.name: getattr(node, f.name) for f in fields(node)}
    changed = {name: with_markers(part, prompts) for name, part in parts.items() if isinstance(part, Gate)}
    return replace(node, **changed) if changed else gate
