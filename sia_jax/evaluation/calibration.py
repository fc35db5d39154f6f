"""Thresholds in nats for shares of steered tokens, and the file that they stand in.

A threshold is a quantile of the gate's entropy along the policy's own replies. It belongs to that policy, to
its candidates and to the way its tokens are drawn: with another one it would steer another share.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sia_jax.files.reading import read_bytes
from sia_jax.files.strict_json import kind_of, parse_object

FORMAT = "sia_jax calibration 1"
"""Stands in the file; a reader refuses any other."""

BINDING = (
    *("policy_fingerprint", "num_candidates", "unsteered", "temperature", "top_k", "top_p", "stop"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty", "min_new_tokens"),
    *("prompt_form", "thinking", "system"),
)
"""Settings that shape the entropies: a run with others must not use the thresholds."""


@dataclass(frozen=True)
class Calibration:
    """What a file of thresholds says."""

    path: Path
    sha256: str
    """Of the file."""
    thresholds: dict[float, float]
    """Ratio -> nats."""
    settings: dict[str, Any]
    """What the replies were made with."""
    facts: dict[str, Any]
    """The whole file."""

    def check(self, settings: Mapping[str, Any]) -> None:
        """These thresholds are for a run with such settings.

        Raises:
          ValueError: they are not, and why.
        """
        differing = [name for name in BINDING if self.settings.get(name) != settings.get(name)]
        if differing:
            changes = ", ".join(
                f"{name} {self.settings.get(name)!r} (now {settings.get(name)!r})" for name in differing
            )
            raise ValueError(
                f"{self.path}: its thresholds are of another policy or way to sample: {changes}; make others "
                "with decode.calibrate"
            )

    def to_json(self) -> dict[str, Any]:
        """What a user of the thresholds records of them."""
        thresholds = [{"ratio": r, "threshold": t} for r, t in self.thresholds.items()]
        return {
            "file": self.path.name,
            "sha256": self.sha256,
            "thresholds": thresholds,
            **_source(self.facts),
        }


def threshold_for(entropies: np.ndarray, ratio: float) -> float:
    """The 1 - ratio quantile: a share `ratio` of the tokens has H >= threshold.

    Args:
      entropies: [n] nats, of the tokens of all replies.
      ratio: in (0, 1).

    Raises:
      ValueError: no entropies, one that is no number, or a ratio that has no quantile.
    """
    if not 0 < ratio < 1:
        raise ValueError(f"a ratio must lie between 0 and 1, both excluded, got {ratio}")
    if not len(entropies) or not np.isfinite(entropies).all():
        raise ValueError(f"expected finite entropies, at least one, got {len(entropies)} of them")
    return float(np.quantile(np.asarray(entropies, np.float64), 1 - ratio))


def calibrate(entropies: np.ndarray, ratios: Sequence[float], source: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a file of thresholds.

    Args:
      entropies: [n] nats.
      ratios: ascending.
      source: what they were made from: "settings", "prompts", "prompts_sha256", "replies", ...
    """
    rows = []
    for ratio in ratios:
        threshold = threshold_for(entropies, ratio)
        share = float(np.mean(entropies >= np.float32(threshold)))  # as the gate compares
        rows.append({"ratio": ratio, "threshold": threshold, "share": round(share, 6)})
    return {"format": FORMAT, "thresholds": rows, "tokens": len(entropies), **source}


def read_calibration(path: Path) -> Calibration:
    """The thresholds of a file that decode.calibrate has written.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it holds something else.
    """
    content = read_bytes(path, "file of thresholds", "decode.calibrate makes one")
    facts = parse_object(content, str(path), like=f'{{"format": "{FORMAT}", ...}}')
    try:
        if facts.get("format") != FORMAT:
            raise ValueError(f"it does not say {FORMAT!r}")
        thresholds = _thresholds(facts["thresholds"])
        settings = facts["settings"]
        if not isinstance(settings, dict):
            raise ValueError(f"'settings' must be an object, got {kind_of(settings)}")
    except (ValueError, KeyError) as error:
        why = f"no {error} in it" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: this is no file of decode.calibrate: {why}") from None
    return Calibration(path, hashlib.sha256(content).hexdigest(), thresholds, settings, facts)


def _thresholds(rows: Any) -> dict[float, float]:
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"'thresholds' must be a list of objects, at least one, got {kind_of(rows)}")
    found: dict[float, float] = {}
    for row in rows:
        ratio, threshold = row["ratio"], row["threshold"]
        for name, number in (("ratio", ratio), ("threshold", threshold)):
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise ValueError(f"{name} must be a number, got {kind_of(number)}")
        if not 0 < ratio < 1:
            raise ValueError(f"ratio must lie between 0 and 1, both excluded, got {ratio:g}")
        if ratio in found:
            raise ValueError(f"the ratio {ratio:g} has two thresholds; keep one")
        found[float(ratio)] = float(threshold)
    return found


def _source(facts: Mapping[str, Any]) -> dict[str, Any]:
    names = ("prompts", "prompts_sha256", "replies", "tokens", "command")
    return {name: facts[name] for name in names if name in facts}
