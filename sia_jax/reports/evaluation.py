"""A comparison of methods as a table, a picture and a page, all made from what `results.json` holds."""

import itertools
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from sia_jax.evaluation.claims import expected_by_chance
from sia_jax.evaluation.comparison import MEASURED_SECONDS
from sia_jax.evaluation.methods import SCHEDULES
from sia_jax.evaluation.statistics import FEWEST, FEWEST_OTHERS, Interval
from sia_jax.files import strict_json
from sia_jax.files.reading import check_file, read_bytes
from sia_jax.files.shown import shown_value
from sia_jax.files.writing import copy_file, make_folder, write_text
from sia_jax.reports import markdown
from sia_jax.reports.evaluation_pictures import copy_beside, places_beside
from sia_jax.reports.gates import equal_ratio_section, gate_text
from sia_jax.reports.likelihoods import likelihoods_section
from sia_jax.reports.measures import differences_section, texts_section
from sia_jax.reports.pictures import Picture
from sia_jax.reports.titles import reward_title

Results = Mapping[str, Any]
"""What `decode.evaluate` writes to results.json."""

_TARGET = (
    r"\]\(\s*(?P<link><[^<>\n]+>|(?:[^\s()<>]|\([^\s()]*\))+)"
    r"""(?P<title>\s+(?:"[^"\n]*"|'[^'\n]*'))?\s*\)"""
)
_LINK = re.compile(_TARGET)
_PICTURE = re.compile(r"!\[[^\]]*" + _TARGET)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//|#")


def evaluation_table(results: Results) -> str:
    """The Markdown table of all methods.

    Args:
      results: of a comparison.
    """
    measures = results["measures"]
    main = measures[0]
    columns = [
        "method",
        "setting",
        "steered",
        "values a token",
        f"{main} reward",
        "minus base",
        "minus dense",
    ]
    columns += [f"{measure} reward" for measure in measures[1:]]
    columns += ["tokens/s, by seed", *(f"{model}, MFLOP a token" for model in ("policy", "value", "reward"))]
    columns.append("tokens a reply")
    lines = []
    for row in results["rows"]:
        differences = row["differences"]
        flops = row["flops_per_token"]
        lines.append(
            [
                row["name"],
                setting(row),
                f"{row['ratio']:.1%}" if row["kind"] != "base" else "",
                _values(row),
                Interval.from_json(row["rewards"][main]).text(),
                *(
                    Interval.from_json(differences[rival][main]).text(signed=True)
                    if rival in differences
                    else ""
                    for rival in ("base", "dense")
                ),
                *(Interval.from_json(row["rewards"][measure]).text() for measure in measures[1:]),
                _rates(row["tokens_per_second_by_seed"]),
                *(
                    f"{flops[model] / 1e6:,.3g}" if flops[model] else ""
                    for model in ("policy", "value", "reward")
                ),
                f"{row['length']:.1f}",
            ]
        )
    return markdown.table(columns, lines, labels=1)


def setting(row: Mapping[str, Any]) -> str:
    """'H ≥ 1.21 nats', 'p = 0.193', 'every token, chosen by the proxy reward'."""
    parts = [gate_text(row)] if row["kind"] != "base" else []
    if row.get("bound") is not None:
        parts.append(f"tilt within ±{row['bound']:g} nats")
    if row["chooser"] is not None:
        chooser = {"value": "the last value", "reward": "the proxy reward"}[row["chooser"]]
        parts.append(f"chosen by {chooser}")
    return ", ".join(parts)


def _values(row: Mapping[str, Any]) -> str:
    """'0.85 (84% without)': candidates read a token, and the share of the steered decided without a value."""
    read, decided = row.get("values_per_token"), row.get("decided")
    if row["kind"] == "base" or read is None:
        return ""
    return f"{read:.2f}" + (f" ({decided:.0%} without)" if decided else "")


def _rates(rates: Sequence[float | None]) -> str:
    """'950 to 1,400': the slowest and the fastest, to two digits; nothing where one is not known."""
    known = [rate for rate in rates if rate is not None]
    if len(known) < len(rates):
        return ""
    ends = [float(f"{rate:.2g}") for rate in (min(known), max(known))]
    return " to ".join(dict.fromkeys(f"{end:,.{0 if end >= 10 else 1}f}" for end in ends))


def claims_text(results: Results) -> str:
    """The claims and their evidence, measure by measure, as Markdown."""
    parts = []
    for measure in results["measures"]:
        parts.append(f"### On the {reward_title(results, measure)}\n")
        for number, claim in enumerate(results["claims"][measure], start=1):
            parts.append(f"{number}. **{claim['name']}: {claim['verdict']}.** {claim['statement']}\n")
            parts.append("".join(f"   - {finding}\n" for finding in claim["findings"]))
    return "\n".join(parts)


def results_text(results: Results) -> str:
    """All tables of a comparison and its claims, as Markdown: what stands in results.md."""
    parts = [evaluation_table(results), claims_text(results), *_further(results)]
    return "\n".join(parts)


def evaluation_page(
    results: Results,
    *,
    title: str,
    introduction: str,
    pictures: str = "",
    examples: str = "",
    appendix: str = "",
) -> str:
    """The Markdown page of a comparison.

    Args:
      results: of a comparison.
      title: of the page.
      introduction: what was evaluated; a paragraph or none.
      pictures: Markdown that shows them.
      examples: of `sia_jax.reports.examples.examples_section`, or none.
      appendix: sections of another report, which come before how it was made.
    """
    settings, calibration = results["settings"], results["calibration"]
    made = [
        f"policy `{settings['policy']}` ({settings['policy_fingerprint']}), value model "
        f"`{settings['value']}` ({settings['value_fingerprint']})",
        *_rewards(settings),
        f"{results['prompts']['count']} prompts of `{results['prompts']['file']}` "
        f"(sha256 {results['prompts']['sha256'][:16]}), seeds {', '.join(map(str, results['seeds']))}: "
        f"{results['rows'][0]['replies']:,} replies a method",
        f"temperature {settings['temperature']:g}, beta {settings['beta']:g}, "
        f"{'tilt ' + settings['tilt'] + ', ' if 'tilt' in settings else ''}"
        f"C = {settings['num_candidates']}, at most {settings['max_new_tokens']} new tokens",
        *(
            []
            if calibration is None
            else [
                f"thresholds of `{calibration['file']}` (sha256 {calibration['sha256'][:16]}), from "
                f"{calibration['tokens']:,} tokens of the policy's own replies to `{calibration['prompts']}`"
            ]
        ),
        f"sampled at commit {', '.join(results['commits'])} on {'; '.join(results['machines'])}",
        f"this page: commit {results['commit']}, {results['time']}",
        *(f"{what}: {text}" for what, text in results.get("provenance", {}).items()),
    ]
    commands = "".join(
        f"{command}\n" for command in ((calibration or {}).get("command"), results["command"]) if command
    )
    sections = [
        f"# {title}\n",
        "Made by `decode.evaluate`; not edited by hand.\n",
        *([introduction.rstrip() + "\n"] if introduction else []),
        "## What holds\n",
        f"{_verdicts(results)}\n",
        claims_text(results),
        "## All methods\n",
        evaluation_table(results),
        _explanations(results),
        pictures,
        *_further(results),
        examples,
        *([appendix.rstrip() + "\n"] if appendix else []),
        "## How it was made\n",
        f"```sh\n{commands}```\n" if commands else "",
        "".join(f"- {line}\n" for line in made),
    ]
    return "\n".join(section for section in sections if section)


def write_page(
    results: Results,
    page: Path,
    pictures: Sequence[Picture],
    folder: Path,
    *,
    title: str,
    introduction: Path | None = None,
    examples: str = "",
    appendix: Path | None = None,
) -> None:
    """The page of a comparison, and its pictures beside it.

    Args:
      results: of the comparison.
      page: a .md file.
      pictures: that were drawn.
      folder: into which.
      title: of the page.
      introduction: Markdown that it begins with.
      examples: of `sia_jax.reports.examples.examples_section`, or none.
      appendix: see `read_appendix`.

    Raises:
      OSError, ValueError: a file that cannot be read or written.
    """
    text = "" if introduction is None else read_markdown(introduction)
    more, copies = read_appendix(appendix, page)
    make_folder(page.parent)
    for old, new in copies.items():
        copy_file(old, new)
    shown = copy_beside(pictures, folder, page)
    sections = {"pictures": shown, "examples": examples, "appendix": more}
    write_text(page, evaluation_page(results, title=title, introduction=text, **sections))


def read_markdown(file: Path) -> str:
    """The text of a file.

    Raises:
      OSError, ValueError: it cannot be read, or is no text.
    """
    return strict_json.decode(read_bytes(file, "file of Markdown"), str(file)).replace("\r\n", "\n")


def read_appendix(appendix: Path | None, page: Path, name: str = "") -> tuple[str, dict[Path, Path]]:
    """An appendix as it stands in a page, and where each of its pictures is and is copied to.

    Args:
      appendix: Markdown whose pictures lie in its folder; None: there is none.
      page: its place.
      name: what messages call the appendix.

    Raises:
      OSError, ValueError: it cannot be read, or has a picture that is not there or not in its folder.
    """
    if appendix is None:
        return "", {}
    text, name = read_markdown(appendix), name or str(appendix)
    try:
        taken = [place.name for place in places_beside(page).values()]
        text, names = with_pictures_named(text, f"{page.stem}-", taken=taken)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    pictures = {appendix.parent / file: page.with_name(new) for file, new in names.items()}
    for picture in pictures:
        check_file(picture, f"picture of {appendix}", "make it, or take the link away")
        if not picture.resolve().is_relative_to(appendix.parent.resolve()):
            raise ValueError(
                f"{name}: {picture} is a link to {picture.resolve()}, outside of the appendix's own folder; "
                "copy the picture there"
            )
    return text, pictures


def with_pictures_named(text: str, prefix: str, taken: Collection[str] = ()) -> tuple[str, dict[str, str]]:
    """A page's text with its pictures under other names, for a place where others of that name may lie.

    Args:
      text: Markdown; pictures are links of the form ![...](file), with or without a title.
      prefix: of the new names, of which no two are one, nor in another case.
      taken: names that are not to be given.

    Returns:
      (text with the new links, {file: its new name}), files relative to the folder of the text. Addresses,
      whether on the net or of data in the link, stay as they are.

    Raises:
      ValueError: a picture that lies outside of that folder.
    """
    names: dict[str, str] = {}
    used = {name.casefold() for name in taken}
    for match in _PICTURE.finditer(text):
        file = _linked_file(match["link"])
        if file is None or file in names:
            continue
        if file.startswith("/") or file.split("/")[0] == "..":
            raise ValueError(
                f"the picture {shown_value(match['link'])} lies outside of the page's own folder; copy it "
                "there, and change the link"
            )
        stem, suffix = posixpath.splitext(posixpath.basename(file))
        numbered = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
        name = next(n for end in numbered if (n := f"{prefix}{stem}{end}{suffix}").casefold() not in used)
        used.add(name.casefold())
        names[file] = name

    def renamed(match: re.Match[str]) -> str:
        name = names.get(_linked_file(match["link"]) or "")
        return match[0] if name is None else f"]({quote(name)}{match['title'] or ''})"

    return _LINK.sub(renamed, text), names


def _linked_file(link: str) -> str | None:
    """What a link of a page names, relative to the page's folder; None: no file."""
    link = link.strip("<>")
    if _ADDRESS.match(link):
        return None
    return posixpath.normpath(unquote(link))


def _rewards(settings: Mapping[str, Any]) -> Iterator[str]:
    """What gave the rewards of a run, as lines of its page."""
    weight = f", weight {settings['reward_weight']:g}" if "reward_weight" in settings else ""
    if settings["reward"] is not None:
        yield f"reward model `{settings['reward']}` ({settings['reward_fingerprint']}){weight}"
    for name, own in settings.get("further_reward_models", {}).items():
        yield f"reward model `{name}` ({own['fingerprint']}), weight {own['weight']:g}"
    for name, factor in settings.get("reward_functions", {}).items():
        fingerprint = settings["reward_functions_fingerprint"][name]
        yield f"reward function `{name}` ({fingerprint}), weight {factor:g}"
    if "length_penalty" in settings:
        yield f"less {settings['length_penalty']:g} for each word of the reply, as white space parts them"
    if isinstance(settings.get("gold"), str):
        yield f"gold reward: {settings['gold']}"


def _further(results: Results) -> list[str]:
    """The sections of further measures that there are."""
    sections = (equal_ratio_section, differences_section, texts_section, likelihoods_section)
    return [part for section in sections if (part := section(results))]


def _verdicts(results: Results) -> str:
    """How intervals and verdicts come about, and what is not corrected."""
    count = results["comparisons"]
    return (
        "Every verdict is computed from the intervals that stand under it. An interval of 95% is the wider, "
        f"at either end, of Student's t and the studentised bootstrap ({results['resamples']:,} resamples), "
        "both over prompts, each with its replies under all seeds; differences are paired, by prompt and "
        f"seed. With fewer than {FEWEST} prompts there is no interval and no claim, and no interval where "
        f"fewer than {FEWEST_OTHERS} prompts have another value than the commonest: [?]. Each interval is "
        "that of its own comparison, and no verdict is corrected for their number, as the p-values under "
        "Differences are: of the "
        f"{count} comparisons that stand under the claims, {expected_by_chance(count):.1f} would be expected "
        "to say better by chance alone if no method differed from another. A method matches dense steering "
        "if it is shown to keep nine tenths of what that gains over the base."
    )


def _explanations(results: Results) -> str:
    rows = results["rows"]
    cut = max(rows, key=lambda row: row["cut"])
    layouts = ", ".join(f"{share:.0%}" for share in SCHEDULES)
    text = (
        "Values a token are the candidates whose values were read for each sampled token, and in brackets, "
        "under a bounded tilt, the share of steered tokens that were decided without a value. "
        "Random gates steer with the probability p that the entropy gate of their line has realised under "
        "the same seed. Tokens/s are tokens of finished replies over the time of all that a method does: "
        "every candidate of best-of-N and the pass that chooses among them, prefill, but no compiling, and "
        "not the scoring of the result; to two digits, of the slowest and the fastest seed, and not told "
        f"where one took less than {MEASURED_SECONDS:g} s. Where others "
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
    unscored = [row for row in rows if row["unscored"]]
    if unscored:
        counts = ", ".join(f"{row['name']}: {row['unscored']}" for row in unscored)
        text += (
            " Replies without a proxy reward, which are left out of its means, and out of a difference with "
            f"their partners: {counts}."
        )
    lacking = [row for row in rows if row.get("gold_unscored")]
    if lacking:
        counts = ", ".join(f"{row['name']}: {row['gold_unscored']}" for row in lacking)
        text += f" Replies without a gold reward, left out likewise: {counts}."
    return text + "\n"
