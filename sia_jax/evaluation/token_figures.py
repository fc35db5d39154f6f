"""Where the junctions of replies lie, and at which entropies steering shifts tokens: counts of every reply.

A record keeps counts and no tokens, so that it stays small however long the reply is.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from sia_jax.evaluation.comparison import Comparison, Measured
from sia_jax.evaluation.resampling import Figure, bootstrap
from sia_jax.evaluation.token_counts import BIN, tenths_of

RESAMPLES = 1000
"""Of the bootstrap over prompts."""


def token_figures(comparison: Comparison) -> dict[str, Any]:
    """What the counts of a comparison's replies come to; strict JSON.

    Of methods that draw one reply and give it, and whose records all have counts:

      junctions  of each steered method: by tenths of the reply, its junctions and tokens, and the share of
                 its junctions that lie there, sum_i j_i / sum_i sum_k j_ik over replies i and tenths k
      entropy    of dense steering: by bins of `BIN` nats, the tokens that it shifted and those that it did
                 not, the share of either that lies there, and the share that lies there or below; null
                 where dense steering was not measured, or has no counts

    A share has its estimate and, from `resampling.FEWEST` prompts on, the interval of a bootstrap over
    prompts.

    Args:
      comparison: of methods.
    """
    steered = [one for one in comparison.measured if one.method.is_steered and one.method.is_plain]
    counted = [one for one in steered if all("counts" in record for record in one.records)]
    dense = next((one for one in counted if one is comparison.find("dense")), None)
    return {
        "junctions": [_junctions(one) for one in counted],
        "entropy": None if dense is None else _entropy(dense),
    }


def _junctions(one: Measured) -> dict[str, Any]:
    found, tokens = _by_prompt(one, "junctions"), np.zeros(10, np.int64)
    for record in one.records:
        tokens += np.bincount(tenths_of(record["length"]), minlength=10)
    shares = _shares({"share": found})
    method = one.method
    return {
        "key": method.key,
        "name": method.name,
        "kind": method.kind,
        "asked_ratio": method.ratio,
        "tenths": [
            {"junctions": int(count), "tokens": int(whole), "share": share}
            for count, whole, share in zip(found.sum(axis=0), tokens, shares["share"], strict=True)
        ],
    }


def _entropy(dense: Measured) -> dict[str, Any]:
    counts = {name: _by_prompt(dense, name) for name in ("shifted", "unshifted")}
    width = max(found.shape[1] for found in counts.values())
    counts = {name: np.pad(own, [(0, 0), (0, width - own.shape[1])]) for name, own in counts.items()}
    shares = _shares(
        {
            **{f"{name}_share": own for name, own in counts.items()},
            **{f"{name}_up_to": own.cumsum(axis=1) for name, own in counts.items()},
        },
        wholes={f"{name}_up_to": own.sum(axis=1) for name, own in counts.items()},
    )
    return {
        "key": dense.method.key,
        "name": dense.method.name,
        **{name: int(own.sum()) for name, own in counts.items()},
        "bins": [
            {
                "low": round(place * BIN, 9),
                "high": round((place + 1) * BIN, 9),
                **{name: int(own[:, place].sum()) for name, own in counts.items()},
                **{name: own[place] for name, own in shares.items()},
            }
            for place in range(width)
        ],
    }


def _by_prompt(one: Measured, name: str) -> np.ndarray:
    """[prompts, bins] counts of all replies to each prompt."""
    rows = [record["counts"][name] for record in one.records]
    width = max(1, *(len(row) for row in rows))
    found: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(width, np.int64))
    for record, row in zip(one.records, rows, strict=True):
        found[record["index"]][: len(row)] += np.asarray(row, np.int64)
    return np.stack([found[index] for index in sorted(found)])


def _shares(
    counts: Mapping[str, np.ndarray], wholes: Mapping[str, np.ndarray] | None = None
) -> dict[str, list[dict[str, float | None]]]:
    """By name the share of each bin, JSON.

    Args:
      counts: [prompts, bins] each.
      wholes: [prompts] what counts are shares of; without: their own sum.
    """
    wholes = {name: own.sum(axis=1) for name, own in counts.items()} | dict(wholes or {})

    def figures(drawn: np.ndarray) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, own in counts.items():
            whole = float(drawn @ wholes[name])
            share = drawn @ own / whole if whole else np.full(own.shape[1], np.nan)
            found |= {f"{name}/{place}": float(x) for place, x in enumerate(share)}
        return found

    prompts = len(next(iter(counts.values())))
    told = bootstrap(figures, prompts, resamples=RESAMPLES)
    return {
        name: [_json(told[f"{name}/{place}"]) for place in range(own.shape[1])]
        for name, own in counts.items()
    }


def _json(figure: Figure) -> dict[str, float | None]:
    numbers = {"mean": figure.estimate, "low": figure.low, "high": figure.high}
    return {name: x if np.isfinite(x) else None for name, x in numbers.items()}
