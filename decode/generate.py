r"""Prompts in, steered replies and the record of their steering out.

    # Base and steered side by side, with the same random numbers:
    python -m decode.generate --policy Qwen/Qwen3-1.7B-Base --value out/vm/best --compare \
        --prompt "How do I keep basil alive in winter?"

    # A file of prompts into a file of replies; started again, it goes on where it stopped:
    python -m decode.generate --policy Qwen/Qwen3-1.7B-Base --value out/vm/best --threshold 1.2 \
        --prompts prompts.jsonl --batch 16 --out out/replies.jsonl

    # The official code's settings, prompts from a pipe, a paragraph of each reply:
    head prompts.txt | python -m decode.generate --policy Qwen/Qwen3-1.7B-Base --value out/vm/best \
        --preset official --prompts - --stop $'\n\n'

A row of a file of prompts is {"prompt": text or messages}, {"messages": [...]} or {"prompt_ids": [...],
"value_ids": [...]}, and may have "id", "seed" and "threshold". The content tells the form of the file, which
is said once: JSONL, one JSON list, CSV and TSV (the column `prompt`, `goal`, or the one that published sets
use; else --column), Parquet, or text with a prompt on each line; all of them UTF-8, with gzip or without. A
text file that looks like JSON is read as JSON; what is none of these is refused by name.

In the terminal, junctions are magenta, and underlined where the value model changed the token. A reply
depends on --seed and on the place of its prompt in the input, not on --batch or --mesh, near ties aside; a
line's own "seed" makes it independent of its place too.
"""

import math
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.rule import Rule
from rich.text import Text

import sia_jax
from sia_jax.data.prompts import PromptLine, text_prompts
from sia_jax.engine.reply import Reply
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs
from sia_jax.files.shown import shown_line
from sia_jax.reports.terminal import Tally, legend, reply_text, side_by_side, summary
from sia_jax.runs import preflight, prompting, runner
from sia_jax.runs.cli import (
    Count,
    File,
    Flag,
    PromptFileArgs,
    Repeated,
    check_used,
    goes_on,
    program,
    read_options,
    stop,
)
from sia_jax.runs.console import Terminal
from sia_jax.runs.engines import (
    Missing,
    Row,
    completed,
    in_order,
    key_of,
    make_base,
    make_engine,
    missing_replies,
    warm_up,
)
from sia_jax.runs.journal import Journal
from sia_jax.runs.options import SamplingArgs
from sia_jax.runs.progress import RunProgress, waiting
from sia_jax.runs.reply_lines import ReplyLines
from sia_jax.steering.gates import reads_threshold, shut_at_infinity


@dataclass(frozen=True, kw_only=True)
class Args(PromptFileArgs, SamplingArgs):
    """Generate replies."""

    prompt: Repeated = ()
    """A prompt."""
    prompts: File = None
    """A file of prompts: JSONL, a JSON list, CSV, TSV, Parquet, or text with one a line. -: from stdin."""
    samples: Count = 1
    """Replies for each prompt."""
    batch: Count = 8
    """Replies that are generated at a time."""
    compare: Flag = False
    """Also generate each reply unsteered, with the same random numbers."""
    output: Annotated[File, tyro.conf.arg(aliases=["--out"])] = None
    """A .jsonl file of replies and records. One that is there is continued. Without: the terminal."""
    overwrite: Flag = False
    """Begin the output file anew."""
    record: Flag = False
    """Record the candidates of every token too."""


def main(args: Args) -> None:
    """Generate; exits with 1 if something is wrong with options or files, and with 130 after Ctrl-C."""
    with program("decode.generate", smaller=f"lower --batch, now {args.batch}") as console:
        _check(args)
        with locked(files=(None if args.output is None else Path(args.output),)):
            run(args, console)


def run(args: Args, console: Terminal) -> None:
    """`main`, without its ways out.

    Raises:
      FileNotFoundError, ValueError: what is wrong with options and files.
      SystemExit: interrupted, with replies in a file.
    """
    prompts = _read(args)
    policy = runner.prepare(args)
    found = prompting.find_prompting(policy, args)
    prompting.announce(found, prompts, console)
    value = preflight.value_without_weights(args, policy)
    ids = preflight.policy_ids(prompts, runner.Models(policy, value), args, found)
    if args.output is None:
        _load(args, prompts, ids, console).show(console)
        return
    lines = ReplyLines(prompts, args.seed, runner.threshold(args), ("base",) if args.compare else ())
    settings = runner.run_identity(args, found) | {"samples": args.samples, "record": args.record}
    journal = Journal(Path(args.output), settings, lines.key, overwrite=args.overwrite)
    wanted: set[Hashable] = {
        (i, j, m) for i in range(len(prompts)) for j in range(args.samples) for m in _methods(args)
    }
    done = journal.done & wanted
    if len(done) == len(wanted):
        console.print(f"{args.output}: all {len(wanted)} replies are there already", soft_wrap=True)
        return
    if done:
        console.print(f"{args.output}: going on after {len(done)} of {len(wanted)} replies", soft_wrap=True)
    try:
        _load(args, prompts, ids, console).write(lines, journal, wanted, console)
    except KeyboardInterrupt:
        kept = f"{len(journal.done & wanted)} of {len(wanted)} replies are in {args.output}"
        again = goes_on(args.overwrite and journal.begun)
        console.print(f"\ninterrupted; {kept}, and {again}", highlight=False, soft_wrap=True)
        stop()


def _load(
    args: Args, prompts: list[PromptLine], ids: Sequence[Sequence[int]], console: Terminal
) -> "_Program":
    """The models in engines, and the prompts as these take them."""
    with waiting(console, "loading the models"):
        models = runner.load_models(args)
    rows = [
        _row(prompt, own, prompting.value_ids(models, prompt, own, args), args)
        for prompt, own in zip(prompts, ids, strict=True)
    ]
    record: Literal["candidates"] | None = "candidates" if args.record else None
    engine = make_engine(models, args, min(args.batch, len(rows) * args.samples), rows, record=record)
    if not args.compare:
        (method,) = _methods(args)
        return _Program(args, prompts, {method: rows}, {method: engine})
    unsteered = [replace(row, threshold=math.inf) for row in rows]
    base = make_base(engine, models, args, unsteered, record=record)
    return _Program(args, prompts, {"base": unsteered, "steered": rows}, {"base": base, "steered": engine})


@dataclass(frozen=True)
class _Program:
    """A run, once everything is checked and loaded."""

    args: Args
    prompts: list[PromptLine]
    rows: dict[str, list[Row]]
    """The prompts, as each method takes them."""
    engines: dict[str, sia_jax.Engine]
    """What generates the replies of each method; one, or two."""

    def write(self, lines: ReplyLines, journal: Journal, wanted: set[Hashable], console: Terminal) -> None:
        """All replies that the journal lacks, one method after the other."""
        tallies = {}
        progress = RunProgress(console, len(wanted), len(journal.done & wanted))
        with self._open(), journal, progress:
            for method, engine in self.engines.items():
                missing = self._missing(method, journal.done)
                warm_up(engine, missing, progress.aside)
                tallies[method], since = Tally(), time.perf_counter()
                for index, branch, reply in completed(engine, missing):
                    journal.write(lines.record(index, branch, method, reply))
                    since, begin = time.perf_counter(), since
                    tallies[method].add([reply], since - begin)
                    progress.advance(1, len(reply.tokens))
        for method, tally in tallies.items():
            line = f"{method}: {tally.replies:,} replies, {tally.describe(steered=method == 'steered')}"
            console.print(line, highlight=False, soft_wrap=True)
        console.print(f"written to {self.args.output}", highlight=False, soft_wrap=True)

    def show(self, console: Terminal) -> None:
        """All replies in the terminal, in the order of the prompts; of both methods at the same time."""
        stdout, engines = Terminal(), self.engines
        tallies = {method: Tally() for method in engines}
        if "steered" in engines:
            stdout.print(legend())
        with self._open():
            streams = {}
            for method, engine in engines.items():
                missing = self._missing(method, set())
                warm_up(engine, missing, partial(waiting, console))
                requests = [each.request for each in missing]
                # As many at a time as there are rows: both methods may share them.
                streams[method] = in_order(engine.as_completed(requests, ahead=engine.rows))
            begin = time.perf_counter()
            for index in range(len(self.prompts)):
                with waiting(console, "generating"):
                    whole = {method: next(stream) for method, stream in streams.items()}
                found = {method: reply.choices or (reply,) for method, reply in whole.items()}
                for method, replies in found.items():
                    tallies[method].add(replies, sum(map(_seconds_in_row, replies)))
                self._show_prompt(stdout, index, found)
            _share_out(time.perf_counter() - begin, list(tallies.values()))
        if len(self.prompts) * self.args.samples > 1 or self.args.compare:
            stdout.print(Rule(style="dim"))
        for method, tally in tallies.items():
            line = f"{method}: {tally.describe(steered=method == 'steered')}"
            stdout.print(line, style="dim", highlight=False)

    @contextmanager
    def _open(self) -> Iterator[None]:
        with ExitStack() as stack:
            for engine in self.engines.values():
                stack.enter_context(engine)
            yield

    def _missing(self, method: str, done: set[Hashable]) -> list[Missing]:
        return missing_replies(
            self.rows[method],
            self.args,
            self.args.samples,
            lambda index, branch: (index, branch, method) in done,
        )

    def _show_prompt(self, stdout: Terminal, index: int, found: Mapping[str, Sequence[Reply]]) -> None:
        prompt, row = self.prompts[index], self.rows[_methods(self.args)[-1]][index]
        first = f"prompt of {len(row.policy_ids)} ids"
        if prompt.messages is not None:
            first = prompt.messages[-1]["content"]
        title = shown_line(first, max(16, stdout.width - 12))
        stdout.print(Rule(Text(title, "bold"), align="left", style="dim"))
        for branch in range(self.args.samples):
            number = f"reply {branch + 1} of {self.args.samples}: " if self.args.samples > 1 else ""
            if self.args.compare:
                titles = ("base", f"steered, {runner.where(self.args, row.threshold)}")
                if number:
                    stdout.print(number.rstrip(": "), style="dim", highlight=False)
                stdout.print(side_by_side(found["base"][branch], found["steered"][branch], titles))
                continue
            for method, replies in found.items():
                reply = replies[branch]
                stdout.print(reply_text(reply), soft_wrap=False)
                line = number + summary(reply, steered=method == "steered")
                stdout.print(Text(line, "dim"))


def _seconds_in_row(reply: Reply) -> float:
    assert reply.timing is not None
    return reply.timing.ended - reply.timing.admitted


def _share_out(seconds: float, tallies: Sequence[Tally]) -> None:
    """Methods that ran side by side took a run's seconds by the time that their replies were in rows."""
    in_rows = sum(tally.seconds for tally in tallies)
    for tally in tallies:
        tally.seconds *= seconds / in_rows


def _check(args: Args) -> None:
    runner.check_options(args)
    runner.check_batch(args.samples, args.batch)
    if args.compare and args.value is None:
        raise ValueError("--compare needs a value model to compare with: give --value DIR")
    if args.compare and args.threshold == math.inf and shut_at_infinity(runner.steering(args).gate):
        raise ValueError("--compare with --threshold inf would compare the policy with itself")
    if args.record and args.output is None:
        raise ValueError("--record needs a file to write to: give --out FILE.jsonl")
    if args.overwrite and args.output is None:
        raise ValueError("--overwrite needs the file: give --out FILE.jsonl")
    check_outputs(
        inputs={"--prompts": args.prompts, **runner.model_folders(args)}, files={"--out": args.output}
    )


def _read(args: Args) -> list[PromptLine]:
    if bool(args.prompt) == (args.prompts is not None):
        raise ValueError(
            "give the prompts with --prompt TEXT (repeatable), or with --prompts FILE (- for stdin)"
        )
    if args.prompts is None:
        check_used(args, ("column",), "--prompts FILE")
        prompts = text_prompts(args.prompt, args.system)
    else:
        prompts = prompting.read_prompt_file(args.prompts, args.column, args.system, takes_stdin=True)
    for prompt in prompts:
        if args.value is None and prompt.threshold not in (None, math.inf):
            raise ValueError(
                f"prompt {prompt.id!r} has threshold {prompt.threshold:g}, which needs a value model: give "
                "--value DIR"
            )
        if prompt.threshold is not None and not reads_threshold(runner.steering(args).gate):
            raise ValueError(
                f"prompt {prompt.id!r} has threshold {prompt.threshold:g}, which is for a gate with entropy "
                f"or budget in it, got --gate {args.gate!r}"
            )
    return prompts


def _methods(args: Args) -> tuple[Literal["base", "steered"], ...]:
    if args.compare:
        return ("base", "steered")
    return ("base",) if args.value is None else ("steered",)


def _row(prompt: PromptLine, policy_ids: Sequence[int], value_ids: Sequence[int], args: Args) -> Row:
    threshold = runner.threshold(args) if prompt.threshold is None else prompt.threshold
    return Row(policy_ids, value_ids, key_of(prompt, args.seed), threshold)


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
