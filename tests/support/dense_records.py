"""Records of densely steered replies, as decode.generate --record writes them, made by chance."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax

SETTINGS = {"policy": "p", "policy_fingerprint": "abc", "num_candidates": 4, "temperature": 1.0, "seed": 0}
"""What of a run's settings is looked at, and a little more."""


def numbers(x: np.ndarray) -> list[Any]:
    """Strict JSON of float32: null for what is not finite."""
    if x.ndim > 1:
        return [numbers(row) for row in x]
    return [float(a) if math.isfinite(a) else None for a in x.astype(np.float32)]


def dense_record(
    index: int, length: int, seed: int, *, temperature: float = 1.0, kept: int | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A record, and what it was made of: logits [T, V], the candidates' values [T, C].

    Args:
      index: of the prompt.
      length: T.
      seed: of everything.
      temperature: 0: greedy.
      kept: so many candidates may be drawn; None: all.
    """
    rng = np.random.default_rng([seed, index])
    scale = rng.uniform(0.3, 4.0, (length, 1))
    logits = (scale * rng.normal(size=(length, 12))).astype(np.float32)
    ids = np.argsort(-logits, axis=1, kind="stable")[:, :4]
    best = np.take_along_axis(logits, ids, axis=1)
    values = rng.normal(size=best.shape).astype(np.float32)
    divisor, allowed = temperature or 1.0, np.arange(4) < (kept or 4)
    noise = rng.gumbel(size=best.shape) * (temperature > 0)
    scaled = np.where(allowed, best.astype(np.float64) / divisor, -np.inf)
    own = np.argmax(scaled + noise, axis=1)
    steered = np.where(allowed, (best + values).astype(np.float64) / divisor, -np.inf)
    token = np.argmax(steered + noise, axis=1)
    inside = log_softmax(best.astype(np.float64), axis=1)
    record = {
        "index": index,
        "entropy": numbers(-np.sum(np.exp(inside) * inside, axis=1)),
        "junction": [True] * length,
        "shifted": (own != token).tolist(),
        "candidates": {
            "ids": ids.tolist(),
            "logits": numbers(best),
            "values": numbers(values),
            "policy_logprobs": numbers(np.take_along_axis(log_softmax(logits, axis=1), ids, axis=1)),
            "logprobs": numbers(log_softmax(steered, axis=1)),
        },
        "settings": SETTINGS | {"temperature": temperature},
    }
    return record, {"logits": logits, "values": values, "allowed": np.broadcast_to(allowed, best.shape)}


def save_records(path: Path, records: Iterable[Any]) -> Path:
    """A line each."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
