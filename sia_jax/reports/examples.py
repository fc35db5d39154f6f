"""Which prompts stand for all of them, where two ways to reply are shown side by side, and how they look."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sia_jax.evaluation.methods import Method
from sia_jax.files.shown import shown


@dataclass(frozen=True)
class Example:
    """A prompt, and what two ways make of it."""

    prompt: str
    base: str
    """The policy's own reply."""
    steered: str
    base_reward: float
    steered_reward: float


def example_methods(methods: Sequence[Method]) -> tuple[Method, Method]:
    """The policy alone, and what is shown beside it: the entropy gate nearest to 20%, or dense steering.

    Args:
      methods: of a comparison.

    Raises:
      ValueError: one of the two is not there.
    """
    plain = [method for method in methods if method.is_plain]
    base = [method for method in plain if method.kind == "base"]
    gated = sorted(
        (method for method in plain if method.kind == "entropy"),
        key=lambda method: abs((method.ratio or 0.0) - 0.2),
    )
    steered = gated or [method for method in plain if method.kind == "dense"]
    if not base or not steered:
        raise ValueError(
            "examples are replies of the policy alone beside those of an entropy gate or of dense steering, "
            f"got the methods {', '.join(method.name for method in methods)}; add base, and entropy or dense"
        )
    return base[0], steered[0]


def examples_of(
    prompts: Sequence[str],
    base: Sequence[Mapping[str, Any]],
    steered: Sequence[Mapping[str, Any]],
    measure: str,
) -> list[Example]:
    """The pairs of replies that both have a reward.

    Args:
      prompts: their texts.
      base: the records of the policy alone, one a prompt, under one seed.
      steered: those of a method, likewise.
      measure: "gold" or "proxy".
    """
    return [
        Example(prompt, one["text"], other["text"], one[measure], other[measure])
        for prompt, one, other in zip(prompts, base, steered, strict=True)
        if one[measure] is not None and other[measure] is not None
    ]


def examples_section(
    examples: Sequence[Example], count: int, *, measure: str, steered: str, chosen_from: str
) -> str:
    """Markdown: some examples in full, chosen by `choose_shown`.

    Args:
      examples: all that there are.
      count: how many are shown, at most.
      measure: whose rewards they are chosen by, such as "gold".
      steered: what the steered method is called.
      chosen_from: what all the examples are, for the reader.
    """
    count = min(count, len(examples))
    base, sparse = ([getattr(one, name) for one in examples] for name in ("base_reward", "steered_reward"))
    chosen = choose_shown(base, sparse, count, measure=measure, steered=steered)
    parts = [
        f"## {count} prompt{'s' * (count != 1)} with replies in full\n",
        f"Chosen from {chosen_from} by the {measure} reward of {steered} less that of the policy alone: by "
        "turns the largest gain, the one in the middle and the largest loss that are left.\n",
    ]
    for place, why in chosen.items():
        one = examples[place]
        parts.append(f"**{why[0].upper()}{why[1:]}.** The prompt:\n\n{_fenced(one.prompt)}\n")
        parts.append(f"The policy alone:\n\n{_fenced(one.base)}\n")
        parts.append(f"{steered[0].upper()}{steered[1:]}:\n\n{_fenced(one.steered)}\n")
    return "\n".join(parts)


def _fenced(text: str) -> str:
    """A block of code, whose fence is longer than any run of backquotes or tildes in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown(text)}\n{fence}"


def choose_shown(
    base: Sequence[float],
    sparse: Sequence[float],
    count: int,
    *,
    measure: str = "gold",
    steered: str = "sparse steering",
) -> dict[int, str]:
    """Which prompts are shown, in their order, and why: gains, middle and losses by turns, most first.

    A prompt is shown once; of equal differences the first prompt comes first.

    Args:
      base: rewards of the policy alone, by prompt.
      sparse: those of sparse steering.
      count: at most as many as prompts.
      measure: what the rewards are called.
      steered: what the steering is called.
    """
    gains = [after - before for before, after in zip(base, sparse, strict=True)]
    order = sorted(range(len(gains)), key=lambda i: (-gains[i], i))
    middle = (len(order) - 1) / 2
    queues = {
        "a large gain": order,
        "a gain in the middle": sorted(order, key=lambda i: (abs(order.index(i) - middle), i)),
        "a large loss": sorted(order, key=lambda i: (gains[i], i)),
    }
    chosen: dict[str, list[int]] = {name: [] for name in queues}
    left = set(order)
    for turn in range(count):
        name = list(queues)[turn % len(queues)]
        place = next(i for i in queues[name] if i in left)
        left.remove(place)
        chosen[name].append(place)
    return {
        place: f"{_kind(name, number, gains[place])}: {measure} {base[place]:+.1f} alone, "
        f"{sparse[place]:+.1f} with {steered} ({gains[place]:+.1f})"
        for name, places in chosen.items()
        for number, place in enumerate(places)
    }


def _kind(name: str, number: int, gain: float) -> str:
    """'the largest gain', or what else it is: where all gain, the last is no loss."""
    if name == "a gain in the middle":
        return "the median gain" if number == 0 else "near the median gain"
    sign = gain > 0 if name == "a large gain" else gain < 0
    which = "gain" if (name == "a large gain") == sign else "loss"
    if gain == 0:
        return "no change"
    if sign:
        return f"the largest {which}" if number == 0 else f"a large {which}"
    return f"among the {'largest' if name == 'a large gain' else 'smallest'} gains"
