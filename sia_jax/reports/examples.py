"""Which prompts stand for all of them, where two ways to reply are shown side by side."""

from collections.abc import Sequence


def choose_shown(base: Sequence[float], sparse: Sequence[float], count: int) -> dict[int, str]:
    """Which prompts are shown, in their order, and why: gains, middle and losses by turns, most first.

    A prompt is shown once; of equal differences the first prompt comes first.

    Args:
      base: gold rewards of the policy alone, by prompt.
      sparse: those of sparse steering.
      count: at most as many as prompts.
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
        place: f"{_kind(name, number, gains[place])}: gold {base[place]:+.1f} alone, "
        f"{sparse[place]:+.1f} with sparse steering ({gains[place]:+.1f})"
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
