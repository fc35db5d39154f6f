"""What is compared: the policy alone, steering everywhere, at junctions or at random, best-of-N, searches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from sia_jax.evaluation.search.methods import ChunkBeam, SearchMethod
from sia_jax.steering.gates import Bernoulli, Entropy, Gate

Kind = Literal["base", "dense", "entropy", "random"]
Chooser = Literal["value", "reward"]
"""What picks among N replies: the value of the last token, or the reward model."""

Group = Literal["base", "best-of", "search", "dense", "entropy", "random", "combined"]
"""What is asked for by name: best-of and search are the policy's, combined is an entropy gate's."""

GROUPS: tuple[Group, ...] = get_args(Group)

NEED_THRESHOLDS: tuple[Group, ...] = ("entropy", "combined")


def gate_at(rate: float) -> Gate:
    """H >= threshold, or else with a probability of `rate`: an entropy gate, a random or a dense one.

    One expression, so that one program serves every steered method.
    """
    return Entropy() | Bernoulli(rate)


SCHEDULES = (0.2, 0.5, 1.0)
"""Shares of junctions that programs are laid out for (`SamplerConfig.auto`); a method takes the next one."""


class GateNumbers(NamedTuple):
    """What the gate of a method is told: steer where H >= threshold, or else with a probability of `rate`."""

    threshold: float
    rate: float = 0.0


@dataclass(frozen=True)
class Method:
    """One way to make a reply."""

    kind: Kind
    ratio: float | None = None
    """Share of steered tokens that is asked for; of entropy and random gates."""
    n: int = 1
    """Replies that are sampled, of which one is chosen."""
    chooser: Chooser | None = None
    """Of n, or of a search; None if there is nothing to choose."""
    search: SearchMethod | None = None
    """How a reply is put together of what is drawn; None: it is drawn as it is."""

    def __post_init__(self) -> None:
        if (self.kind in ("entropy", "random")) != (self.ratio is not None):
            raise ValueError(f"entropy and random gates have a ratio, the others none, got {self}")
        chosen = self.n > 1 or self.search is not None
        if self.n < 1 or chosen != (self.chooser is not None) or (self.n > 1 and self.search is not None):
            raise ValueError(f"a chooser belongs to n of 2 or more, or to a search, got {self}")
        if self.search is not None and not isinstance(self.search, ChunkBeam) and self.kind != "base":
            raise ValueError(
                f"{self.search.name} chooses every token itself, and is of the policy alone, got {self}"
            )

    @property
    def key(self) -> str:
        """Its name in files: "entropy-0.2-best-of-4-by-value"."""
        ratio = "" if self.ratio is None else f"-{self.ratio:g}"
        if self.search is not None:
            return f"{self.kind}{ratio}-{self.search.key}-by-{self.chooser}"
        return f"{self.kind}{ratio}" + (f"-best-of-{self.n}-by-{self.chooser}" if self.n > 1 else "")

    @property
    def name(self) -> str:
        """Its name in tables: "entropy 20%, best of 4 by value"."""
        ratio = "" if self.ratio is None else f" {100 * self.ratio:.4g}%"
        if self.search is not None:
            gate = "" if self.kind == "base" else f"{self.kind}{ratio}, "
            return f"{gate}{self.search.name} by {self.chooser}"
        return f"{self.kind}{ratio}" + (f", best of {self.n} by {self.chooser}" if self.n > 1 else "")

    @property
    def is_plain(self) -> bool:
        """Whether one reply is drawn, and is the one that is given."""
        return self.n == 1 and self.search is None

    @property
    def is_steered(self) -> bool:
        """Whether the value model steers."""
        return self.kind != "base"

    @property
    def work(self) -> float:
        """What a reply costs, roughly, in unsteered replies: to tell when a run is done."""
        replies = self.n if self.search is None else self.search.work
        return replies * (1 + 3 * self.schedule * self.is_steered)

    @property
    def schedule(self) -> float:
        """The share of junctions that its program is laid out for."""
        share = 1.0 if self.ratio is None else self.ratio
        return next(size for size in SCHEDULES if size >= share)


def plan_methods(
    ratios: Sequence[float],
    best_of: Sequence[int] = (),
    combined: tuple[float, int] | None = None,
    base_chooser: Chooser = "reward",
    combined_choosers: Sequence[Chooser] = ("reward", "value"),
    groups: Sequence[Group] = GROUPS,
    searches: Sequence[SearchMethod] = (),
) -> list[Method]:
    """The methods of a comparison, each random gate after the entropy gate whose share it takes.

    Args:
      ratios: of the entropy and random gates; none where no such gate is asked for.
      best_of: numbers of replies that the policy alone chooses among.
      combined: (ratio, n) of an entropy gate with best-of-n; None: none.
      base_chooser: of the policy alone.
      combined_choosers: of the combination, which is measured with each.
      groups: what is asked for.
      searches: of the policy alone, and those in chunks also of the entropy gate of the combination.

    Raises:
      ValueError: a group, a ratio, an n, a search or a chooser that does not fit, or one that stands there
        twice.
    """
    if not groups or set(groups) - set(GROUPS) or len(set(groups)) < len(groups):
        raise ValueError(f"methods must be different ones of {', '.join(GROUPS)}, got {list(groups)}")
    gated = [group for group in groups if group in ("entropy", "random", "combined")]
    if any(not 0 < ratio < 1 for ratio in ratios) or len(set(ratios)) < len(ratios) or (gated and not ratios):
        raise ValueError(
            f"ratios must lie between 0 and 1, be different and at least one, got {list(ratios)}"
        )
    if any(n < 2 for n in best_of) or len(set(best_of)) < len(best_of):
        raise ValueError(f"best-of-n needs n of 2 or more, each once, got {list(best_of)}")
    if len(set(searches)) < len(searches):
        raise ValueError(f"the searches must be different, got {[search.key for search in searches]}")
    ratios = sorted(ratios)
    parts: dict[Group, list[Method]] = {
        "base": [Method("base")],
        "best-of": [Method("base", n=n, chooser=base_chooser) for n in sorted(best_of)],
        "search": [
            Method("base", chooser=base_chooser if isinstance(search, ChunkBeam) else "reward", search=search)
            for search in searches
        ],
        "dense": [Method("dense")],
        "entropy": [Method("entropy", ratio) for ratio in ratios],
        "random": [Method("random", ratio) for ratio in ratios],
        "combined": [],
    }
    if combined is not None and "combined" in groups:
        ratio, n = combined
        if ratio not in ratios:
            raise ValueError(f"there is no threshold for a ratio of {ratio:g}, only for {ratios}")
        if not combined_choosers or len(set(combined_choosers)) < len(combined_choosers):
            raise ValueError(
                f"the choosers must be different and at least one, got {list(combined_choosers)}"
            )
        parts["combined"] = [Method("entropy", ratio, n, chooser) for chooser in combined_choosers]
        parts["combined"] += [
            Method("entropy", ratio, chooser=chooser, search=search)
            for search in searches
            if isinstance(search, ChunkBeam)
            for chooser in combined_choosers
        ]
    methods = [method for group in GROUPS if group in groups for method in parts[group]]
    if not methods:
        raise ValueError(f"there is nothing to measure: {', '.join(groups)} with no n to choose among")
    return methods


def gate_numbers(method: Method, threshold: float | None, realised: float | None) -> GateNumbers:
    """The gate of a method.

    Args:
      method: any.
      threshold: calibrated for its ratio, nats; of entropy gates.
      realised: the probability of random gates: the share that the entropy gate of their ratio has steered.
    """
    if method.kind == "entropy":
        assert threshold is not None
        return GateNumbers(threshold)
    if method.kind == "random":
        assert realised is not None
        return GateNumbers(math.inf, realised)
    return GateNumbers(-math.inf if method.kind == "dense" else math.inf)


def plan_text(methods: Sequence[Method], seeds: int, prompts: int) -> str:
    """What will be done: '3 methods x 2 seeds x 5 prompts = 30 replies: base; dense; ...'.

    Args:
      methods: of the comparison.
      seeds: how many.
      prompts: how many.
    """
    replies = len(methods) * seeds * prompts
    sampled = sum(method.n for method in methods) * seeds * prompts
    more = f", for which {sampled:,} are sampled" if sampled > replies else ""
    if any(method.search is not None for method in methods):
        more += ", and the drafts of searches"
    names = "; ".join(method.name for method in methods)
    return (
        f"{_count(len(methods), 'method')} x {_count(seeds, 'seed')} x {_count(prompts, 'prompt')} = "
        f"{replies:,} replies{more}: {names}."
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
