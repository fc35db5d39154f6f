"""Thresholds in nats for shares of steered tokens, and the file that they stand in.

A threshold parts the gate's entropies along the policy's own replies. It belongs to that policy, to
its candidates and to the way its tokens are drawn: with another one it would steer another share.
"""

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sia_jax.files.reading import read_bytes
from sia_jax.files.shown import shown_value
from sia_jax.files.strict_json import kind_of, parse_object
from sia_jax.runs.journal import place_in
from sia_jax.steering.numbers import NUMBERS, with_absent
from sia_jax.text.forms import unsettled

FORMAT = "sia_jax calibration 1"
"""Stands in the file; a reader refuses any other."""

BINDING = (
    *("policy_fingerprint", "num_candidates", "unsteered", "stop"),
    *(name for name in NUMBERS if name not in ("beta", "read_all")),  # they matter where something is steered
    *("prompt_form", "thinking", "date_string", "system"),
)
"""Settings that shape the entropies: a run with others must not use the thresholds.

An absent one is null, and an absent number stands at its default.
"""


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
        theirs, ours = with_absent(self.settings), with_absent(settings)
        differing = [name for name in BINDING if theirs.get(name) != ours.get(name)]
        if differing:
            changes = ", ".join(f"{name} {theirs.get(name)!r} (now {ours.get(name)!r})" for name in differing)
            raise ValueError(
                f"{self.path}: its thresholds are of another policy or way to sample: {changes}"
                f"{unsettled(self.settings)}; make others with decode.calibrate"
            )

    def cautions(self) -> dict[float, str]:
        """By ratio, what must be known of a threshold that gives another share (`share_caution`)."""
        tokens = self.facts.get("tokens")
        rows = {row["ratio"]: row.get("share") for row in self.facts["thresholds"]}
        found = {}
        for ratio, share in rows.items():
            if isinstance(share, int | float) and isinstance(tokens, int) and tokens > 0:
                caution = share_caution(float(ratio), float(share), tokens)
                if caution:
                    found[float(ratio)] = f"{self.path}: {caution}"
        return found

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
    """The threshold that steers the share of tokens nearest to a ratio; a token is steered if H >= threshold.

    Between two neighbouring entropies any threshold steers the same tokens; it is the middle. Tokens of equal
    entropy are steered together or not at all, so the share may be another than the ratio: of a nearer and a
    farther side the nearer, of two that are as near the one that steers fewer.

    Args:
      entropies: [n] nats, as the gate sees them (float32).
      ratio: in (0, 1).

    Raises:
      ValueError: no entropies, one that is no number, or a ratio that is no share.
    """
    if not 0 < ratio < 1:
        raise ValueError(f"a ratio must lie between 0 and 1, both excluded, got {ratio}")
    if not len(entropies) or not np.isfinite(entropies).all():
        raise ValueError(f"expected finite entropies, at least one, got {len(entropies)} of them")
    h, counts = np.unique(np.asarray(entropies, np.float32), return_counts=True)
    # Shares of the thresholds that begin at each entropy, and of one above them all.
    shares = np.append(np.cumsum(counts[::-1])[::-1] / counts.sum(), 0.0)
    distances = np.abs(shares - ratio)
    nearest = int(np.flatnonzero(distances <= distances.min() + 1e-12)[-1])
    if nearest == len(h):
        return float(np.nextafter(h[-1], np.float32(np.inf)))
    if nearest == 0:
        return float(h[0])
    middle = np.float32((float(h[nearest - 1]) + float(h[nearest])) / 2)
    return float(middle if middle > h[nearest - 1] else h[nearest])


def realised_share(entropies: np.ndarray, threshold: float) -> float:
    """The share of tokens that a threshold steers, as the gate compares."""
    return float(np.mean(np.asarray(entropies, np.float32) >= np.float32(threshold)))


def share_caution(ratio: float, share: float, tokens: int) -> str:
    """What must be said of a share that is not the one asked for; empty if it is, as near as it can be.

    Args:
      ratio: asked for.
      share: of all tokens that have at least the threshold's entropy.
      tokens: how many there are.
    """
    if abs(share - ratio) <= max(1 / tokens, 0.05 * min(ratio, 1 - ratio)):
        return ""
    return (
        f"no threshold steers {ratio:.4g} of the tokens, since many have the same entropy: the nearest "
        f"steers {share:.4g} of them"
    )


class Entropies:
    """The entropies of each reply, as a journal's records say.

    Args:
      ids: of the prompts, in their order.
    """

    def __init__(self, ids: Sequence[str | int]):
        self.rows: dict[tuple[int, int], list[float]] = {}
        """By index of the prompt, and branch."""
        self._ids = ids

    def take(self, record: dict[str, Any]) -> Hashable:
        """Keep a record's.

        Raises:
          ValueError: it is of another prompt, or has no entropies.
        """
        index, branch = place_in(record, "index"), place_in(record, "branch")
        if index >= len(self._ids) or self._ids[index] != record["id"]:
            raise ValueError(f"prompt {record['id']!r} is not the input's prompt at place {index}")
        entropies = record["entropy"]
        if not isinstance(entropies, list) or any(type(h) is not float for h in entropies):
            raise ValueError(f"expected a list of entropies, got {shown_value(entropies, 60)}")
        self.rows[index, branch] = entropies
        return index, branch

    def all(self) -> np.ndarray:
        """[T] of all tokens, prompt by prompt."""
        return np.array([h for row in sorted(self.rows) for h in self.rows[row]], np.float32)


def calibrate(entropies: np.ndarray, ratios: Sequence[float], source: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a file of thresholds, each with the share that it really steers of these tokens.

    Args:
      entropies: [n] nats.
      ratios: ascending.
      source: what they were made from: "settings", "prompts", "prompts_sha256", "replies", ...
    """
    rows = []
    for ratio in ratios:
        threshold = threshold_for(entropies, ratio)
        share = round(realised_share(entropies, threshold), 6)
        rows.append({"ratio": ratio, "threshold": threshold, "share": share})
    return {"format": FORMAT, "thresholds": rows, "tokens": len(entropies), **source}


def read_calibration(path: Path) -> Calibration:
    """The thresholds of a file that decode.calibrate has written.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it holds something else.
    """
    content = read_bytes(path, "file of thresholds", "decode.calibrate makes one")
    facts = parse_object(content, str(path), like=f'{{"format": "{FORMAT}", "thresholds": [...]}}')
    try:
        if facts.get("format") != FORMAT:
            raise ValueError(f"it does not say {FORMAT!r}")
        thresholds, settings = _thresholds(facts.get("thresholds")), facts.get("settings")
        if not isinstance(settings, dict):
            raise ValueError(f"settings must be an object, got {kind_of(settings)}")
    except ValueError as error:
        raise ValueError(f"{path}: this is no file of decode.calibrate: {error}") from None
    return Calibration(path, hashlib.sha256(content).hexdigest(), thresholds, settings, facts)


def _thresholds(rows: Any) -> dict[float, float]:
    """Ratio -> nats.

    Raises:
      ValueError: anything else than one finite threshold and, if any, one share for each of some ratios.
    """
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"thresholds must be a list, at least one, got {kind_of(rows)}")
    found: dict[float, float] = {}
    for row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"a threshold must be an object, got {kind_of(row)}")
        ratio, threshold, share = (_number(row.get(name)) for name in ("ratio", "threshold", "share"))
        if ratio is None or not 0 < ratio < 1 or ratio in found:
            got = shown_value(row.get("ratio"), 60)
            raise ValueError(f"ratio must be a number between 0 and 1, each once, got {got}")
        if threshold is None:
            got = shown_value(row.get("threshold"), 60)
            raise ValueError(f"expected thresholds that are numbers, got {got}")
        if "share" in row and (share is None or not 0 <= share <= 1):
            raise ValueError(f"share must be a number from 0 to 1, got {shown_value(row['share'], 60)}")
        found[ratio] = threshold
    return found


def _number(value: Any) -> float | None:
    """A finite number of JSON; None: it is none."""
    if type(value) not in (int, float) or not abs(value) < 1e30:
        return None
    return float(value)


def _source(facts: Mapping[str, Any]) -> dict[str, Any]:
    names = ("prompts", "prompts_sha256", "replies", "tokens", "command")
    return {name: facts[name] for name in names if name in facts}
