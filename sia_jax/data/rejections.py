"""Rows that are left out: counted by reason, never without a word."""

from dataclasses import dataclass, field
from typing import Any

EXAMPLES = 5
"""Places that are named for each reason."""


@dataclass
class Rejections:
    """How many rows were left out for each reason, and where the first of them are."""

    counts: dict[str, int] = field(default_factory=dict)
    places: dict[str, list[int | str]] = field(default_factory=dict)

    def add(self, reason: str, place: int | str) -> None:
        """Count a row; `place` is its number, or its file and number."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        first = self.places.setdefault(reason, [])
        if len(first) < EXAMPLES:
            first.append(place)

    @property
    def total(self) -> int:
        """Rows, of all reasons."""
        return sum(self.counts.values())

    def to_json(self) -> dict[str, Any]:
        """{reason: {"count": 3, "first": [...]}}, the most frequent reason first."""
        order = sorted(self.counts, key=lambda reason: (-self.counts[reason], reason))
        return {reason: {"count": self.counts[reason], "first": self.places[reason]} for reason in order}

    def describe(self) -> str:
        """'no reply: 3 (a.jsonl, line 2; ...); empty prompt: 1 (...)'; '' if there are none."""
        parts = []
        for reason, found in self.to_json().items():
            more = ["..."] if found["count"] > len(found["first"]) else []
            parts.append(f"{reason}: {found['count']:,} ({'; '.join(map(str, [*found['first'], *more]))})")
        return "; ".join(parts)
