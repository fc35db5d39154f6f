"""Replies as a page to look into: each token shaded by its entropy, and behind it what stood to choice.

One HTML file, which asks the network for nothing. It is made from the records of `decode.generate --record`.
"""

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from sia_jax.files.shown import shown
from sia_jax.reports.trace_record import Record, check_record


def trace_page(records: Sequence[Record], title: str, notes: Mapping[int, str] | None = None) -> str:
    """The page of some replies: those to one prompt side by side, prompts one below the other.

    Args:
      records: as `decode.generate --record` writes them, in any order.
      title: of the page.
      notes: what stands over a prompt, by its index; these come first, in this order.

    Raises:
      ValueError: no records, or one without candidates, without texts, or with anything else in its fields.
    """
    if not records:
        raise ValueError("there are no replies to show")
    for record in records:
        check_record(record)
    groups: dict[int, list[Record]] = {}
    # Base stands first, the others as they come.
    methods = dict.fromkeys(["base", *(record["method"] for record in records)])
    place = {method: number for number, method in enumerate(methods)}
    notes = dict(notes or {})
    order = {index: number for number, index in enumerate(notes)}

    def rank(record: Record) -> tuple[int, int, int, int]:
        index = record["index"]
        return order.get(index, len(order)), index, record["branch"], place[record["method"]]

    for record in sorted(records, key=rank):
        groups.setdefault(record["index"], []).append(record)
    # Shades are of one scale on the whole page: that of the most uncertain token on it.
    most = max((h for record in records for h in record["entropy"] if h is not None), default=0.0)
    sections: list[str] = []
    data: list[list[dict[str, Any]]] = []
    differing = 0
    for index, group in groups.items():
        differs = len({"".join(record["pieces"]) for record in group}) > 1
        differing += differs
        articles = []
        for record in group:
            articles.append(_article(record, len(data), most))
            data.append([_token(record, t) for t in range(len(record["tokens"]))])
        sections.append(
            f"<section{'' if differs else ' data-same'}>{_note(notes.get(index))}{_before(group[0])}"
            f"<h2>{_text(_prompt(group[0]))}</h2>\n"
            f'<div class="replies">\n{"".join(articles)}</div></section>\n'
        )
    settings = records[0]["settings"]
    steered = ""
    if settings.get("value"):
        given = "".join(f", {name} {settings[name]}" for name in ("gate", "tilt") if settings.get(name))
        steered = f", steered by {settings['value']} with beta {settings['beta']:g}{given}"
    page = files("sia_jax.reports").joinpath("trace.html").read_text(encoding="utf-8")
    # In a script element only "</" ends the data, whatever a reply says.
    packed = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "policy": html.escape(_policy(page)),
        "title": _text(title),
        "subtitle": _text(f"{settings['policy']}{steered}; {len(records)} replies"),
        "summary": _summary(records, methods),
        "no_filter": ""
        if differing < len(groups) and any(len(group) > 1 for group in groups.values())
        else " hidden",
        "differing": f"{differing} of {len(groups)}",
        "most": f"{most:.2f}",
        "sections": "".join(sections),
        "data": packed,
    }
    pieces = page.split("{{")
    return pieces[0] + "".join(_filled(piece, parts) for piece in pieces[1:])


def _note(text: str | None) -> str:
    return "" if text is None else f'<p class="why">{_text(text)}</p>\n'


def _summary(records: Sequence[Record], methods: Mapping[str, None]) -> str:
    """A line for each method: how much it said, how much of that was steered and shifted, mean rewards."""
    rewards = [name for name in ("gold", "proxy") if any(r.get(name) is not None for r in records)]
    titles = ["", "prompts", "replies", "tokens", "steered", "shifted"]
    titles += ["decided without a value"] if any(r["steering"].get("decided") for r in records) else []
    titles += [f"mean {name}" for name in rewards]
    rows = ["".join(f"<th>{title}</th>" for title in titles)]
    for method in methods:
        own = [record for record in records if record["method"] == method]
        if not own:
            continue
        tokens = sum(record["length"] for record in own)
        cells = [
            _text(method),
            f"{len({record['index'] for record in own}):,}",
            f"{len(own):,}",
            f"{tokens:,}",
            *(f"{sum(sum(r[name]) for r in own) / max(tokens, 1):.0%}" for name in ("junction", "shifted")),
            *([_decided(own)] if "decided without a value" in titles else []),
            *(_mean([record.get(name) for record in own]) for name in rewards),
        ]
        rows.append("".join(f"<td>{cell}</td>" for cell in cells))
    lines = "".join(f"<tr>{row}</tr>\n" for row in rows)
    return f'<div class="wide"><table class="summary">\n{lines}</table></div>'


def _decided(records: Sequence[Record]) -> str:
    """Of steered tokens."""
    steered = sum(sum(record["junction"]) for record in records)
    return f"{sum(record['steering'].get('decided', 0) for record in records) / max(steered, 1):.0%}"


def _mean(numbers: Sequence[float | None]) -> str:
    """Of those that are known, and how many that are where it is not all."""
    known = [number for number in numbers if number is not None]
    if not known:
        return ""
    count = "" if len(known) == len(numbers) else f" (of {len(known):,})"
    return f"{sum(known) / len(known):+.2f}{count}"


def _policy(page: str) -> str:
    """The page's content security policy: only its own script and style, and no network."""
    own = {
        name: " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in re.findall(f"<{name}>(.*?)</{name}>", page, re.DOTALL)
        )
        for name in ("script", "style")
    }
    return (
        f"default-src 'none'; script-src {own['script']}; style-src-elem {own['style']}; "
        "style-src-attr 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )


def _filled(piece: str, parts: dict[str, str]) -> str:
    """A piece of the template that begins with a name and its closing braces."""
    name, _, rest = piece.partition("}}")
    return parts[name] + rest


def _prompt(record: Record) -> str:
    prompt = record["prompt"]
    if isinstance(prompt, list):
        return str(prompt[-1]["content"])
    return f"a prompt of {len(prompt['prompt_ids'])} ids"


def _before(record: Record) -> str:
    """The turns of the conversation before the last message."""
    prompt = record["prompt"]
    turns = prompt[:-1] if isinstance(prompt, list) else []
    return "".join(
        f'<p class="before"><b>{_text(turn["role"])}</b> {_text(str(turn["content"]))}</p>\n'
        for turn in turns
    )


def _article(record: Record, number: int, most: float) -> str:
    count, ratio = record["length"], record["steering"]["ratio"]
    numbers = f"{count} tokens"
    if record["method"] != "base":
        shifted = record["steering"]["shifted"]
        decided = record["steering"].get("decided", 0)
        numbers += f", {ratio:.0%} steered, {shifted} shifted"
        numbers += f", {decided} decided without a value" if decided else ""
        numbers += f", threshold {_number(record['threshold'])}"
    numbers += f", {record['finish_reason'].replace('_', '-')}"
    for reward in ("gold", "proxy"):
        if record.get(reward) is not None:
            numbers += f", {reward} {record[reward]:+.2f}"
    tokens = "".join(_span(record, t, most) for t in range(count))
    branch = f" {record['branch'] + 1}" if record["branch"] else ""
    return (
        f'<article data-reply="{number}"><h3>{_text(record["method"])}{branch}</h3>'
        f'<p class="numbers">{_text(numbers)}</p><p class="text">{tokens}</p></article>\n'
    )


def _span(record: Record, t: int, most: float) -> str:
    entropy = record["entropy"][t]
    shade = 0.0 if entropy is None or most <= 0 else max(entropy, 0.0) / most
    kinds = "t" + " j" * record["junction"][t] + " s" * record["shifted"][t]
    piece = record["pieces"][t]
    # One stop of the tab key a reply; the arrow keys go on from there.
    stop = 0 if t == _first(record) else -1
    return (
        f'<span class="{kinds}" style="--e:{shade:.3f}" data-t="{t}" tabindex="{stop}">'
        f"{_text(piece) or '&#8203;'}</span>"
    )


def _first(record: Record) -> int:
    junctions: list[bool] = record["junction"]
    return junctions.index(True) if True in junctions else 0


def _token(record: Record, t: int) -> dict[str, Any]:
    """What the page tells of token t."""
    found, names = record["candidates"], record["names"]
    chosen, own = record["tokens"][t], found["own_choice"][t]
    junction = record["junction"][t]
    contenders, read = (record[name][t] if name in record else None for name in ("contenders", "values_read"))
    known = any(logprob is not None for logprob in found["logprobs"][t])
    columns = (found["ids"][t], found["policy_logprobs"][t], found["values"][t], found["logprobs"][t])
    candidates = [
        {
            "text": shown(names[str(token)]),
            "policy": _exp(policy),
            "value": _rounded(value),
            "drawn": _exp(drawn) if known else None,
            "chosen": token == chosen,
            "own": token == own,
        }
        for token, policy, value, drawn in zip(*columns, strict=True)
    ]
    return {
        "t": t,
        "piece": shown(record["pieces"][t]),
        "entropy": _rounded(record["entropy"][t]),
        "kl": _rounded(found["kl"][t]),
        "junction": junction,
        "contenders": contenders if junction else None,
        "decided": junction and read == 0,
        "own": shown(names[str(own)]) if own != chosen else None,
        "candidates": candidates,
    }


def _exp(logprob: float | None) -> float:
    """A probability; the record writes null for the logarithm of 0."""
    return 0.0 if logprob is None else round(math.exp(logprob), 5)


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 4)


def _number(threshold: float | str) -> str:
    return threshold if isinstance(threshold, str) else f"{threshold:g}"


def _text(text: str) -> str:
    return html.escape(shown(text))
