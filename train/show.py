r"""Show records of a prepared set as the value model sees them: their ids, decoded token by token.

    python -m train.show --data data/mine --tokenizer Qwen/Qwen3-1.7B-Base            # the first record
    python -m train.show --data data/mine --tokenizer Qwen/Qwen3-1.7B-Base --first 40 --count 3 --ids

The prompt is dim. The tokens of the reply, over which the objective is taken, alternate in two colours, so
that each is to be seen; special tokens and line breaks too. A reply that does not end in the stop token was
cut by length.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sia_jax.checkpoints.hub import resolve_checkpoint
from sia_jax.checkpoints.vocabulary import load_tokenizer
from sia_jax.data.records import read_records
from sia_jax.reports.records import heading, tokens
from sia_jax.runs.cli import Count, Flag, Folder, program, read_options
from sia_jax.runs.console import Terminal


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


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
