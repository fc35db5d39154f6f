"""Thresholds in nats and the numbers of other gates for shares of steered tokens, and the file of both.

A number parts what its gate compares along the policy's own replies. It belongs to that policy, to its
candidates and to the way its tokens are drawn: with another one it would steer another share.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia_jax.evaluation.gate_calibration import calibrate_gates, gate_caution, parse_gates
from sia_jax.evaluation.gate_numbers import GateNumbers, parse_linear
from sia_jax.evaluation.learned_gate import LearnedGate
from sia_jax.evaluation.methods import GATES, GateKind, Method
from sia_jax.evaluation.shares import realised_share, threshold_for
from sia_jax.evaluation.token_features import TokenFeatures
from sia_jax.files.reading import read_bytes
from sia_jax.files.shown import shown_value
from sia_jax.files.strict_json import kind_of, parse_object
from sia_jax.steering.gates import Linear
from sia_jax.steering.numbers import NUMBERS, with_absent
from sia_jax.text.forms import unsettled

FORMAT = "sia_jax calibration 2"
"""Stands in the file."""

EARLIER = "sia_jax calibration 1"
"""Of files with thresholds alone, which are read too; a reader refuses any other."""

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
    gates: dict[GateKind, dict[float, GateNumbers]]
    """By ratio, the numbers of all gates for which the file has some."""
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

    def cautions(self, kind: GateKind = "entropy") -> dict[float, str]:
        """By ratio, what must be known of a number that gives another share (`share_caution`)."""
        tokens = self.facts.get("tokens")
        found = {}
        for row in self.facts["thresholds"]:
            own = row.get("gates", {}).get(kind, row)
            share = own.get("share")
            if isinstance(share, int | float) and isinstance(tokens, int) and tokens > 0:
                caution = gate_caution(kind, float(row["ratio"]), float(share), tokens)
                if caution:
                    found[float(row["ratio"])] = f"{self.path}: {caution}"
        return found

    def cautions_of(self, methods: Sequence[Method], max_new_tokens: int) -> list[str]:
        """What must be known before these methods take hours, with replies of up to so many tokens."""
        found: dict[str, None] = {}
        for kind in GATES:
            asked = {method.ratio for method in methods if method.kind == kind}
            found |= {line: None for ratio, line in self.cautions(kind).items() if ratio in asked}
        theirs = self.settings.get("max_new_tokens")
        if theirs != max_new_tokens and any(method.kind == "position" for method in methods):
            text = (
                f"{self.path}: its numbers of first tokens are of replies of up to {theirs} tokens (now "
                f"{max_new_tokens}), of which they are another share"
            )
            found[text] = None
        return list(found)

    def to_json(self) -> dict[str, Any]:
        """What a user of the thresholds records of them."""
        thresholds = [{"ratio": r, "threshold": t} for r, t in self.thresholds.items()]
        return {
            "file": self.path.name,
            "sha256": self.sha256,
            "thresholds": thresholds,
            **_source(self.facts),
        }


def calibrate(
    tokens: TokenFeatures,
    ratios: Sequence[float],
    source: Mapping[str, Any],
    learned: LearnedGate | None = None,
) -> dict[str, Any]:
    """The content of a file of thresholds, each with the share that it really steers of these tokens.

    Args:
      tokens: of the policy's own replies.
      ratios: ascending.
      source: what they were made from: "settings", "prompts", "prompts_sha256", "replies", ...
      learned: a learned gate, whose bias is found for each ratio; None: there is none.
    """
    rows = []
    for ratio in ratios:
        threshold = threshold_for(tokens.entropy, ratio)
        share = round(realised_share(tokens.entropy, threshold), 6)
        gates = calibrate_gates(tokens, ratio, learned)
        rows.append({"ratio": ratio, "threshold": threshold, "share": share, "gates": gates})
    return {"format": FORMAT, "thresholds": rows, "tokens": len(tokens), **source}


def read_calibration(path: Path) -> Calibration:
    """The thresholds of a file that decode.calibrate has written.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it holds something else.
    """
    content = read_bytes(path, "file of thresholds", "decode.calibrate makes one")
    facts = parse_object(content, str(path), like=f'{{"format": "{FORMAT}", "thresholds": [...]}}')
    try:
        if facts.get("format") not in (FORMAT, EARLIER):
            raise ValueError(f"it does not say {FORMAT!r}")
        learned = None if "learned" not in facts else _weights(facts["learned"])
        thresholds, settings = _thresholds(facts.get("thresholds")), facts.get("settings")
        gates = _gates(facts["thresholds"], thresholds, learned)
        if not isinstance(settings, dict):
            raise ValueError(f"settings must be an object, got {kind_of(settings)}")
    except ValueError as error:
        raise ValueError(f"{path}: this is no file of decode.calibrate: {error}") from None
    return Calibration(path, hashlib.sha256(content).hexdigest(), thresholds, gates, settings, facts)


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


def _weights(learned: Any) -> Linear:
    """Of the learned gate that the file names.

    Raises:
      ValueError: something else.
    """
    if not isinstance(learned, dict):
        raise ValueError(f"learned must be an object, got {kind_of(learned)}")
    return parse_linear(learned.get("gate"))


def _gates(
    rows: Any, thresholds: Mapping[float, float], learned: Linear | None
) -> dict[GateKind, dict[float, GateNumbers]]:
    """By gate and ratio; a budget begins at the entropy gate's threshold.

    Args:
      rows: as `_thresholds` has read them.
      thresholds: of these rows, in their order.
      learned: weights of the learned gate; None: the file has none.

    Raises:
      ValueError: numbers of gates that are none.
    """
    found: dict[GateKind, dict[float, GateNumbers]] = {
        "entropy": {ratio: GateNumbers(threshold) for ratio, threshold in thresholds.items()},
        "budget": {ratio: GateNumbers(threshold, budget=ratio) for ratio, threshold in thresholds.items()},
    }
    for ratio, row in zip(thresholds, rows, strict=True):
        for kind, numbers in parse_gates(row.get("gates", {}), learned).items():
            found.setdefault(kind, {})[ratio] = numbers
    return found


def _number(value: Any) -> float | None:
    """A finite number of JSON; None: it is none."""
    if type(value) not in (int, float) or not abs(value) < 1e30:
        return None
    return float(value)


def _source(facts: Mapping[str, Any]) -> dict[str, Any]:
    names = ("prompts", "prompts_sha256", "replies", "tokens", "command")
    return {name: facts[name] for name in names if name in facts}
