"""A comparison of methods as a table, a picture and a page, all made from what `results.json` holds."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sia_jax.evaluation.methods import SCHEDULES
from sia_jax.evaluation.statistics import Interval
from sia_jax.files.writing import make_folder, replacing

Results = Mapping[str, Any]
"""What `decode.evaluate` writes to results.json."""

_TITLES = {
    "gold": "gold reward (a program that reads the text)",
    "proxy": "proxy reward (the reward model's)",
}
_COLOURS = {
    "entropy": "#1f6fb4",
    "random": "#d9822b",
    "dense": "#7b3fa0",
    "base": "#555555",
    "n": "#2e8b57",
    "steered n": "#b03060",
}


def evaluation_table(results: Results) -> str:
    """The Markdown table of all methods.

    Args:
      results: of a comparison.
    """
    measures = results["measures"]
    main = measures[0]
    columns = ["method", "setting", "steered", f"{main} reward", "minus base", "minus dense"]
    columns += [f"{measure} reward" for measure in measures[1:]]
    columns += ["tokens/s, by seed", *(f"{model}, MFLOP a token" for model in ("policy", "value", "reward"))]
    columns.append("tokens a reply")
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1)]
    for row in results["rows"]:
        differences = row["differences"]
        flops = row["flops_per_token"]
        lines.append(
            [
                row["name"],
                setting(row),
                f"{row['ratio']:.1%}" if row["kind"] != "base" else "",
                Interval(**row["rewards"][main]).text(),
                *(
                    Interval(**differences[rival][main]).text(signed=True) if rival in differences else ""
                    for rival in ("base", "dense")
                ),
                *(Interval(**row["rewards"][measure]).text() for measure in measures[1:]),
                _rates(row["tokens_per_second_by_seed"]),
                *(
                    f"{flops[model] / 1e6:,.3g}" if flops[model] else ""
                    for model in ("policy", "value", "reward")
                ),
                f"{row['length']:.1f}",
            ]
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def setting(row: Mapping[str, Any]) -> str:
    """'H ≥ 1.21 nats', 'p = 0.193', 'every token, chosen by the reward model'."""
    parts = []
    if row["kind"] == "entropy":
        parts.append(f"H ≥ {row['threshold']:.3g} nats")
    elif row["kind"] == "random":
        rates = sorted({f"{rate:.3f}" for rate in (row["rates"][0], row["rates"][-1])})
        parts.append(f"p = {' to '.join(rates)}")
    elif row["kind"] == "dense":
        parts.append("every token")
    if row["chooser"] is not None:
        chooser = {"value": "the last value", "reward": "the reward model"}[row["chooser"]]
        parts.append(f"chosen by {chooser}")
    return ", ".join(parts)


def _rates(rates: Sequence[float]) -> str:
    """'950 to 1,400': the slowest and the fastest, to two digits."""
    ends = [float(f"{rate:.2g}") for rate in (min(rates), max(rates))]
    return " to ".join(dict.fromkeys(f"{end:,.{0 if end >= 10 else 1}f}" for end in ends))


def claims_text(results: Results) -> str:
    """The claims and their evidence, measure by measure, as Markdown."""
    parts = []
    for measure in results["measures"]:
        parts.append(f"### On the {_TITLES[measure]}\n")
        for number, claim in enumerate(results["claims"][measure], start=1):
            parts.append(f"{number}. **{claim['name']}: {claim['verdict']}.** {claim['statement']}\n")
            parts.append("".join(f"   - {finding}\n" for finding in claim["findings"]))
    return "\n".join(parts)


def draw_pareto(results: Results, path: Path) -> None:
    """Reward over the share of steered tokens, with 95% intervals, as a PNG; an old file is replaced.

    Args:
      results: of a comparison.
      path: its folder is made if need be.
    """
    # Imported here because it takes a second; without pyplot, which would look for a display.
    from matplotlib.figure import Figure

    measures = results["measures"]
    figure = Figure(figsize=(1 + 5.5 * len(measures), 5), dpi=120, layout="constrained")
    for place, measure in enumerate(measures):
        axes = figure.add_subplot(1, len(measures), place + 1)
        _draw(axes, results["rows"], measure)
        if place == 0:
            axes.legend(frameon=False, fontsize="small", loc="best")
    make_folder(path.parent)
    with replacing(path) as new:
        figure.savefig(new, format="png")


def _draw(axes: Any, rows: Sequence[Mapping[str, Any]], measure: str) -> None:
    def points(chosen: Sequence[Mapping[str, Any]], label: str, colour: str, **style: Any) -> None:
        rewards = [row["rewards"][measure] for row in chosen]
        means = [reward["mean"] for reward in rewards]
        # The bootstrap's ends may lie on one side of the mean by rounding.
        below = [max(reward["mean"] - reward["low"], 0.0) for reward in rewards]
        above = [max(reward["high"] - reward["mean"], 0.0) for reward in rewards]
        ratios = [100 * row["ratio"] for row in chosen]
        axes.errorbar(
            ratios, means, yerr=(below, above), label=label, color=colour, capsize=3, linewidth=1.4, **style
        )

    for kind, label, marker in (
        ("entropy", "entropy gate", "o-"),
        ("random", "random gate", "s--"),
        ("dense", "dense", "D"),
        ("base", "base", "o"),
    ):
        chosen = sorted((r for r in rows if r["kind"] == kind and r["n"] == 1), key=lambda r: r["ratio"])
        if chosen:
            points(chosen, label, _COLOURS[kind], fmt=marker, markersize=6)
        if chosen and kind in ("base", "dense"):
            mean = chosen[0]["rewards"][measure]["mean"]
            axes.axhline(mean, color=_COLOURS[kind], linewidth=0.8, linestyle=":", zorder=0)
    markers = iter("^vP<>X")
    for row in rows:
        if row["n"] > 1:
            colour = _COLOURS["n" if row["kind"] == "base" else "steered n"]
            points([row], row["name"], colour, fmt=next(markers, "*"), markersize=8)
    axes.set(xlabel="steered tokens, %", ylabel=_TITLES[measure], xlim=(-4, 104))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def evaluation_page(
    results: Results, *, title: str, introduction: str, picture: str, appendix: str = ""
) -> str:
    """The Markdown page of a comparison.

    Args:
      results: of a comparison.
      title: of the page.
      introduction: what was evaluated; a paragraph or none.
      picture: link to the picture, relative to the page.
      appendix: sections of another report, which come before how it was made.
    """
    settings, calibration = results["settings"], results["calibration"]
    made = [
        f"policy `{settings['policy']}` ({settings['policy_fingerprint']}), value model "
        f"`{settings['value']}` ({settings['value_fingerprint']}), reward model `{settings['reward']}` "
        f"({settings['reward_fingerprint']})",
        f"{results['prompts']['count']} prompts of `{results['prompts']['file']}` "
        f"(sha256 {results['prompts']['sha256'][:16]}), seeds {', '.join(map(str, results['seeds']))}: "
        f"{results['rows'][0]['replies']:,} replies a method",
        f"temperature {settings['temperature']:g}, beta {settings['beta']:g}, C = "
        f"{settings['num_candidates']}, at most {settings['max_new_tokens']} new tokens",
        f"thresholds of `{calibration['file']}` (sha256 {calibration['sha256'][:16]}), from "
        f"{calibration['tokens']:,} tokens of the policy's own replies to `{calibration['prompts']}`",
        f"sampled at commit {', '.join(results['commits'])} on {'; '.join(results['machines'])}",
        f"this page: commit {results['commit']}, {results['time']}",
        *(f"{what}: commit {commit}" for what, commit in results.get("world", {}).items()),
    ]
    commands = "".join(
        f"{command}\n" for command in (calibration.get("command"), results["command"]) if command
    )
    sections = [
        f"# {title}\n",
        "Made by `decode.evaluate`; not edited by hand.\n",
        *([introduction.rstrip() + "\n"] if introduction else []),
        "## What holds\n",
        "Every verdict is computed from the intervals that stand under it. An interval is that of 95% of "
        f"{results['resamples']:,} bootstrap resamples of the prompts; differences are paired, by prompt and "
        "seed, and each interval is that of its own comparison alone. A method matches dense steering if it "
        "is shown to keep nine tenths of what that gains over the base.\n",
        claims_text(results),
        "## All methods\n",
        evaluation_table(results),
        _explanations(results),
        f"![Reward over the share of steered tokens]({picture})\n",
        *([appendix.rstrip() + "\n"] if appendix else []),
        "## How it was made\n",
        f"```\n{commands}```\n" if commands else "",
        "".join(f"- {line}\n" for line in made),
    ]
    return "\n".join(section for section in sections if section)


def with_pictures_named(text: str, prefix: str) -> tuple[str, dict[str, str]]:
    """A page's text with its pictures under other names, for a place where others of that name may lie.

    Args:
      text: Markdown.
      prefix: of the new names.

    Returns:
      (text with the new links, {old link: new link}); links elsewhere on the net stay.
    """
    found = [link for link in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", text) if "://" not in link]
    names = {link: f"{prefix}{Path(link).name}" for link in found}
    for old, new in names.items():
        text = text.replace(f"]({old})", f"]({new})")
    return text, names


def _explanations(results: Results) -> str:
    rows = results["rows"]
    cut = max(rows, key=lambda row: row["cut"])
    layouts = ", ".join(f"{share:.0%}" for share in SCHEDULES)
    text = (
        "Random gates steer with the probability p that the entropy gate of their line has realised under "
        "the same seed. Tokens/s are tokens of finished replies over the time of all that a method does: "
        "every candidate of best-of-N and the pass that chooses among them, prefill, but no compiling, and "
        "not the scoring of the result; to two digits, of the slowest and the fastest seed. Where others "
        "share the machine, another run may lie outside of that. Programs are laid out for shares of "
        f"{layouts}; a method runs in "
        "the next one. FLOPs count every token that a model must read for a method, without padding, per "
        "token of the reply that is kept; the reward model's only where it chooses. "
        f"At most {cut['cut']:.1%} of a method's replies were cut by the length ({cut['name']})."
    )
    failed = [row for row in rows if row["non_finite"]]
    if failed:
        counts = ", ".join(f"{row['name']}: {row['non_finite']}" for row in failed)
        text += f" Replies that ended in numbers that were not finite: {counts}."
    return text + "\n"
