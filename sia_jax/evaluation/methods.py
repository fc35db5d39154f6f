"""What is compared: the policy alone, steering everywhere, by a gate or at random, best-of-N, searches."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sia_jax.evaluation.gate_numbers import GateNumbers
from sia_jax.evaluation.search.methods import ChunkBeam, SearchMethod

GateKind = Literal["entropy", "entropy-ratio", "position", "budget", "learned"]
"""A gate whose numbers are calibrated for a share of the tokens."""

Kind = Literal["base", "dense", "random"] | GateKind
Chooser = Literal["value", "reward"]
"""What picks among N replies: the value of the last token, or the reward model."""

Group = Literal[
    "base",
    "best-of",
    "search",
    "dense",
    "entropy",
    "random",
    "entropy-ratio",
    "position",
    "budget",
    "learned",
    "combined",
]
"""What is asked for by name: best-of and search are the policy's, combined is an entropy gate's."""

GROUPS: tuple[Group, ...] = get_args(Group)

DEFAULT_GROUPS: tuple[Group, ...] = ("base", "best-of", "search", "dense", "entropy", "random", "combined")
"""What is compared where nothing else is asked for."""

GATES: tuple[GateKind, ...] = get_args(GateKind)

NEED_THRESHOLDS: tuple[Group, ...] = (*GATES, "combined")

WITH_BOUNDS: tuple[Group, ...] = ("dense", "entropy")
"""What there is under a bounded tilt too."""

SCHEDULES = (0.2, 0.5, 1.0)
"""Shares of junctions that programs are laid out for (`SamplerConfig.auto`); a method takes the next one."""


@dataclass(frozen=True)
class Method:
    """One way to make a reply."""

    kind: Kind
    ratio: float | None = None
    """Share of steered tokens that is asked for; of random and calibrated gates."""
    n: int = 1
    """Replies that are sampled, of which one is chosen."""
    chooser: Chooser | None = None
    """Of n, or of a search; None if there is nothing to choose."""
    search: SearchMethod | None = None
    """How a reply is put together of what is drawn; None: it is drawn as it is."""
    bound: float | None = None
    """Nats that bound the tilt, under which contenders alone are read; None: the run's own tilt."""

    def __post_init__(self) -> None:
        if (self.kind in ("random", *GATES)) != (self.ratio is not None):
            raise ValueError(f"gates have a ratio, base and dense steering none, got {self}")
        chosen = self.n > 1 or self.search is not None
        if self.n < 1 or chosen != (self.chooser is not None) or (self.n > 1 and self.search is not None):
            raise ValueError(f"a chooser belongs to n of 2 or more, or to a search, got {self}")
        if self.search is not None and not isinstance(self.search, ChunkBeam) and self.kind != "base":
            raise ValueError(
                f"{self.search.name} chooses every token itself, and is of the policy alone, got {self}"
            )
        if self.bound is None:
            return
        if self.kind not in WITH_BOUNDS or chosen or not 0 < self.bound < math.inf:
            raise ValueError(
                f"a bound, over 0 and finite, is of plain {' or '.join(WITH_BOUNDS)} steering, got {self}"
            )

    @property
    def key(self) -> str:
        """Its name in files: "entropy-0.2-best-of-4-by-value"."""
        gate = self.kind if self.ratio is None else f"{self.kind}-{self.ratio:g}"
        if self.search is not None:
            return f"{gate}-{self.search.key}-by-{self.chooser}"
        if self.bound is not None:
            return f"{gate}-bound-{self.bound:g}"
        return gate + (f"-best-of-{self.n}-by-{self.chooser}" if self.n > 1 else "")

    @property
    def name(self) -> str:
        """Its name in tables: "entropy 20%, best of 4 by value"."""
        ratio = "" if self.ratio is None else f" {100 * self.ratio:.4g}%"
        gate = f"{self.kind.replace('-', ' ')}{ratio}"
        if self.search is not None:
            return ("" if self.kind == "base" else f"{gate}, ") + f"{self.search.name} by {self.chooser}"
        if self.bound is not None:
            return f"{gate}, contenders at {self.bound:g}"
        return gate + (f", best of {self.n} by {self.chooser}" if self.n > 1 else "")

    @property
    def is_plain(self) -> bool:
        """Whether one reply is drawn, under the run's own tilt, and is the one that is given."""
        return self.n == 1 and self.search is None and self.bound is None

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
    groups: Sequence[Group] = DEFAULT_GROUPS,
    searches: Sequence[SearchMethod] = (),
    bounds: Sequence[float] = (),
) -> list[Method]:
    """The methods of a comparison, each random gate after the entropy gate whose share it takes.

    Args:
      ratios: of random and calibrated gates; none where no such gate is asked for.
      best_of: numbers of replies that the policy alone chooses among.
      combined: (ratio, n) of an entropy gate with best-of-n; None: none.
      base_chooser: of the policy alone.
      combined_choosers: of the combination, which is measured with each.
      groups: what is asked for.
      searches: of the policy alone, and those in chunks also of the entropy gate of the combination.
      bounds: of the tilt, nats: dense and entropy steering under each, beside those without.

    Raises:
      ValueError: a group, a ratio, an n, a search, a chooser or a bound that does not fit, or one that stands
        there twice.
    """
    if not groups or set(groups) - set(GROUPS) or len(set(groups)) < len(groups):
        raise ValueError(f"methods must be different ones of {', '.join(GROUPS)}, got {list(groups)}")
    gated = [group for group in groups if group in ("random", *NEED_THRESHOLDS)]
    if any(not 0 < ratio < 1 for ratio in ratios) or len(set(ratios)) < len(ratios) or (gated and not ratios):
        raise ValueError(
            f"ratios must lie between 0 and 1, be different and at least one, got {list(ratios)}"
        )
    if any(n < 2 for n in best_of) or len(set(best_of)) < len(best_of):
        raise ValueError(f"best-of-n needs n of 2 or more, each once, got {list(best_of)}")
    if len(set(searches)) < len(searches):
        raise ValueError(f"the searches must be different, got {[search.key for search in searches]}")
    if any(not 0 < bound < math.inf for bound in bounds) or len(set(bounds)) < len(bounds):
        raise ValueError(f"bounds must be different, over 0 and finite, got {list(bounds)}")
    if bounds and not set(groups) & set(WITH_BOUNDS):
        raise ValueError(f"bounds are for the methods {' and '.join(WITH_BOUNDS)}, got {', '.join(groups)}")
    ratios, bounds = sorted(ratios), sorted(bounds)
    parts: dict[Group, list[Method]] = {
        "base": [Method("base")],
        "best-of": [Method("base", n=n, chooser=base_chooser) for n in sorted(best_of)],
        "search": [
            Method("base", chooser=base_chooser if isinstance(search, ChunkBeam) else "reward", search=search)
            for search in searches
        ],
        "dense": [Method("dense"), *(Method("dense", bound=bound) for bound in bounds)],
        "random": [Method("random", ratio) for ratio in ratios],
        "combined": [],
    }
    for kind in GATES:
        parts[kind] = [Method(kind, ratio) for ratio in ratios]
    parts["entropy"] += [Method("entropy", ratio, bound=bound) for bound in bounds for ratio in ratios]
    if combined is not None and "combined" in groups:
        parts["combined"] = _combined(*combined, ratios, combined_choosers, searches)
    methods = [method for group in GROUPS if group in groups for method in parts[group]]
    if not methods:
        raise ValueError(f"there is nothing to measure: {', '.join(groups)} with no n to choose among")
    return methods


def _combined(
    ratio: float,
    n: int,
    ratios: Sequence[float],
    choosers: Sequence[Chooser],
    searches: Sequence[SearchMethod],
) -> list[Method]:
    """An entropy gate with best-of-n, and with the searches in chunks; see `plan_methods`."""
    if ratio not in ratios:
        raise ValueError(f"there is no threshold for a ratio of {ratio:g}, only for {ratios}")
    if not choosers or len(set(choosers)) < len(choosers):
        raise ValueError(f"the choosers must be different and at least one, got {list(choosers)}")
    return [Method("entropy", ratio, n, chooser) for chooser in choosers] + [
        Method("entropy", ratio, chooser=chooser, search=search)
        for search in searches
        if isinstance(search, ChunkBeam)
        for chooser in choosers
    ]


CalibratedGates = Mapping[GateKind, Mapping[float, GateNumbers]]
"""By gate and ratio; a gate without numbers is missing."""


def gate_numbers(method: Method, calibrated: CalibratedGates, realised: float | None) -> GateNumbers:
    """The gate of a method.

    Args:
      method: any.
      calibrated: of its kind and ratio, where it is of `GATES`.
      realised: the probability of random gates: the share that the entropy gate of their ratio has steered.
    """
    if method.kind == "base":
        return GateNumbers()
    if method.kind == "dense":
        return GateNumbers(-math.inf)
    if method.kind == "random":
        assert realised is not None
        return GateNumbers(rate=realised)
    assert method.ratio is not None
    return calibrated[method.kind][method.ratio]


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
