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
depends on --seed, on the ids of its prompt, on the row's "id" if it has one, and on how many rows without one
came before with the same prompt; not on its place, its neighbours, --batch or --mesh, near ties aside. A
line's own "seed" takes the place of all that. The lines are in the order of the prompts in the end. --out
x.parquet writes Parquet then, and a journal beside it until then. --shard does a share of the prompts, into
a part of the file, for sia merge. --ray has the actors of a Ray cluster, or of a Ray on this machine, make
the replies; the file is the same.
"""

import math
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal

import tyro
from rich.rule import Rule
from rich.text import Text

import sia_jax
from sia_jax.cluster.options import RayArgs, check_ray, on_one_device
from sia_jax.cluster.run import shared_out
from sia_jax.cluster.sampling import SamplingRecipe, Unit, sampling_args
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
    make_base,
    make_engine,
    missing_replies,
    warm_up,
)
from sia_jax.runs.journal import Journal
from sia_jax.runs.options import Models, SamplingArgs
from sia_jax.runs.parts import Part, Work
from sia_jax.runs.programs import is_program
from sia_jax.runs.progress import RunProgress, waiting
from sia_jax.runs.prompt_ids import SETTINGS, draws_of, key_of_draws, prompt_id
from sia_jax.runs.provenance import made_here
from sia_jax.runs.reply_files import ReplyFiles, reply_files
from sia_jax.runs.reply_lines import ReplyLines
from sia_jax.runs.shards import Shard, ShardArgs, find_shard
from sia_jax.steering.gates import reads_threshold, shut_at_infinity


@dataclass(frozen=True, kw_only=True)
class Args(PromptFileArgs, SamplingArgs, ShardArgs, RayArgs):
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
    """A .jsonl or .parquet file of replies and records. One that is there is continued. Without: the
    terminal."""
    overwrite: Flag = False
    """Begin the output file anew."""
    record: Flag = False
    """Record the candidates of every token too."""


def main(args: Args) -> None:
    """Generate; exits with 1 if something is wrong with options or files, and with 130 after Ctrl-C."""
    with program("decode.generate", smaller=f"lower --batch, now {args.batch}") as console:
        files = _check(args)
        with locked(files=(None if files is None else files.out,)):
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
    settings = runner.run_identity(args, found) | SETTINGS | {"samples": args.samples, "record": args.record}
    draws = draws_of(prompts, ids)
    files, shard = reply_files(args.output, args.shard), find_shard(args.shard) or Shard(0, 1)
    if files is None:
        _load(args, prompts, ids, draws, console).show(console)
        return
    names = [prompt_id(*each, settings) for each in zip(prompts, draws, strict=True)]
    unsteered = ("base",) if args.compare else ()
    lines = ReplyLines(prompts, args.seed, runner.threshold(args), names, unsteered)
    branches = [(j, m) for j in range(args.samples) for m in _methods(args)]
    wanted: set[Hashable] = {(i, *branch) for i in shard.places(len(prompts)) for branch in branches}
    part = None
    if args.shard is not None:
        rows = runner.whole_rows(args, min(args.batch, len(prompts) * args.samples))
        made_by = made_here(rows=rows, mesh=list(args.mesh))
        units = [(name,) for name in names]
        fields = (("prompt_id",), ("branch", "method"))
        part = Part(files.out, Work("decode.generate", settings, made_by, *fields, units, branches), shard)
    journal = files.open(settings, lines.key, overwrite=args.overwrite)
    done = journal.done & wanted
    if part is not None:
        part.begin(has_records=bool(journal.done), overwrite=args.overwrite)
    if len(done) < len(wanted):
        files.check_grows(journal)
        if done:
            going = f"{args.output}: going on after {len(done)} of {len(wanted)} replies"
            console.print(going, soft_wrap=True)
        try:
            if args.ray is not None:
                read = _Read(prompts, ids, draws, Models(policy, value), settings)
                _share_out_with_ray(args, read, lines, journal, wanted, console)
            else:
                _load(args, prompts, ids, draws, console).write(lines, journal, wanted, console)
        except KeyboardInterrupt:
            kept = f"{len(journal.done & wanted)} of {len(wanted)} replies are in {journal.path}"
            again = goes_on(args.overwrite and journal.begun)
            console.print(f"\ninterrupted; {kept}, and {again}", highlight=False, soft_wrap=True)
            stop()
    files.finish(journal, lines.order)
    if part is not None:
        part.end()
    if len(done) == len(wanted):
        console.print(f"{files.out}: all {len(wanted)} replies are there already", soft_wrap=True)
    else:
        console.print(f"written to {files.out}", highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class _Read:
    """The input, as it was read."""

    prompts: list[PromptLine]
    ids: Sequence[Sequence[int]]
    """Of the policy."""
    draws: Sequence[str]
    models: Models
    """Without weights."""
    settings: Mapping[str, Any]
    """Of the run."""


def _share_out_with_ray(
    args: Args, read: _Read, lines: ReplyLines, journal: Journal, wanted: set[Hashable], console: Terminal
) -> None:
    """All replies that the journal lacks, made by actors of Ray."""

    def asked() -> Iterator[tuple[PromptLine, str, Sequence[int], Sequence[int]]]:
        # Made when they are looked at: of a million prompts they would be as large as the input.
        for prompt, draws, own in zip(read.prompts, read.draws, read.ids, strict=True):
            yield prompt, draws, own, prompting.value_ids(read.models, prompt, own, args)

    recipe = SamplingRecipe(
        args=sampling_args(args),
        samples=args.samples,
        rows=min(args.batch, len(read.prompts) * args.samples),
        longest=max(max(len(own), len(values)) for _, _, own, values in asked()),
        methods=_methods(args),
        record="candidates" if args.record else None,
        settings=read.settings,
        keeps_compiled=is_program(),
        smaller=f"lower --batch, now {args.batch}",
    )

    missing = wanted - journal.done

    def units() -> Iterator[Unit]:
        for method in _methods(args):
            unsteered = method == "base" and args.compare
            for prompt, draws, own, values in asked():
                keys = ((j, (prompt.index, j, method)) for j in range(args.samples))
                branches = tuple(j for j, key in keys if key in missing)
                if branches:
                    threshold = math.inf if unsteered else _threshold(prompt, args)
                    yield Unit.of(prompt, method, branches, own, values, draws, threshold)

    progress = RunProgress(console, len(wanted), len(wanted) - len(missing))
    with shared_out(recipe, units(), args, console) as blocks, journal, progress:
        for block in blocks:
            new = [made for made in block if made.key not in journal.done]
            for made in new:
                index, branch, method = made.key
                journal.write(lines.line(index, branch, method, made.reply))
            progress.advance(len(new), sum(len(made.reply["tokens"]) for made in new))
    console.print(f"{len(missing):,} replies, {progress.rates()}", highlight=False, soft_wrap=True)


def _load(
    args: Args,
    prompts: list[PromptLine],
    ids: Sequence[Sequence[int]],
    draws: Sequence[str],
    console: Terminal,
) -> "_Program":
    """The models in engines, and the prompts as these take them."""
    with waiting(console, "loading the models"):
        models = runner.load_models(args)
    rows = [
        _row(prompt, own, prompting.value_ids(models, prompt, own, args), key, args)
        for prompt, own, key in zip(prompts, ids, draws, strict=True)
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
                missing = self._missing(method, journal.done, wanted)
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

    def show(self, console: Terminal) -> None:
        """All replies in the terminal, in the order of the prompts; of both methods at the same time."""
        stdout, engines = Terminal(), self.engines
        tallies = {method: Tally() for method in engines}
        if "steered" in engines:
            stdout.print(legend())
        with self._open():
            streams = {}
            for method, engine in engines.items():
                missing = self._missing(method, set(), None)
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

    def _missing(self, method: str, done: set[Hashable], wanted: set[Hashable] | None) -> list[Missing]:
        """What the run lacks of a method; `wanted`: of these replies, None: of all."""

        def is_done(index: int, branch: int) -> bool:
            key = (index, branch, method)
            return key in done or not (wanted is None or key in wanted)

        return missing_replies(self.rows[method], self.args, self.args.samples, is_done)

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


def _check(args: Args) -> ReplyFiles | None:
    """The files that are written; None: the terminal."""
    if args.ray is not None and args.output is None:
        raise ValueError("--ray needs a file to write to: give --out FILE.jsonl")
    check_ray(args)
    runner.check_options(on_one_device(args))
    runner.check_batch(args.samples, args.batch)
    if args.compare and args.value is None:
        raise ValueError("--compare needs a value model to compare with: give --value DIR")
    if args.compare and args.threshold == math.inf and shut_at_infinity(runner.steering(args).gate):
        raise ValueError("--compare with --threshold inf would compare the policy with itself")
    if args.record and args.output is None:
        raise ValueError("--record needs a file to write to: give --out FILE.jsonl")
    if args.overwrite and args.output is None:
        raise ValueError("--overwrite needs the file: give --out FILE.jsonl")
    if args.shard is not None and args.output is None:
        raise ValueError("--shard needs a file to write a part of: give --out FILE.jsonl")
    files = reply_files(args.output, args.shard)
    check_outputs(
        inputs={"--prompts": args.prompts, **runner.model_folders(args)},
        files={} if files is None else files.named("--out"),
    )
    return files


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


def _row(
    prompt: PromptLine, policy_ids: Sequence[int], value_ids: Sequence[int], draws: str, args: Args
) -> Row:
    key = key_of_draws(prompt, draws, args.seed, args.samples)
    return Row(policy_ids, value_ids, key, _threshold(prompt, args))


def _threshold(prompt: PromptLine, args: Args) -> float:
    return runner.threshold(args) if prompt.threshold is None else prompt.threshold


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
