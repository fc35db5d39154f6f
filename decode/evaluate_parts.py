"""What `decode.evaluate` says before it begins, what it takes of old replies, and the page of its results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from decode.evaluate_options import Args, picture_of, read_appendix, read_markdown
from sia_jax.evaluation.methods import Method
from sia_jax.files.shown import shown_value
from sia_jax.files.writing import copy_file, make_folder, write_text
from sia_jax.reports.evaluation import evaluation_page
from sia_jax.runs.journal import is_finite
from sia_jax.runs.provenance import last_commit
from sia_jax.world import gold as world_gold


def plan_text(methods: Sequence[Method], seeds: int, prompts: int) -> str:
    """What will be done: '3 methods x 2 seeds x 5 prompts = 30 replies; ...'."""
    replies = len(methods) * seeds * prompts
    sampled = sum(method.n for method in methods) * seeds * prompts
    more = f", for which {sampled:,} are sampled" if sampled > replies else ""
    names = "; ".join(method.name for method in methods)
    return (
        f"{_count(len(methods), 'method')} x {_count(seeds, 'seed')} x {_count(prompts, 'prompt')} = "
        f"{replies:,} replies{more}: {names}. How long that takes is said after the first batch."
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


_NUMBERS = ("length", "sampled_tokens", "sampled_junctions", "seconds", "rate")


def check_reply(record: Mapping[str, Any], *, gold: bool) -> None:
    """A record of an earlier run has numbers where the comparison looks for numbers.

    Args:
      record: of a reply; its file may have been written by anybody.
      gold: whether the run has gold rewards.

    Raises:
      KeyError: a field that is missing.
      ValueError: one that holds something else.
    """
    numbers = {name: record[name] for name in _NUMBERS}
    numbers |= {f"flops of the {model}": record["flops"][model] for model in ("policy", "value", "reward")}
    if gold:
        numbers["gold"] = record["gold"]
    for name, number in numbers.items():
        if not is_finite(number) or (number < 0 and name != "gold"):
            got = shown_value(number, 60)
            raise ValueError(f"{name} must be a number, of 0 or more but for rewards, got {got}")
    if record["proxy"] is not None and not is_finite(record["proxy"]):
        raise ValueError(f"proxy must be a number, or null, got {shown_value(record['proxy'], 60)}")
    for name in ("method", "finish_reason", "commit", "machine"):
        if not isinstance(record[name], str):
            raise ValueError(f"{name} must be a text, got {shown_value(record[name], 60)}")
    if type(record["index"]) is not int or type(record["seed"]) is not int:
        got = " and ".join(shown_value(record[name], 60) for name in ("index", "seed"))
        raise ValueError(f"index and seed must be integers, got {got}")
    threshold = record["threshold"]
    if not is_finite(threshold) and threshold not in ("inf", "-inf"):
        raise ValueError(f'threshold must be a number, "inf" or "-inf", got {shown_value(threshold, 60)}')


def write_page(results: Mapping[str, Any], args: Args, page: Path) -> None:
    """The page, and its pictures beside it."""
    picture = picture_of(page)
    introduction = "" if args.introduction is None else read_markdown(args.introduction)
    appendix, pictures = read_appendix(args)
    make_folder(page.parent)
    copy_file(Path(args.out) / "pareto.png", picture)
    for old, new in pictures.items():
        copy_file(old, new)
    text = evaluation_page(
        results, title=args.title, introduction=introduction, picture=picture.name, appendix=appendix
    )
    write_text(page, text)


def world_commits() -> dict[str, str]:
    """When grammar, gold reward and splits of the world were fixed."""
    folder = Path(world_gold.__file__).parent
    parts = {
        "the world's gold reward": ("gold.py", "reading.py"),
        "its prompts and splits": (
            *("prompts.py", "activities.py", "circumstances.py", "mischief.py", "facts.py", "streams.py"),
        ),
        "its grammar": (
            *("grammar.py", "junctions.py", "phrases.py", "helpful.py", "harmless.py", "honest.py"),
        ),
    }
    return {what: last_commit([folder / name for name in names], folder) for what, names in parts.items()}
