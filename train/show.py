r"""Show records of a prepared set as the value model sees them: their ids, decoded token by token.

    python -m train.show --data data/mine --tokenizer Qwen/Qwen3-1.7B-Base            # the first record
    python -m train.show --data data/mine --tokenizer Qwen/Qwen3-1.7B-Base --first 40 --count 3 --ids

The prompt is dim. The tokens of the reply, over which the objective is taken, alternate in two colours, so
that each is to be seen; special tokens and line breaks too. A reply that does not end in the stop token was
cut by length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.text import Text

from sia_jax.checkpoints.hub import resolve_checkpoint
from sia_jax.checkpoints.vocabulary import load_tokenizer
from sia_jax.data.records import Record, RecordSource, read_records
from sia_jax.data.tokenise import stop_id
from sia_jax.files.shown import shown
from sia_jax.runs.cli import Count, Flag, Folder, program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.text.decoder import token_text
from sia_jax.text.markup import markup_of, markup_of_set
from sia_jax.text.token_ids import num_tokens
from sia_jax.text.tokenizer import Tokenizer

COLOURS = ("green", "cyan")
"""Of neighbouring tokens of a reply."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Show records of a set."""

    data: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The set, as train.prepare or train.label made it."""
    tokenizer: Folder
    """The one that it was made with: a checkpoint's folder, or else a Hub id."""
    first: Count = 0
    """Number of the first record that is shown, from 0."""
    count: Count = 1
    """How many are shown."""
    ids: Flag = False
    """Show the ids beside the tokens."""


def main(args: Args) -> None:
    """Show; exits with 1 if something is wrong with options or files."""
    console = Terminal()
    with program("train.show"):
        for name, least in (("first", 0), ("count", 1)):
            if getattr(args, name) < least:
                raise ValueError(f"--{name} must be {least} or more, got {getattr(args, name)}")
        folder = resolve_checkpoint(args.tokenizer)
        tokenizer = load_tokenizer(folder)
        if tokenizer is None:
            raise ValueError(f"--tokenizer {args.tokenizer}: there is no tokenizer in that folder")
        source = read_records(args.data)
        if args.first >= len(source):
            raise ValueError(f"{args.data} has {len(source):,} records, there is no number {args.first:,}")
        for number in range(args.first, min(args.first + args.count, len(source))):
            console.print(heading(source, number, tokenizer), soft_wrap=True)
            console.print(tokens(source[number], tokenizer, args.ids), soft_wrap=True)
            console.print()


def heading(source: RecordSource, number: int, tokenizer: Tokenizer) -> Text:
    """'record 3 of 120: id mine:4, group g2; 41 tokens of prompt, 96 of reply, reward 0.52'.

    Raises:
      ValueError: ids that the tokenizer does not know: the set was made with another one.
    """
    record = source[number]
    known = num_tokens(tokenizer)
    unknown = sorted({int(i) for i in (*record.prompt_ids, *record.reply_ids) if i >= known})
    if unknown:
        raise ValueError(
            f"record {number} has ids that the tokenizer does not know, {unknown[:5]}: name the one that the "
            "set was made with"
        )
    reward = "no reward" if record.reward is None else f"reward {record.reward:.4g}"
    markup = markup_of_set(source.meta, str(source.folder), tokenizer) or markup_of(tokenizer)
    cut = "" if record.reply_ids[-1] == stop_id(tokenizer, markup) else ", cut by length"
    return Text(
        f"record {number:,} of {len(source):,}: id {shown(record.id)}, group {shown(record.group)}; "
        f"{len(record.prompt_ids)} tokens of prompt, {len(record.reply_ids)} of reply{cut}, {reward}",
        "bold",
    )


def tokens(record: Record, tokenizer: Tokenizer, with_ids: bool) -> Text:
    """The record's tokens, one after the other."""
    text = Text()
    for style, ids in (("dim", record.prompt_ids.tolist()), (None, record.reply_ids.tolist())):
        _append(text, ids, tokenizer, style, with_ids)
    return text


def _append(text: Text, ids: Sequence[int], tokenizer: Tokenizer, style: str | None, with_ids: bool) -> None:
    for place, token in enumerate(ids):
        colour = style or COLOURS[place % len(COLOURS)]
        says = shown(token_text(tokenizer, token)).replace("\n", "⏎\n")
        text.append(says or "∅", colour)
        if with_ids:
            text.append(f"·{token} ", "dim")


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
