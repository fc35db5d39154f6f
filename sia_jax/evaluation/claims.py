"""The paper's three claims, held against the intervals of a comparison.

A verdict is a function of the numbers alone. A difference is there if its 95% interval leaves 0 out. That a
method *matches* dense steering is more than that no difference was found: it must be shown to keep nine
tenths of what dense steering gains over the base. All three replied to the same prompts, so this is one
paired difference, method - (0.9 dense + 0.1 base), in which the uncertainty of the gain has its part.

The intervals are those of single comparisons, and none is corrected for how many there are: where no method
were better than another, each comparison would still say "better" once in 40, and "worse" as often
(`expected_by_chance`). A claim that holds as a whole needs all of its comparisons, and no correction; that
one holds at *some* ratio is a choice among several.

With fewer prompts than an interval takes (`FEWEST`) nothing is claimed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sia_jax.evaluation.comparison import Comparison, Measure, Measured
from sia_jax.evaluation.equal_ratio import against_entropy
from sia_jax.evaluation.statistics import FEWEST, LEVEL, Interval

MARGIN = 0.1
"""Share of dense steering's gain over the base that a method may lose and still match it."""

DIGITS = 3
"""After the point: of two, ends of intervals would be rounded onto what they are held against."""

Verdict = Literal["holds", "holds in part", "does not hold", "is not shown", "was not tested"]


@dataclass(frozen=True)
class Finding:
    """One comparison: what was compared, the difference, and what the interval says of it."""

    what: str
    difference: Interval
    outcome: str
    supports: bool
    refutes: bool
    kept: Interval | None = None
    """By how much more than nine tenths of dense steering's gain is kept; of matches alone."""

    @property
    def text(self) -> str:
        """'entropy 20% against random 20%: +0.310 [+0.224, +0.401], better'."""
        kept = "" if self.kept is None else f", {_signed(self.kept)} beyond nine tenths of the gain"
        why = "" if self.difference.is_known else f" (no interval: {self.difference.why})"
        return f"{self.what}: {_signed(self.difference)}{why}{kept}, {self.outcome}"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and what became of it here."""

    name: str
    verdict: Verdict
    statement: str
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Name, verdict, statement, and the findings in words."""
        findings = [finding.text for finding in self.findings]
        return {
            "name": self.name,
            "verdict": self.verdict,
            "statement": self.statement,
            "findings": findings,
        }


def judge(comparison: Comparison, measure: Measure) -> list[Claim]:
    """The three claims on one measure.

    Args:
      comparison: of all methods.
      measure: "gold" or "proxy".
    """
    claims = [
        _sparse_matches_dense(comparison, measure),
        _entropy_beats_random(comparison, measure),
        _composes_with_best_of_n(comparison, measure),
    ]
    if comparison.prompts >= FEWEST:
        return claims
    few = f"A claim takes {FEWEST} prompts or more, got {comparison.prompts}."
    return [Claim(claim.name, "was not tested", few, ()) for claim in claims]


def to_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison in numbers: a row for each method, claims, gates at equal ratio; strict JSON."""
    claims = {measure: judge(comparison, measure) for measure in comparison.measures}
    return {
        "measures": list(comparison.measures),
        "rows": [comparison.row(measured) for measured in comparison.measured],
        "claims": {measure: [claim.to_json() for claim in found] for measure, found in claims.items()},
        "comparisons": sum(len(claim.findings) for found in claims.values() for claim in found),
        "equal_ratio": against_entropy(comparison),
    }


def expected_by_chance(comparisons: int) -> float:
    """How many of so many comparisons without any difference would be said to be better."""
    return comparisons * (1 - LEVEL) / 2


def _signed(interval: Interval) -> str:
    return interval.text(signed=True, digits=DIGITS)


def _sparse_matches_dense(comparison: Comparison, measure: Measure) -> Claim:
    name = "Sparse steering matches or beats dense steering"
    base, dense = comparison.find("base"), comparison.find("dense")
    if base is None or dense is None:
        return Claim(name, "was not tested", "Base or dense steering was not measured.", ())
    gain = comparison.difference(dense, base, measure)
    margin = MARGIN if gain.mean > 0 else 0.0
    needed = (1 - margin) * dense.rewards(measure) + margin * base.rewards(measure)
    findings = []
    for one in comparison.measured:
        if one.method.kind == "entropy" and one.method.is_plain:
            found = comparison.difference(one, dense, measure)
            kept = comparison.beyond(one, needed, measure)
            what = f"{one.method.name} against {dense.method.name}"
            findings.append(Finding(what, found, *_match(found, kept), kept=kept))
    statement = f"Dense steering gains {_signed(gain)} over the base. " + _where(
        findings, "Matched or beaten at", "At no ratio is dense steering shown to be matched"
    )
    if not gain.low > 0:
        statement += " Dense steering itself is not shown to gain anything, so there is little to match."
    return Claim(name, _verdict(findings), statement, tuple(findings))


def _match(found: Interval, kept: Interval) -> tuple[str, bool, bool]:
    """Of a method against dense steering: the outcome, and whether it supports or refutes the claim."""
    if found.low > 0:
        return "beats it", True, False
    if kept.low >= 0:
        return ("a little worse, but matches it" if found.high < 0 else "matches it"), True, False
    if kept.high < 0:
        return "worse", False, True
    return "undecided: a loss of more than a tenth of the gain is not ruled out", False, False


def _entropy_beats_random(comparison: Comparison, measure: Measure) -> Claim:
    findings = _against(
        comparison, measure, "entropy", lambda one: comparison.find("random", one.method.ratio), _better
    )
    statement = _where(findings, "Better at", "At no ratio is the entropy gate shown to be better")
    verdict = _verdict(findings)
    return Claim("Entropy gates beat random gates at equal ratio", verdict, statement, findings)


def _composes_with_best_of_n(comparison: Comparison, measure: Measure) -> Claim:
    name = "Sparse steering composes with best-of-N"
    combined = [m for m in comparison.measured if m.method.is_steered and m.method.n > 1]
    if not combined:
        return Claim(name, "was not tested", "No steered best-of-N was measured.", ())
    plain = [m for m in comparison.measured if not m.method.is_steered and m.method.n > 1]
    findings: list[Finding] = []
    needed: list[Finding] = []
    statements = []
    for both in combined:
        alone = comparison.find(both.method.kind, both.method.ratio)
        equals = [m for m in plain if m.method.n == both.method.n]
        subject = f"{_capital(both.method.name)} must beat each of its parts alone"
        own = {
            rival.method: _finding(comparison, measure, both, rival, _better)
            for rival in [*([alone] if alone is not None else []), *plain]
        }
        findings += own.values()
        if alone is None or not equals:
            missing = "the gate alone" if alone is None else f"best of {both.method.n} of the base"
            statements.append(f"{subject}, of which {missing} was not measured.")
            continue
        parts = [alone, *equals]
        against_parts = [own[part.method] for part in parts]
        needed += against_parts
        does = sum(finding.supports for finding in against_parts)
        outcome = "it does" if does == len(parts) else ("it does in part" if does else "it is not shown to")
        statements.append(f"{subject}, {' and '.join(part.method.name for part in parts)}: {outcome}.")
    return Claim(name, _verdict(needed), " ".join(statements), tuple(findings))


def _against(
    comparison: Comparison,
    measure: Measure,
    kind: str,
    rival_of: Callable[[Measured], Measured | None],
    outcome: Callable[[Interval], tuple[str, bool, bool]],
) -> tuple[Finding, ...]:
    """Each gate of a kind, alone, against its rival."""
    findings = []
    for one in comparison.measured:
        rival = rival_of(one) if one.method.kind == kind and one.method.is_plain else None
        if rival is not None:
            findings.append(_finding(comparison, measure, one, rival, outcome))
    return tuple(findings)


def _finding(
    comparison: Comparison,
    measure: Measure,
    one: Measured,
    rival: Measured,
    outcome: Callable[[Interval], tuple[str, bool, bool]],
) -> Finding:
    found = comparison.difference(one, rival, measure)
    return Finding(f"{one.method.name} against {rival.method.name}", found, *outcome(found))


def _better(found: Interval) -> tuple[str, bool, bool]:
    if not found.is_known:
        return "undecided", False, False
    if found.low > 0:
        return "better", True, False
    return ("worse", False, True) if found.high < 0 else ("no difference shown", False, False)


def _verdict(findings: Sequence[Finding]) -> Verdict:
    if not findings:
        return "was not tested"
    supporting = sum(finding.supports for finding in findings)
    if supporting == len(findings):
        return "holds"
    if supporting:
        return "holds in part"
    return "does not hold" if all(finding.refutes for finding in findings) else "is not shown"


def _where(findings: Sequence[Finding], some: str, none: str) -> str:
    """Where a claim is supported, where it is refuted, and where neither is shown."""

    def places(chosen: Callable[[Finding], bool]) -> str:
        return ", ".join(finding.what.partition(" against ")[0] for finding in findings if chosen(finding))

    supported = places(lambda finding: finding.supports)
    refuted = places(lambda finding: finding.refutes)
    undecided = places(lambda finding: not finding.supports and not finding.refutes)
    parts = [f"{some} {supported}" if supported else none]
    parts += [f"not at {refuted}"] * bool(refuted) + [f"undecided at {undecided}"] * bool(undecided)
    return "; ".join(parts) + "."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
