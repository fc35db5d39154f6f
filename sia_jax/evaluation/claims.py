"""The paper's three claims, held against the intervals of a comparison.

A verdict is a function of the numbers alone. A difference is there if its 95% interval leaves 0 out. That two
methods *match* is more than that no difference was found: the whole interval must lie above a margin, a tenth
of what dense steering gains over the base. The intervals are those of single comparisons; no claim is a
choice of the best of many.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sia_jax.evaluation.comparison import Comparison, Measure, Measured
from sia_jax.evaluation.statistics import Interval

MARGIN = 0.1
"""Share of dense steering's gain over the base that a method may lose and still match it."""

Verdict = Literal["holds", "holds in part", "does not hold", "is not shown", "was not tested"]


@dataclass(frozen=True)
class Finding:
    """One comparison: what was compared, the difference, and what the interval says of it."""

    what: str
    difference: Interval
    outcome: str
    supports: bool

    @property
    def text(self) -> str:
        """'entropy 20% against random 20%: +0.31 [+0.22, +0.40], better'."""
        return f"{self.what}: {describe(self.difference)}, {self.outcome}"


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
    return [
        _sparse_matches_dense(comparison, measure),
        _entropy_beats_random(comparison, measure),
        _composes_with_best_of_n(comparison, measure),
    ]


def describe(interval: Interval) -> str:
    """'+0.31 [+0.22, +0.40]'."""
    # Adding 0 makes a rounded -0.0 a 0.0.
    mean, low, high = (f"{round(x, 2) + 0.0:+.2f}" for x in (interval.mean, interval.low, interval.high))
    return f"{mean} [{low}, {high}]"


def _sparse_matches_dense(comparison: Comparison, measure: Measure) -> Claim:
    name = "Sparse steering matches or beats dense steering"
    base, dense = comparison.find("base"), comparison.find("dense")
    if base is None or dense is None:
        return Claim(name, "was not tested", "Base or dense steering was not measured.", ())
    gain = comparison.difference(dense, base, measure)
    margin = MARGIN * max(gain.mean, 0.0)

    def outcome(found: Interval) -> tuple[str, bool]:
        if found.low > 0:
            return "beats it", True
        if found.high < 0:
            is_close = found.low >= -margin
            return ("worse, but by less than the margin" if is_close else "worse"), is_close
        if found.low >= -margin:
            return "matches it", True
        return f"undecided: a loss of {-found.low:.2f} is not ruled out", False

    findings = _against(comparison, measure, "entropy", lambda one: dense, outcome)
    statement = (
        f"Dense steering gains {describe(gain)} over the base, so the margin is {margin:.2f}. "
        + _where(findings, "Matched or beaten at", "At no ratio is dense steering shown to be matched.")
    )
    if gain.low <= 0:
        statement += " Dense steering itself is not shown to gain anything, so there is little to match."
    return Claim(name, _verdict(findings), statement, findings)


def _entropy_beats_random(comparison: Comparison, measure: Measure) -> Claim:
    findings = _against(
        comparison, measure, "entropy", lambda one: comparison.find("random", one.method.ratio), _better
    )
    statement = _where(findings, "Better at", "At no ratio is the entropy gate shown to be better.")
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
        rivals = [*([alone] if alone is not None else []), *plain]
        own = [_finding(comparison, measure, both, rival, _better) for rival in rivals]
        # What it must beat: each of its two parts alone, best-of-N with as many replies.
        is_part = [m is alone or m.method.n == both.method.n for m in rivals]
        parts = [m.method.name for m, must in zip(rivals, is_part, strict=True) if must]
        against_parts = [finding for finding, must in zip(own, is_part, strict=True) if must]
        statements.append(_composition(both, parts, against_parts))
        findings += own
        needed += against_parts
    return Claim(name, _verdict(needed), " ".join(statements), tuple(findings))


def _composition(both: Measured, parts: Sequence[str], findings: Sequence[Finding]) -> str:
    subject = f"{_capital(both.method.name)} must beat each of its parts alone"
    if not parts:
        return f"{subject}, of which none was measured."
    does = sum(finding.supports for finding in findings)
    outcome = "it does" if does == len(parts) else ("it does in part" if does else "it is not shown to")
    return f"{subject}, {' and '.join(parts)}: {outcome}."


def _against(
    comparison: Comparison,
    measure: Measure,
    kind: str,
    rival_of: Callable[[Measured], Measured | None],
    outcome: Callable[[Interval], tuple[str, bool]],
) -> tuple[Finding, ...]:
    """Each gate of a kind, alone, against its rival."""
    findings = []
    for one in comparison.measured:
        rival = rival_of(one) if one.method.kind == kind and one.method.n == 1 else None
        if rival is not None:
            findings.append(_finding(comparison, measure, one, rival, outcome))
    return tuple(findings)


def _finding(
    comparison: Comparison,
    measure: Measure,
    one: Measured,
    rival: Measured,
    outcome: Callable[[Interval], tuple[str, bool]],
) -> Finding:
    found = comparison.difference(one, rival, measure)
    return Finding(f"{one.method.name} against {rival.method.name}", found, *outcome(found))


def _better(found: Interval) -> tuple[str, bool]:
    if found.low > 0:
        return "better", True
    return ("worse", False) if found.high < 0 else ("no difference shown", False)


def _verdict(findings: Sequence[Finding]) -> Verdict:
    if not findings:
        return "was not tested"
    supporting = sum(finding.supports for finding in findings)
    if supporting == len(findings):
        return "holds"
    if supporting:
        return "holds in part"
    reversed_ = all(finding.difference.high < 0 for finding in findings)
    return "does not hold" if reversed_ else "is not shown"


def _where(findings: Sequence[Finding], some: str, none: str) -> str:
    supporting = [finding.what.partition(" against ")[0] for finding in findings if finding.supports]
    if not supporting:
        return none
    others = [finding.what.partition(" against ")[0] for finding in findings if not finding.supports]
    return f"{some} {', '.join(supporting)}" + (f"; not at {', '.join(others)}." if others else ".")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
