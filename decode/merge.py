r"""The parts of a run with --shard, put together into the one file of a run without.

    # Four machines, or four tasks of an array; each does a quarter of the prompts:
    python -m decode.generate --policy DIR --value DIR --prompts prompts.jsonl --shard 0/4 \
        --out replies.jsonl
    python -m decode.merge replies.*-of-4.jsonl --out replies.jsonl

    # Labels, and sampled sets: the parts are those of the journal, and the command without --shard ends it.
    python -m train.label --input replies.jsonl --reward DIR --out labelled.jsonl --shard 0/4
    python -m decode.merge labelled.jsonl.partial.*-of-4.jsonl --out labelled.jsonl.partial.jsonl
    python -m train.label --input replies.jsonl --reward DIR --out labelled.jsonl

    # An evaluation whose random gates wait for the others: --add puts the next round behind the first.
    python -m decode.merge out/replies.*-of-4.jsonl --out out/replies.jsonl --add

Every record has to be there once. What is missing, there twice, or there twice with a difference, is told by
its name, and nothing is written; so are parts of other settings, inputs or devices, and a part whose run has
not come to its end, which PART.shard.json beside it says. The records stand in the order of the input, the
same bytes as those of a run without --shard. The suffix of --out says JSONL or Parquet (.parquet); parts may
be either. With --add what a JSONL file has stays, and what it lacks of the parts comes behind it; what both
have must be the same.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs
from sia_jax.runs.cli import Flag, check_texts, program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.merging import merge
from sia_jax.runs.parts import statement_of
from sia_jax.runs.progress import waiting


@dataclass(frozen=True, kw_only=True)
class Args:
    """Merge the parts of all shards."""

    parts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PART")]
    """The parts of all shards of one run."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """What the run without --shard writes."""
    add: Flag = False
    """Put what the file that is there lacks behind what it has."""
    overwrite: Flag = False
    """Replace the file that is there."""


def main(args: Args) -> None:
    """Merge; exits with 1 if something is wrong with options or files, and with 130 after Ctrl-C."""
    out = Path(args.out)

    def interrupted() -> str:
        return f"interrupted; {f'the same command goes on with {out}' if args.add else f'{out} is as it was'}"

    with program("decode.merge", interrupted=interrupted) as console:
        check_texts(args)
        if not args.parts:
            raise ValueError("name the parts of all shards: replies.*-of-4.jsonl")
        paths = [Path(part) for part in args.parts]
        inputs: dict[str, Path] = {}
        for number, path in enumerate(paths, start=1):
            inputs |= {f"part {number}": path, f"what part {number} says of itself": statement_of(path)}
        check_outputs(inputs=inputs, files={"--out": out})
        if args.add and args.overwrite:
            raise ValueError("--add keeps what is there, and --overwrite replaces it; give one of them")
        with locked(files=(out,)):
            _run(paths, out, console, args)


def _run(paths: list[Path], out: Path, console: Terminal, args: Args) -> None:
    if out.exists() and not (args.add or args.overwrite):
        raise ValueError(
            f"{out} is there already; name another file, or pass --add to put what it lacks behind what it "
            "has, or --overwrite"
        )
    with waiting(console, f"merging {len(paths):,} parts"):
        merged = merge(paths, out, add=args.add)
    there = f"; {merged.there:,} were there already" if merged.there else ""
    console.print(
        f"{merged.records:,} records of {merged.units:,} rows of the input, from {merged.shards:,} "
        f"shards{there}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"written to {out}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
