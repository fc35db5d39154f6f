"""What a learned gate learns from: cheap features of densely steered tokens, and what steering did there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sia_jax.evaluation.dense_replies import dense_reply, read_by_prompt
from sia_jax.evaluation.learned_gate import FEATURES
from sia_jax.evaluation.token_features import HIDING
from sia_jax.files.shown import shown_value
from sia_jax.runs.journal import is_finite
from sia_jax.steering.gates import LARGEST_GAP
from sia_jax.steering.numbers import NUMBERS, check_number, with_absent

Label = Literal["shifted", "gain"]
"""shifted: the policy alone would have said another token; gain: see `Examples.gain`."""

_MOST = 60
"""Characters of a value that an error shows."""


@dataclass(frozen=True, eq=False)
class Examples:
    """All densely steered tokens of replies to one prompt."""

    features: np.ndarray  # [T, 5] as `FEATURES`: nats, nats, 1, nats, tokens
    shifted: np.ndarray  # [T] bool
    gain: np.ndarray | None
    """[T] E_q V - E_p V, in units of the reward: q what the token was drawn from, p the softmax of the same
    candidates' l / T (T = 1 for 0), which leaves out what lies outside them. None: not asked for."""


def read_examples(path: Path, label: Label) -> tuple[list[Examples], dict[str, Any]]:
    """The examples of each prompt, in their order, and the settings of the run.

    Args:
      path: JSONL of `decode.generate --threshold=-inf --record`.
      label: with "gain" the candidates' values are read too.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a line that is no such reply, a reply that was not steered at every token or whose gate did
        not see the policy's own logits, replies of several runs, or no token.
    """
    settings: list[dict[str, Any]] = []

    def read(record: dict[str, Any]) -> Examples:
        own = _settings_of(record)
        if settings and own != settings[0]:
            names = sorted(n for n in {*own, *settings[0]} if own.get(n) != settings[0].get(n))
            raise ValueError(f"it was made with other settings than the first: {shown_value(names, 200)}")
        settings[:] = [own]
        return _examples(record, own, label)

    found = [_joined(own) for own in read_by_prompt(path, read)]
    if not any(len(prompt.shifted) for prompt in found):
        raise ValueError(f"{path}: there is no token in it")
    return found, settings[0]


def _settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings.

    Raises:
      ValueError: there are none, or processors stood between the policy's logits and the gate.
    """
    settings = record.get("settings")
    if not isinstance(settings, dict):
        raise ValueError(f"settings must be an object, got {shown_value(settings, _MOST)}")
    full = with_absent(settings)
    changed = [name for name in HIDING if full[name] != NUMBERS[name].default]
    if changed:
        raise ValueError(
            "the top probability under penalties and minimum lengths is not recorded: generate without "
            + ", ".join(f"--{name.replace('_', '-')}" for name in changed)
        )
    if not is_finite(full["temperature"]):
        raise ValueError(f"temperature must be a number, got {shown_value(full['temperature'], _MOST)}")
    check_number("temperature", full["temperature"])
    return settings


def _examples(record: Mapping[str, Any], settings: Mapping[str, Any], label: Label) -> Examples:
    """Those of one reply.

    Raises:
      KeyError, ValueError: it lacks something, or was not steered at every token.
    """
    reply = dense_reply(record)
    length = len(reply.entropy)
    candidates = record.get("candidates")
    if not isinstance(candidates, dict):
        raise ValueError("there are no candidates in it: generate with --record")
    logits, logprobs = (_rows(candidates, name, length) for name in ("logits", "policy_logprobs"))
    if not length:
        return Examples(np.zeros((0, len(FEATURES))), reply.shifted, np.zeros(0) if label == "gain" else None)
    if logits.shape != logprobs.shape:
        raise ValueError(f"logits and policy_logprobs are of {logits.shape} and {logprobs.shape}")
    if logits.shape[1] == 1:
        raise ValueError("one candidate has no gap to a second: generate with --num-candidates 2 or more")
    best, second, logprob = logits[:, 0], logits[:, 1], logprobs[:, 0]
    if not ((best > -np.inf) & (best >= second) & (logprob > -np.inf) & (logprob <= 1e-3)).all():
        raise ValueError("the first candidate must be the likeliest, and its policy_logprob a number up to 0")
    features = [
        reply.entropy,
        np.concatenate([np.zeros(1), reply.entropy[:-1]]),
        np.minimum(np.exp(logprob), 1.0),
        np.minimum(best - second, LARGEST_GAP),
        np.arange(length),
    ]
    gain = None
    if label == "gain":
        temperature = float(with_absent(settings)["temperature"]) or 1.0
        gain = _gain(candidates, logits / temperature)
    return Examples(np.column_stack(features).astype(np.float64), reply.shifted, gain)


def _gain(candidates: Mapping[str, Any], logits: np.ndarray) -> np.ndarray:
    """[T] of a reply; see `Examples`.

    Args:
      candidates: as recorded.
      logits: [T, C] over the temperature, T >= 1.

    Raises:
      KeyError, ValueError: values or probabilities are not there.
    """
    values, log_q = (_rows(candidates, name, len(logits)) for name in ("values", "logprobs"))
    if not values.shape == log_q.shape == logits.shape:
        raise ValueError(f"values, logprobs and logits are of {values.shape}, {log_q.shape}, {logits.shape}")
    kept = log_q > -np.inf
    is_choice = kept.sum(axis=1) > 1  # of one candidate nothing needs to be read, and nothing is gained
    unread = ~kept.any(axis=1) | (is_choice & (kept & np.isneginf(values)).any(axis=1))
    if unread.any():
        raise ValueError(
            f"the values of {int(unread.sum())} of {len(logits)} tokens were not all read: generate with "
            "--read-all 1, or learn --label shifted"
        )
    if (kept & np.isneginf(logits)).any() or (log_q > 1e-3).any():
        raise ValueError("logprobs must be up to 0, and null where logits are")
    known = np.where(kept & is_choice[:, None], values, 0.0)
    q, inside = np.exp(log_q), np.where(kept, logits, -np.inf)
    p = np.exp(inside - inside.max(axis=1, keepdims=True))
    more = q / q.sum(axis=1, keepdims=True) - p / p.sum(axis=1, keepdims=True)
    return np.asarray(np.sum(more * known, axis=1))


def _rows(candidates: Mapping[str, Any], name: str, length: int) -> np.ndarray:
    """[T, C] of a field of the candidates, in float64 what was float32; -inf for null.

    Raises:
      KeyError: there is no such field.
      ValueError: something else than a list of equally many numbers for each token.
    """
    rows = candidates[name]
    if not isinstance(rows, list) or len(rows) != length or not all(isinstance(row, list) for row in rows):
        raise ValueError(f"{name} must be a list for each of {length} tokens, got {shown_value(rows, _MOST)}")
    if len({len(row) for row in rows}) > 1 or not all(rows):
        raise ValueError(f"{name} must be of equally many candidates at each token, at least one")
    if not all(x is None or (is_finite(x) and abs(x) < 1e30) for row in rows for x in row):
        raise ValueError(f"{name} must be numbers or null")
    filled = [[-np.inf if x is None else x for x in row] for row in rows]
    return np.array(filled, np.float32).astype(np.float64).reshape(length, len(rows[0]) if rows else 0)


def _joined(replies: Sequence[Examples]) -> Examples:
    gains = [reply.gain for reply in replies if reply.gain is not None]
    return Examples(
        np.concatenate([reply.features for reply in replies]),
        np.concatenate([reply.shifted for reply in replies]),
        np.concatenate(gains) if gains else None,
    )
