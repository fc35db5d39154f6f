"""Evaluations beside one another: a table, a picture and a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sia_jax.evaluation.comparison import Measure
from sia_jax.evaluation.side_by_side import Entry, SideBySide
from sia_jax.evaluation.statistics import LEVEL
from sia_jax.files.shown import shown
from sia_jax.files.writing import make_folder, replacing
from sia_jax.reports import markdown

_EXPLANATIONS = (
    f"Intervals are of {LEVEL:.0%}, over prompts, each with its replies under all seeds; differences are "
    "paired, and nothing is corrected for their number. Contenders are candidates of a steered token that "
    "may win under a bounded tilt, whatever the values; values a token are those read for each sampled "
    "token, and decided without the share of steered tokens at which one alone contended. Matched is what is "
    "shown to keep nine tenths of the other's gain over the base. FLOPs are of all models, without padding. "
    "Tokens/s are of one machine and one run each: a few hundredths are noise. In the picture filled marks "
    "are dense, empty ones entropy-gated, white ones the policy alone.\n"
)
_COLOURS = ("#1f6fb4", "#d9822b", "#7b3fa0", "#2e8b57", "#b03060", "#555555", "#0b7a75", "#a05d1a")


def table(found: SideBySide, rivals: Sequence[Entry]) -> str:
    """The Markdown table of all entries, each against the rivals.

    Args:
      found: the evaluations.
      rivals: of each a difference of the first measure, and a ratio of tokens/s.
    """
    main, names = found.measures[0], found.differing
    columns = ["evaluation", *names, "method", f"{main} reward"]
    columns += [f"minus {rival.key}" for rival in rivals]
    columns += [f"{measure} reward" for measure in found.measures[1:]]
    columns += ["steered", "contenders", "values a token", "decided without"]
    columns += ["MFLOP a token", "tokens/s"]
    columns += [f"/ {rival.key}" for rival in rivals]
    lines = []
    for entry in found.entries:
        one, speed = entry.measured, entry.tokens_per_second
        steered = one.method.is_steered
        lines.append(
            [
                _cell(entry.folder),
                *(_cell(entry.settings.get(name)) for name in names),
                one.method.name,
                found.mean(entry, main).text(),
                *(
                    "" if rival is entry else found.difference(entry, rival, main).text(signed=True)
                    for rival in rivals
                ),
                *(found.mean(entry, measure).text() for measure in found.measures[1:]),
                f"{one.ratio:.1%}" if steered else "",
                _number(entry.contenders),
                _number(one.values_per_token) if steered else "",
                f"{one.decided:.0%}" if steered and one.decided else "",
                f"{entry.flops_per_token / 1e6:.2f}",
                "" if speed is None else f"{speed:,.0f}",
                *(_number(_ratio(speed, rival.tokens_per_second)) for rival in rivals),
            ]
        )
    return markdown.table(columns, lines, labels=len(names) + 2)


def verdicts(found: SideBySide, rivals: Sequence[Entry]) -> str:
    """What matches each rival, and at how many tokens/s, as Markdown: computed from the intervals alone."""
    parts, main = [], found.measures[0]
    for rival in rivals:
        lines, faster = [], []
        for entry in found.entries:
            if entry is rival or not entry.measured.method.is_steered:
                continue
            outcomes = {measure: _outcome(found, entry, rival, measure) for measure in found.measures}
            speed = _ratio(entry.tokens_per_second, rival.tokens_per_second)
            times = "" if speed is None else f", at {speed:.2f} times its tokens/s"
            said = ", ".join(f"{measure} {word} ({why})" for measure, (word, why) in outcomes.items())
            lines.append(f"- {entry.key}: {said}{times}\n")
            if speed is not None and speed > 1 and outcomes[main][0] in ("better", "matched"):
                faster.append(entry.key)
        parts.append(
            f"### Against {rival.key}\n\nMatched or beaten on {main} reward, at more tokens/s, by: "
            f"{', '.join(faster) or 'none'}.\n\n{''.join(lines)}"
        )
    return "\n".join(parts)


def pairs_table(found: SideBySide, pairs: Sequence[tuple[Entry, Entry]]) -> str:
    """The Markdown table of single differences.

    Args:
      found: the evaluations.
      pairs: of each, the first minus the second.
    """
    lines = []
    for one, other in pairs:
        differences = [found.difference(one, other, measure).text(signed=True) for measure in found.measures]
        speed = _ratio(one.tokens_per_second, other.tokens_per_second)
        lines.append([one.key, other.key, *differences, _number(speed)])
    columns = ["one", "minus", *found.measures, "tokens/s, ratio"]
    return markdown.table(columns, lines, labels=2)


def page_text(
    found: SideBySide,
    rivals: Sequence[Entry],
    pairs: Sequence[tuple[Entry, Entry]],
    *,
    title: str,
    introduction: str,
    picture: str,
    command: str,
    commit: str,
    time: str,
) -> str:
    """The Markdown page.

    Args:
      found: the evaluations.
      rivals: what all are held against.
      pairs: of `pairs_table`.
      title: of the page.
      introduction: what it begins with; may be empty.
      picture: link to it, relative to the page.
      command: by which the page is made.
      commit: at which it is.
      time: when.
    """
    settings, records = found.entries[0].settings, found.entries[0].measured.records
    seeds = sorted({record["seed"] for record in records})
    made = (
        f"policy `{settings['policy']}`, reward model `{settings['reward']}`, "
        f"{len(records) // len(seeds)} prompts (sha256 {str(settings['prompts_sha256'])[:16]}), seeds "
        f"{', '.join(map(str, seeds))}: {len(records):,} replies a method",
        f"sampled at commit {', '.join(sorted(found.commits))} on {'; '.join(sorted(found.machines))}",
        f"this page: commit {commit}, {time}",
    )
    sections = [
        f"# {title}\n",
        "Made by `decode.compare`; not edited by hand.\n",
        *([introduction.rstrip() + "\n"] if introduction else []),
        "## All methods\n",
        table(found, rivals),
        _EXPLANATIONS,
        f"![Reward over tokens/s]({picture})\n",
        *(["## What matches what\n", verdicts(found, rivals)] if rivals else []),
        *(["## Differences\n", pairs_table(found, pairs)] if pairs else []),
        "## How it was made\n",
        f"```sh\n{command}\n```\n",
        "".join(f"- {line}\n" for line in made),
    ]
    return "\n".join(sections)


def draw(found: SideBySide, path: Path) -> None:
    """Reward over tokens/s with 95% intervals, a colour an evaluation, as a PNG; an old file is replaced.

    Args:
      found: the evaluations.
      path: its folder is made if need be.
    """
    from matplotlib.figure import Figure  # takes a second; without pyplot, which would look for a display

    figure = Figure(figsize=(11, 6.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    folders = list(dict.fromkeys(entry.folder for entry in found.entries))
    for place, folder in enumerate(folders):
        own = [entry for entry in found.entries if entry.folder == folder and entry.tokens_per_second]
        _points(axes, found, own, _COLOURS[place % len(_COLOURS)], "osD^v<>P*X"[place // len(_COLOURS) % 10])
    axes.set(xlabel="tokens/s", ylabel=f"{found.measures[0]} reward")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:  # none, where all ran for too short a time to tell a rate
        figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    make_folder(path.parent)
    with replacing(path) as new:
        figure.savefig(new, format="png")


def _points(axes: Any, found: SideBySide, own: Sequence[Entry], colour: str, marker: str) -> None:
    label: str | None = own[0].folder if own else None
    for entry in own:
        reward = found.mean(entry, found.measures[0])
        ends = (reward.mean - reward.low, reward.high - reward.mean) if reward.is_known else (0.0, 0.0)
        method = entry.measured.method
        filled = "none" if method.kind == "entropy" else (colour if method.kind == "dense" else "white")
        axes.errorbar(
            [entry.tokens_per_second],
            [reward.mean],
            yerr=([ends[0]], [ends[1]]),
            fmt=marker,
            color=colour,
            markerfacecolor=filled,
            markersize=7,
            capsize=2,
            linewidth=1.1,
            label=label,
        )
        label = None


def _outcome(found: SideBySide, entry: Entry, rival: Entry, measure: Measure) -> tuple[str, str]:
    """('matched', and the intervals that say so)."""
    difference = found.difference(entry, rival, measure)
    text = difference.text(signed=True, digits=3)
    if difference.is_known and difference.low > 0:
        return "better", text
    kept = found.kept(entry, rival, measure)
    if kept is not None and kept.is_known:
        beyond = f"{text}; {kept.text(signed=True, digits=3)} beyond nine tenths of the gain"
        if kept.low >= 0:
            return "matched", beyond
        return ("worse" if kept.high < 0 else "undecided"), beyond
    return ("worse" if difference.is_known and difference.high < 0 else "undecided"), text


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one and other else None


def _number(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}"


def _cell(value: Any) -> str:
    """A setting, which stands in a file that may be anybody's."""
    if value is None:
        return ""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return shown(" ".join(text.split()))[:60].replace("|", "\\|")
