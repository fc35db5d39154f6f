r"""Read the values where a gate did not: what dense steering would have done on the gate's own prefixes.

    python -m decode.generate --policy DIR --value DIR --threshold 1.9 --prompts test.jsonl --out gated.jsonl
    python -m decode.own_prefixes --policy DIR --value DIR --threshold 1.9 --prompts test.jsonl \
        --replies gated.jsonl --out own.jsonl
    python -m decode.promise --replies dense.jsonl --miss-rates 0.1 --check own.jsonl

decode.promise finds a threshold on replies that dense steering wrote. The gate writes other replies; here
each of their tokens that was not steered is asked for once more, densely steered, after the same prompt and
the same tokens before it, and the line says whether it would have been shifted. The draws are new ones, of
--seed: a share of many tokens is right, a single one is a coin thrown again. The options are those that the
replies were made with, and a reply that was made with others is refused.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from sia_jax.data.prompts import PromptLine
from sia_jax.engine.request import Request
from sia_jax.evaluation.own_prefixes import GatedReply, gated_reply, reading_order
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs, check_suffix
from sia_jax.files.reading import check_file
from sia_jax.runs import preflight, prompting, runner
from sia_jax.runs.cli import Count, Flag, PromptFileArgs, goes_on, program, read_options, stop
from sia_jax.runs.console import Terminal
from sia_jax.runs.engines import Row, make_engine, make_request, one_reply
from sia_jax.runs.journal import Journal
from sia_jax.runs.options import SamplingArgs
from sia_jax.runs.progress import RunProgress, waiting
from sia_jax.runs.prompt_ids import SETTINGS, draws_of, key_of_draws, prompt_id
from sia_jax.runs.reply_lines import ReplyLines

_OF_WHOLE_REPLIES = ("stop", "min_new_tokens", "presence_penalty", "frequency_penalty")
"""Options that look at a reply from its first token on, which a request for one token has not."""


@dataclass(frozen=True, kw_only=True)
class Args(PromptFileArgs, SamplingArgs):
    """Read the values that a gate left unread."""

    prompts: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """The prompts that were replied to."""
    replies: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """Replies of decode.generate under a gate, with these options."""
    output: Annotated[str, tyro.conf.arg(metavar="FILE", aliases=["--out"])]
    """A .jsonl file: the replies, with every token as steered. One that is there is continued."""
    batch: Count = 16
    """Prefixes that are read at a time."""
    overwrite: Flag = False
    """Begin the output file anew."""


def main(args: Args) -> None:
    """Read and write; exits with 1 if something is wrong with options or files, with 130 after Ctrl-C."""
    with program("decode.own_prefixes", smaller=f"lower --batch, now {args.batch}") as console:
        _check(args)
        with locked(files=(Path(args.output),)):
            _run(args, console)


def _run(args: Args, console: Terminal) -> None:
    prompts = prompting.read_prompt_file(args.prompts, args.column, args.system)
    policy = runner.prepare(args)
    found = prompting.find_prompting(policy, args)
    ids = preflight.policy_ids(
        prompts, runner.Models(policy, preflight.value_without_weights(args, policy)), args, found
    )
    identity = runner.run_identity(args, found) | SETTINGS
    draws = draws_of(prompts, ids)
    names = [prompt_id(*each, identity) for each in zip(prompts, draws, strict=True)]
    lines = ReplyLines(prompts, args.seed, runner.threshold(args), names)
    replies = _read(args, lines, identity, policy.config.vocab_size)
    journal = Journal(
        Path(args.output),
        identity | {"replies": Path(args.replies).name},
        lines.key,
        overwrite=args.overwrite,
    )
    missing = [reply for reply in replies if lines.key(dict(reply.record)) not in journal.done]
    if not missing:
        console.say(f"{args.output}: all {len(replies):,} replies are there already")
        return
    with waiting(console, "loading the models"):
        models = runner.load_models(args)
    rows = [
        Row(
            own,
            prompting.value_ids(models, prompt, own, args),
            key_of_draws(prompt, key, args.seed, _branches(replies)),
            -math.inf,
        )
        for prompt, own, key in zip(prompts, ids, draws, strict=True)
    ]
    try:
        _reread(args, models, rows, prompts, missing, journal, console)
    except KeyboardInterrupt:
        again = goes_on(args.overwrite and journal.begun)
        console.say(f"\ninterrupted; {len(journal.done):,} replies are in {args.output}, and {again}")
        stop()


def _read(args: Args, lines: ReplyLines, identity: dict[str, Any], vocab_size: int) -> list[GatedReply]:
    """The replies, each of these prompts and options.

    Raises:
      FileNotFoundError, ValueError: no file, or a line that is no such reply.
    """
    path, replies = Path(args.replies), list[GatedReply]()
    check_file(path, "file of replies")

    def key(record: dict[str, Any]) -> Hashable:
        place = lines.key(record)
        replies.append(gated_reply(record, vocab_size))
        return place

    Journal(path, identity, key, varying=("samples", "record"))
    if not replies:
        raise ValueError(f"{path}: there is no reply in it")
    return replies


def _reread(
    args: Args,
    models: runner.Models,
    rows: Sequence[Row],
    prompts: Sequence[PromptLine],
    replies: Sequence[GatedReply],
    journal: Journal,
    console: Terminal,
) -> None:
    """Ask for every token that was not steered, and write each reply once all of its own are there."""
    longest = max(len(reply.tokens) for reply in replies)
    dense = replace(args, threshold=-math.inf, gate=None, max_new_tokens=1)
    # Rows as long as the prompts and what was replied to them.
    room = replace(dense, max_new_tokens=longest + 1)
    engine = make_engine(models, room, min(args.batch, len(replies)), rows, continues=True)
    branches = _branches(replies)
    order = list(reading_order(replies, engine.rows))
    shifted: dict[int, dict[int, bool]] = defaultdict(dict)

    def request(place: int, token: int) -> Request:
        reply = replies[place]
        own = one_reply(rows[reply.record["index"]], reply.record["branch"], branches)
        before = reply.tokens[:token]
        return make_request(
            Row(
                (*own.policy_ids, *before),
                (*own.value_ids, *before),
                jax.random.fold_in(own.key, token),
                -math.inf,
            ),
            dense,
        )

    total = sum(len(reply.closed) for reply in replies)
    progress = RunProgress(console, total)
    with engine, journal, progress:
        for reply in replies:
            if not reply.closed:
                journal.write(reply.reread({}))
        for turn, answer in engine.as_completed(request(*each) for each in order):
            place, token = order[turn]
            if not len(answer.tokens):
                raise ValueError(
                    f"{args.replies}: a number that is not finite at token {token} of the reply to prompt "
                    f"{replies[place].record['id']!r}; the weights are broken there"
                )
            shifted[place][token] = bool(answer.shifted[0])
            progress.advance(1, 1)
            if len(shifted[place]) == len(replies[place].closed):
                journal.write(replies[place].reread(shifted.pop(place)))
    console.say(f"written to {args.output}: {total:,} tokens were read again")


def _branches(replies: Sequence[GatedReply]) -> int:
    """Of the replies that are there; a key is the same whether the others are there or not."""
    return 1 + max(reply.record["branch"] for reply in replies)


def _check(args: Args) -> None:
    if args.value is None:
        raise ValueError("--value is needed: without a value model there is nothing to read")
    runner.check_options(args)
    runner.check_batch(1, args.batch)
    for name in _OF_WHOLE_REPLIES:
        if getattr(args, name):
            raise ValueError(
                f"--{name.replace('_', '-')} looks at a reply from its first token on, and here each token "
                "is asked for by itself; make replies without it"
            )
    check_suffix("--out", args.output, ".jsonl")
    inputs = {"--prompts": args.prompts, "--replies": args.replies, **runner.model_folders(args)}
    check_outputs(inputs=inputs, files={"--out": args.output})


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
