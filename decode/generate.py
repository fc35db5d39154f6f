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

import json
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.rule import Rule
from rich.text import Text

from sia_jax.data.prompts import PromptLine, text_prompts
from sia_jax.engine.reply import Reply, json_threshold
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
from sia_jax.runs.journal import Journal, place_in
from sia_jax.runs.options import SamplingArgs
from sia_jax.runs.plan import Batch, plan
from sia_jax.runs.progress import RunProgress, waiting
from sia_jax.runs.runner import Row, Runner
from sia_jax.steering.gates import reads_threshold, shut_at_infinity
from sia_jax.text.forms import Prompting


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
    journal = _open_journal(args, prompts, found)
    if journal is None:
        replies, batches = _load(args, prompts, ids, console)
        replies.show(batches, console)
        return
    wanted = {(i, j, m) for i in range(len(prompts)) for j in range(args.samples) for m in _methods(args)}
    done = journal.done & wanted
    if len(done) == len(wanted):
        console.print(f"{args.output}: all {len(wanted)} replies are there already", soft_wrap=True)
        return
    if done:
        console.print(f"{args.output}: going on after {len(done)} of {len(wanted)} replies", soft_wrap=True)
    try:
        replies, batches = _load(args, prompts, ids, console)
        replies.write(batches, journal, (len(done), len(wanted)), console)
    except KeyboardInterrupt:
        kept = f"{len(journal.done & wanted)} of {len(wanted)} replies are in {args.output}"
        again = goes_on(args.overwrite and journal.begun)
        console.print(f"\ninterrupted; {kept}, and {again}", highlight=False, soft_wrap=True)
        stop()


def _load(
    args: Args, prompts: list[PromptLine], ids: Sequence[Sequence[int]], console: Terminal
) -> tuple["_Program", list[Batch]]:
    """The models, ready to run, and what runs together."""
    with waiting(console, "loading the models"):
        models = runner.load_models(args)
    value_ids = [
        prompting.value_ids(models, prompt, own, args) for prompt, own in zip(prompts, ids, strict=True)
    ]
    rows = [_row(*each, args) for each in zip(prompts, ids, value_ids, strict=True)]
    size = runner.whole_rows(args, min(len(prompts), args.batch // args.samples))
    engine = Runner(models, args, size, branches=args.samples, record="candidates" if args.record else None)
    base = engine.base(args) if args.compare else engine
    engines: dict[str, Runner] = {method: base if method == "base" else engine for method in _methods(args)}
    batches = plan(rows, size, by_length=args.output is not None)
    return _Program(args, prompts, rows, engines), batches


@dataclass(frozen=True)
class _Program:
    """A run, once everything is checked and loaded."""

    args: Args
    prompts: list[PromptLine]
    rows: list[Row]
    engines: dict[str, Runner]
    """What generates the replies of each method."""

    def write(
        self, batches: list[Batch], journal: Journal, counts: tuple[int, int], console: Terminal
    ) -> None:
        """All replies that the journal lacks; `counts` are those done, and all."""
        tallies = {method: Tally() for method in self.engines}
        done, total = counts
        with journal, RunProgress(console, total, done) as progress:
            for batch in batches:
                keys = {
                    (i, j, m) for i in batch.indices for j in range(self.args.samples) for m in self.engines
                }
                missing = keys - journal.done
                if not missing:
                    continue
                for engine in self._uncompiled(batch):
                    with progress.aside(f"compiling for prompts of up to {batch.shape[0]} tokens"):
                        engine.compile(batch.shape)
                for method, groups, seconds in self._run(batch):
                    new = []
                    for index, group in zip(batch.indices, groups, strict=True):
                        for branch, reply in enumerate(group):
                            if (index, branch, method) in missing:
                                journal.write(self._record(index, branch, method, reply))
                                new.append(reply)
                    tallies[method].add(new, seconds)
                    progress.advance(len(new), sum(len(reply.tokens) for reply in new))
        for method, tally in tallies.items():
            line = f"{method}: {tally.replies:,} replies, {tally.describe(steered=method == 'steered')}"
            console.print(line, highlight=False, soft_wrap=True)
        console.print(f"written to {self.args.output}", highlight=False, soft_wrap=True)

    def show(self, batches: list[Batch], console: Terminal) -> None:
        """All replies, in the terminal."""
        stdout = Terminal()
        tallies = {method: Tally() for method in self.engines}
        if "steered" in self.engines:
            stdout.print(legend())
        for batch in batches:
            for engine in self._uncompiled(batch):
                with waiting(console, f"compiling for prompts of up to {batch.shape[0]} tokens"):
                    engine.compile(batch.shape)
            with waiting(console, "generating"):
                found = {}
                for method, groups, seconds in self._run(batch):
                    found[method] = groups
                    tallies[method].add([reply for group in groups for reply in group], seconds)
            for place, index in enumerate(batch.indices):
                self._show_prompt(stdout, index, {m: groups[place] for m, groups in found.items()})
        if len(self.prompts) * self.args.samples > 1 or self.args.compare:
            stdout.print(Rule(style="dim"))
        for method, tally in tallies.items():
            line = f"{method}: {tally.describe(steered=method == 'steered')}"
            stdout.print(line, style="dim", highlight=False)

    def _uncompiled(self, batch: Batch) -> list[Runner]:
        found = dict.fromkeys(self.engines.values())  # one for both methods, or two
        return [engine for engine in found if engine.needs_compiling(batch.shape)]

    def _run(self, batch: Batch) -> Iterator[tuple[str, list[list[Reply]], float]]:
        """(method, replies, seconds) of each method in turn."""
        rows = [self.rows[index] for index in batch.indices]
        for method, engine in self.engines.items():
            if self.args.compare and method == "base":
                chosen = [replace(row, threshold=math.inf) for row in rows]
            else:
                chosen = rows
            yield method, *engine.run(chosen, batch.shape, self.args)

    def _record(self, index: int, branch: int, method: str, reply: Reply) -> dict[str, Any]:
        prompt = self.prompts[index]
        return {
            **_own(prompt, method, self.args),
            "index": index,
            "branch": branch,
            "method": method,
            "prompt": prompting.prompt_json(prompt),
            **reply.to_json(),
        }

    def _show_prompt(self, stdout: Terminal, index: int, found: dict[str, list[Reply]]) -> None:
        prompt = self.prompts[index]
        first = f"prompt of {len(self.rows[index].policy_ids)} ids"
        if prompt.messages is not None:
            first = prompt.messages[-1]["content"]
        title = shown_line(first, max(16, stdout.width - 12))
        stdout.print(Rule(Text(title, "bold"), align="left", style="dim"))
        for branch in range(self.args.samples):
            number = f"reply {branch + 1} of {self.args.samples}: " if self.args.samples > 1 else ""
            if self.args.compare:
                titles = ("base", f"steered, {runner.where(self.args, self.rows[index].threshold)}")
                if number:
                    stdout.print(number.rstrip(": "), style="dim", highlight=False)
                stdout.print(side_by_side(found["base"][branch], found["steered"][branch], titles))
                continue
            for method, replies in found.items():
                reply = replies[branch]
                stdout.print(reply_text(reply), soft_wrap=False)
                line = number + summary(reply, steered=method == "steered")
                stdout.print(Text(line, "dim"))


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
    if prompt.seed is None:
        key = runner.prompt_key(args.seed, prompt.index)
    else:
        key = runner.own_key(prompt.seed)
    threshold = runner.threshold(args) if prompt.threshold is None else prompt.threshold
    return Row(policy_ids, value_ids, key, threshold)


def _own(prompt: PromptLine, method: str, args: Args) -> dict[str, Any]:
    """What a record says of its prompt's line, beside the prompt itself."""
    threshold = runner.threshold(args) if prompt.threshold is None else prompt.threshold
    return {
        "id": prompt.id,
        "seed": args.seed if prompt.seed is None else prompt.seed,
        "threshold": json_threshold(math.inf if method == "base" and args.compare else threshold),
    }


def _open_journal(args: Args, prompts: list[PromptLine], found: Prompting | None) -> Journal | None:
    if args.output is None:
        return None
    here = [json.dumps(prompting.prompt_json(prompt)) for prompt in prompts]

    def key(record: dict[str, Any]) -> Hashable:
        index, method = place_in(record, "index"), record["method"]
        if index >= len(here) or json.dumps(record["prompt"]) != here[index]:
            raise ValueError(f"prompt {record['id']!r} is not the input's prompt at place {index}")
        ours = _own(prompts[index], method, args)
        differing = [name for name, value in ours.items() if record[name] != value]
        if differing:
            changes = ", ".join(f"{name} {record[name]!r} (now {ours[name]!r})" for name in differing)
            raise ValueError(f"the prompt at place {index} was another line: {changes}")
        return index, place_in(record, "branch"), method

    settings = runner.run_identity(args, found) | {"samples": args.samples, "record": args.record}
    return Journal(Path(args.output), settings, key, overwrite=args.overwrite)


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
