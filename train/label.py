r"""Conversations in, the same with rewards out: of reward models, of Python functions, or a weighted sum.

    python -m train.label --input replies.jsonl --reward Skywork/Skywork-Reward-V2-Qwen3-8B \
        --out labelled.jsonl

    # Llama 3.2's template writes a date into every conversation, and so into every reward:
    python -m train.label --input replies.jsonl --reward Skywork/Skywork-Reward-V2-Llama-3.2-3B \
        --date-string "26 Jul 2024" --out labelled.jsonl --plot rewards.png

    # A program as the reward, and a sum: functions of the current folder or an installed module.
    python -m train.label --input replies.jsonl --reward-function sia_jax.rewards.sentiment:vader \
        --length-penalty 0.01 --out labelled.jsonl

    # A set of train.prepare: another with the same ids, and rewards.
    python -m train.label --input data/sampled --reward Skywork/Skywork-Reward-V2-Qwen3-8B --out data/labelled

A line is {"messages": [...]}, which ends with the assistant, {"prompt": text, "response": text}, or what
decode.generate writes. Its other fields are carried over as they are; "reward" is added, and of a sum its
"reward_parts". Conversations without a reply, longer than --max-tokens or without a reward that is a number
are left out, never cut, and listed in OUT.report.json. While it runs, OUT.partial.jsonl holds what is done,
and the same command, started again, goes on from there; in the end OUT stands in the order of the input, the
same bytes however often the run was interrupted. Input and OUT may be Parquet, by the name x.parquet. With
--shard a share of the conversations is scored, into OUT.partial.0-of-4.jsonl; sia merge makes
OUT.partial.jsonl of all of them, with which the command without --shard writes OUT. With --ray the actors of
a Ray cluster, or of a Ray on this machine, do the scoring; OUT is the same.
"""

import json
import sys
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from rich.table import Table

from sia_jax.cluster.options import RayArgs, check_ray
from sia_jax.cluster.run import shared_out
from sia_jax.cluster.scoring import Conversation, ScoringRecipe, scored_at_a_time
from sia_jax.data.labelled import Conversations, content_sha256, is_written, noun, read_rewards, survey
from sia_jax.data.row_files import put_in_order
from sia_jax.data.set_folder import set_folder
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs, check_suffix
from sia_jax.files.reading import read_bytes
from sia_jax.files.strict_json import parse_object
from sia_jax.files.writing import write_text
from sia_jax.parallel.lock_step import agreed
from sia_jax.reports.rewards import parts_distribution, plot_rewards, reward_distribution
from sia_jax.rewards.labelling import REASONS, Labeller, Outcome
from sia_jax.rewards.weighted import WeightedLabeller, labeller_of
from sia_jax.runs.cli import (
    Count,
    File,
    Flag,
    Int,
    Names,
    check_texts,
    check_used,
    goes_on,
    memory_explained,
    program,
    read_options,
)
from sia_jax.runs.console import Terminal
from sia_jax.runs.interruption import Interruption
from sia_jax.runs.journal import Journal
from sia_jax.runs.label_files import LabelFiles, Labels
from sia_jax.runs.parts import Part, Work
from sia_jax.runs.processes import as_chief_has, joined, mesh_of_all
from sia_jax.runs.programs import is_program
from sia_jax.runs.progress import RunProgress, waiting
from sia_jax.runs.provenance import made_here
from sia_jax.runs.rewards import RewardArgs, RewardSource, find_reward, model_settings, reward_inputs
from sia_jax.runs.shards import Shard, ShardArgs, find_shard, goes_on_smaller


@dataclass(frozen=True, kw_only=True)
class Args(RewardArgs, ShardArgs, RayArgs):
    """Label conversations."""

    input: Annotated[str, tyro.conf.arg(metavar="PATH")]
    """The conversations: a file, JSONL or Parquet, or the folder of a set."""
    reward_model: Annotated[Names, tyro.conf.arg(aliases=["--reward"])] = ()
    """A reward model: a folder, or else a Hub id. DIR=WEIGHT weights it. May be given again: the reward is
    the weighted sum."""
    out: Annotated[str, tyro.conf.arg(metavar="PATH")]
    """Where the labelled conversations go, a file or a folder as the input is."""
    dtype: Literal["config", "float32", "bfloat16"] = "config"
    """Of the weights; config: as config.json says. float32 is the fast one on a CPU."""
    date_string: Annotated[str | None, tyro.conf.arg(metavar="DATE", help_behavior_hint="")] = None
    """The date that the chat template writes, such as "26 Jul 2024"; must be given if it writes today's."""
    max_tokens: Count = 4096
    """Longer conversations are left out; at most the model's positions."""
    batch_tokens: Count = 8192
    """Of a batch, padding included. More is faster until the memory is full."""
    mesh: Annotated[tuple[int, int, int], tyro.conf.arg(metavar="DATA FSDP TENSOR")] = (1, 1, 1)
    """Devices that replicate the weights, split them, and split heads and features; all there are, or one."""
    distributed: Flag = False
    """Whether this is one of several processes; the launcher's environment says which, and of how many."""
    limit: Int = None
    """Only the first N conversations."""
    relabel: Flag = False
    """Replace the rewards of lines that have one."""
    overwrite: Flag = False
    """Begin anew, whatever OUT and OUT.partial.jsonl hold."""
    plot: File = None
    """A .png file for a histogram of the rewards."""


def main(args: Args) -> None:
    """Label; exits with 1 if something is wrong with options or files, with 130 or 143 if interrupted."""
    with program("train.label") as console:
        _check(args)
        is_set, out = Path(args.input).is_dir(), Path(args.out)
        if args.shard is not None:
            with locked(files=(LabelFiles(out, find_shard(args.shard)).partial,)):
                run(args, console)
            return
        files = (None if is_set else out, None if args.plot is None else Path(args.plot))
        lock = locked(folders=(out if is_set else None,), files=files)
        with joined(args.distributed, lock) as chief:
            console.quiet = not chief
            run(args, console, chief=chief)


def run(args: Args, console: Terminal, *, chief: bool = True) -> None:
    """`main`, without its ways out.

    Args:
      args: of the run.
      console: for its messages.
      chief: whether this process, of several, is the one that writes.

    Raises:
      FileNotFoundError, ValueError: what is wrong with options and files.
      SystemExit: interrupted by a signal; what was scored is in OUT.partial.jsonl.
    """
    files = LabelFiles(Path(args.out), find_shard(args.shard))
    mesh = None if args.ray is not None else mesh_of_all(args.mesh, distributed=args.distributed)
    begun = agreed(
        "labelling", lambda: _begin(args, files, console, chief), lambda begun: begun.identity, mesh=mesh
    )
    source, total = begun.source, len(begun.wanted)
    known = np.array([begun.report is not None or n in begun.done for n in source.digests])
    known = as_chief_has(known, distributed=args.distributed)
    if begun.report is not None:
        console.print(f"{args.out}: everything is labelled already", soft_wrap=True, highlight=False)
        _show(args, begun.report, read_rewards(files.out), console)
        return
    known_numbers = {number for number, is_known in zip(source.digests, known, strict=True) if is_known}
    missing = begun.wanted - known_numbers
    done = total - len(missing)
    if done:
        text = f"{files.partial}: going on after {done:,} of {total:,} conversations"
        console.print(text, soft_wrap=True, highlight=False)
    if done < total:
        progress = RunProgress(console, total, done, "conversations")
        if args.ray is not None:
            interruption = _score_with_ray(args, begun, missing, progress, console)
        else:
            with waiting(console, "loading the rewards"):
                dtype = None if args.dtype == "config" else args.dtype
                models = begun.reward.load(dtype=dtype, mesh=mesh)
            labeller = labeller_of(
                begun.reward.total,
                models,
                begun.templates,
                batch_tokens=args.batch_tokens,
                max_tokens=args.max_tokens,
                compiling=lambda n: progress.aside(f"compiling for conversations of up to {n} tokens"),
            )
            interruption = _score(args, labeller, source, missing, begun.journal, progress)
        scored = f"{len(begun.done) - done:,} scored, {progress.rates()}"
        console.print(scored, highlight=False, soft_wrap=True)
        if interruption.wanted:
            kept = f"{len(begun.done):,} of {total:,} are in {files.partial}, and {goes_on(args.overwrite)}"
            console.print(f"\ninterrupted; {kept}", highlight=False, soft_wrap=True)
            sys.exit(interruption.exit_status)
    if begun.part is not None:
        assert begun.journal is not None
        _finish_part(begun.part, begun.journal)
        text = f"{total:,} conversations are in {files.partial}"
        console.print(text, highlight=False, soft_wrap=True)
    elif chief:
        _finish(args, files, source, begun.labels, begun.identity, console)


@dataclass(frozen=True)
class _Begun:
    """A run, once its options and files were read."""

    reward: RewardSource
    templates: Sequence[Mapping[str, str]]
    source: Conversations
    wanted: frozenset[int]
    """Conversations that are to be labelled: all, or the shard's."""
    identity: dict[str, Any]
    """What the labels depend on."""
    labels: Labels
    journal: Journal | None
    """The chief's."""
    report: dict[str, Any] | None
    """Of the run that has labelled everything already; the chief's."""
    part: Part | None = None
    """Of a shard."""

    @property
    def done(self) -> Collection[Hashable]:
        """Conversations that the journal has."""
        return () if self.journal is None else self.journal.done


def _begin(args: Args, files: LabelFiles, console: Terminal, chief: bool) -> _Begun:
    reward = find_reward(args.reward_model, args)
    settings, templates = model_settings(reward.models, args.date_string, args.dtype, args.max_tokens)
    settings |= reward.settings(templates)
    if args.date_string is None and settings["date_string"] is not None:
        text = f"date: {settings['date_string']} (the chat template's own; --date-string sets another)"
        console.say(text, "dim")
    source = survey(Path(args.input), args.limit, relabel=args.relabel)
    identity = {"input_sha256": source.sha256, "limit": args.limit, "settings": settings}
    own = files.shard
    shard = own or Shard(0, 1)
    wanted = frozenset([*source.digests][shard.index :: shard.count])
    labels = Labels(source)
    begun = _Begun(reward, templates, source, wanted, identity, labels, None, None)
    if not chief:
        return begun
    if own is None and not args.overwrite and not files.partial.exists() and is_written(files.out):
        return replace(begun, report=_finished(files, identity))
    journal, part = Journal(files.partial, settings, labels.take, overwrite=args.overwrite), None
    if own is not None:
        made_by = made_here(batch_tokens=args.batch_tokens, mesh=list(args.mesh))
        fields, units = (("line", "conversation"), ()), [*source.digests.items()]
        part = Part(files.partial, Work("train.label", settings, made_by, *fields, units, [()]), own)
        part.begin(has_records=len(journal.done) > 0, overwrite=args.overwrite)
    return replace(begun, journal=journal, part=part)


def _check(args: Args) -> None:
    check_ray(args)
    check_texts(args)
    for name in ("max_tokens", "batch_tokens", "limit"):
        number = getattr(args, name)
        if number is not None and number < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be 1 or more, got {number}")
    if not args.reward_model:
        check_used(
            args,
            ("dtype", "date_string", "max_tokens", "batch_tokens", "mesh", "distributed"),
            "--reward DIR",
        )
    out = Path(args.out)
    is_set = Path(args.input).is_dir()
    if out.is_dir() and not is_set:
        raise ValueError(f"--out must be a file, {out} is a folder")
    if out.is_file() and is_set:
        raise ValueError(f"--out must be a folder, as --input is, {out} is a file")
    files = LabelFiles(out, find_shard(args.shard))
    read = set_folder(Path(args.input)) if is_set else Path(args.input)
    check_outputs(
        inputs={"--input": read, **reward_inputs(args.reward_model)},
        files={
            **({} if is_set else {"--out": out}),
            "--out's journal": files.partial,
            "--out's report": files.report,
            "--plot": args.plot,
        },
        folders={"--out": set_folder(out)} if is_set else {},
    )
    check_suffix("--plot", args.plot, ".png")
    if args.shard is not None:
        check_used(args, ("plot",), "the whole file, which no shard writes")
        check_used(args, ("distributed",), "a run without --shard, which several processes share")
    if args.ray is not None:
        check_used(args, ("distributed",), "a run without --ray, whose actors are processes of their own")


def _score(
    args: Args,
    labeller: Labeller | WeightedLabeller,
    source: Conversations,
    missing: Collection[int],
    journal: Journal | None,
    progress: RunProgress,
) -> Interruption:
    """What the journal lacks goes into it; after a signal, what is being computed alone."""
    save = _saves(source, journal, progress)
    # Of several processes each would stop at a place of its own; there a signal does what it always does.
    interruption = Interruption()
    signals = nullcontext() if args.distributed else interruption
    with memory_explained(_smaller(args)), signals, journal or nullcontext(), progress:
        for line in source.lines():
            if interruption.wanted:
                break
            if line.number in missing:
                save(labeller.add(line.number, line.messages))
        else:
            for batch in labeller.finish():
                save(batch)
                if interruption.wanted:
                    break
        save(labeller.drain())
    return interruption


def _score_with_ray(
    args: Args, begun: _Begun, missing: Collection[int], progress: RunProgress, console: Terminal
) -> Interruption:
    """What the journal lacks goes into it, scored by actors of Ray; after a signal, the next block alone."""
    assert begun.journal is not None
    save, done = _saves(begun.source, begun.journal, progress), begun.journal.done
    recipe = ScoringRecipe(
        models=args.reward_model,
        args=RewardArgs(reward_function=args.reward_function, length_penalty=args.length_penalty),
        dtype=args.dtype,
        date_string=args.date_string,
        max_tokens=args.max_tokens,
        batch_tokens=args.batch_tokens,
        mesh=args.mesh,
        settings=begun.identity["settings"],
        keeps_compiled=is_program(),
        smaller=_smaller(args),
        units=scored_at_a_time(len(missing), args.ray_actors),
    )
    lines = (Conversation(x.number, x.messages) for x in begun.source.lines() if x.number in missing)
    interruption = Interruption()
    with interruption, shared_out(recipe, lines, args, console) as blocks, begun.journal, progress:
        for block in blocks:
            save([outcome for outcome in block if outcome.index not in done])
            if interruption.wanted:
                break
    return interruption


def _smaller(args: Args) -> str:
    lower = f"lower --batch-tokens, now {args.batch_tokens}, or --max-tokens"
    return f"{lower}, {goes_on_smaller(args.shard)}"


def _saves(
    source: Conversations, journal: Journal | None, progress: RunProgress
) -> Callable[[Sequence[Outcome]], None]:
    """What writes outcomes into the journal; of several processes the chief has it."""

    def save(outcomes: Sequence[Outcome]) -> None:
        if journal is None or not outcomes:
            return
        for outcome in outcomes:
            journal.write(
                {
                    "line": outcome.index,
                    "conversation": source.digests[outcome.index],
                    "tokens": outcome.tokens,
                    "reward": outcome.reward,
                    "reason": outcome.reason,
                    "why": outcome.why,
                    **({} if outcome.parts is None else {"parts": dict(outcome.parts)}),
                }
            )
        progress.advance(len(outcomes), sum(outcome.tokens for outcome in outcomes))

    return save


def _finish_part(part: Part, journal: Journal) -> None:
    """The journal of a shard is whole: put it in order, and say so."""
    if not journal.path.exists():
        with journal:  # of a shard without conversations
            pass
    put_in_order(journal.path, lambda record: record["line"])
    part.end()


def _finish(
    args: Args,
    files: LabelFiles,
    source: Conversations,
    labels: Labels,
    identity: dict[str, Any],
    console: Terminal,
) -> None:
    """The journal becomes OUT, in the order of the input, and the report.

    Raises:
      ValueError: the input has changed, or nothing could be labelled.
    """
    rewards: dict[int, float] = {}
    parts: dict[int, Mapping[str, Any]] = {}
    tokens = 0
    left_out: dict[str, list[dict[str, Any]]] = {reason: [] for reason in REASONS}
    for number in source.digests:
        outcome = labels.outcomes[number]
        if outcome.reward is None:
            assert outcome.reason is not None
            left_out[outcome.reason].append({"line": number, "why": outcome.why})
            continue
        rewards[number] = outcome.reward
        if outcome.parts is not None:
            parts[number] = outcome.parts
        tokens += outcome.tokens
    if rewards:
        source.write(files.out, rewards, identity["settings"], parts)
    numbers = list(rewards.values())
    report = {
        **identity,
        "input": source.path.name,
        "conversations": len(source.digests),
        "labelled": len(rewards),
        "tokens": tokens,
        "output_sha256": content_sha256(files.out) if rewards else None,
        "rewards": reward_distribution(numbers).to_json() if rewards else None,
        **parts_distribution(parts.values()),
        "left_out": {reason: rows for reason, rows in left_out.items() if rows},
    }
    write_text(files.report, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    if not rewards:
        _show(args, report, numbers, console)
        raise ValueError(f"{source.path}: no conversation could be labelled; {files.report} says why")
    # The journal goes last: whatever happens before, the same command ends the work.
    files.partial.unlink()
    _show(args, report, numbers, console)
    console.print(f"written to {files.out}", highlight=False, soft_wrap=True)


def _finished(files: LabelFiles, identity: dict[str, Any]) -> dict[str, Any]:
    """The report of a run that is over.

    Raises:
      ValueError: OUT is of another run, or of none.
    """
    report: Any = None
    if files.report.is_file():
        try:
            report = parse_object(read_bytes(files.report, "report"), str(files.report))
        except ValueError:
            report = None
    if not isinstance(report, dict):
        why = f"{files.report} does not say what it was made from"
    else:
        now = {**identity, "output_sha256": content_sha256(files.out)}
        differing = [name for name, value in now.items() if report.get(name) != value]
        if not differing:
            return report
        why = f"{files.report} says other {', '.join(differing)}"
    raise ValueError(f"{files.out} is there already, and {why}; name another file, or pass --overwrite")


def _show(args: Args, report: dict[str, Any], rewards: Sequence[float], console: Terminal) -> None:
    """The counts, the distribution, and the picture if one is asked for."""
    total = report["conversations"]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("labelled", f"{report['labelled']:,}", f"{report['labelled'] / total:.1%}")
    for reason, rows in report["left_out"].items():
        first = ", ".join(str(row["line"]) for row in rows[:5]) + (", …" if len(rows) > 5 else "")
        where = f"{noun(Path(args.input))}{'s' * (len(rows) > 1)} {first}: {rows[0]['why']}"
        table.add_row(reason, f"{len(rows):,}", f"{len(rows) / total:.1%}", where)
    console.print(table, highlight=False)
    if not rewards:
        return
    described = reward_distribution(rewards).describe()
    console.print(f"rewards: {described}", highlight=False, soft_wrap=True)
    if args.plot is not None:
        settings = report["settings"]
        further = (settings.get(name, ()) for name in ("further_reward_models", "reward_functions"))
        names = [settings["reward_model"], *(name for own in further for name in own)]
        title = f"{', '.join(name for name in names if name)} on {report['input']}"
        plot_rewards(rewards, Path(args.plot), title)
        console.print(f"histogram in {args.plot}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
