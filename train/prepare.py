r"""Raw data in, a set of tokenised replies out, which is what a value model learns from.

    # All completions of UltraFeedback, a folder of .jsonl files, for a value model on Qwen/Qwen3-1.7B-Base:
    python -m train.prepare --format ultrafeedback --input UltraFeedback \
        --tokenizer Qwen/Qwen3-1.7B-Base --out data/uf

    # One's own replies and rewards, one JSON object a line:
    python -m train.prepare --format jsonl --input mine.jsonl --tokenizer Qwen/Qwen3-1.7B-Base --out data/mine

    # Without rewards: as text to train.label, and back with them:
    python -m train.prepare --format ultrafeedback --input UltraFeedback --tokenizer Qwen/Qwen3-1.7B-Base \
        --out data/unlabelled --export-conversations replies.jsonl
    python -m train.label --input replies.jsonl --reward Skywork/Skywork-Reward-V2-Qwen3-8B \
        --out labelled.jsonl
    python -m train.prepare --format jsonl --input labelled.jsonl \
        --tokenizer Qwen/Qwen3-1.7B-Base --out data/uf

    # Four replies of the policy itself to every prompt, and a reward to each; both go on if they are stopped:
    python -m train.prepare --generate 4 --policy Qwen/Qwen3-1.7B \
        --format ultrafeedback --input UltraFeedback --out data/sampled
    python -m train.label --input data/sampled --reward Skywork/Skywork-Reward-V2-Qwen3-8B --out data/labelled

    # What the official SIA code has made and scored; and the other way round:
    python -m train.prepare --format official --input train.json \
        --tokenizer Qwen/Qwen3-1.7B-Base --out data/theirs
    python -m train.prepare --format wildguardmix --input wildguard_train.parquet \
        --tokenizer Qwen/Qwen3-1.7B-Base --out data/wg --export-official data/wg.json

Formats, each a file or a folder of files, which are read in the order of their names:

    ultrafeedback   .jsonl: every completion; its custom_system_prompt is the system message
    wildguardmix    .parquet: the rows with a response_harm_label
    hh-rlhf         .parquet, .jsonl or .jsonl.gz: chosen and rejected reply, with all turns in front of them
    jsonl           {"messages": [...]} or {"prompt": text, "response": text} a line; "reward", "id", "group"
                    and "complete" (false: the reply was cut by length) may stand beside it; --generate needs
                    no response. A JSON list, CSV or TSV with a header, and Parquet are read too, and
                    ShareGPT's and TRL's names of the fields
    official        .json: the official code's lists of ids, taken as they are

Only jsonl and official bring rewards. Nothing is left out silently: the summary, and report.json beside the
set, say how many rows were, why, and where the first of them are. A run that is stopped leaves no set.

With --generate the input's replies are not looked at. Its prompts (of wildguardmix: of all rows) are sent to
the policy, each once, and the ids that it samples are the set's: no text is tokenised again. A prompt needs
room for --max-new-tokens in --max-length, so that no reply is left out for being long. With --value the
replies are steered, as decode.generate steers them. What is sampled is in OUT/replies.partial.jsonl at once;
after a kill the same command (without --overwrite) goes on, and ends in the same bytes. With --shard a share
of the prompts is replied to, into OUT/replies.partial.0-of-4.jsonl; sia merge makes replies.partial.jsonl of
all of them, with which the command without --shard writes the set.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.table import Table
from rich.text import Text

from sia_jax.checkpoints.hub import checkpoint_name, resolve_checkpoint
from sia_jax.checkpoints.vocabulary import load_tokenizer
from sia_jax.data.records import Record, read_records, unfinished_folder, write_records
from sia_jax.data.rejections import Rejections
from sia_jax.data.set_folder import set_folder
from sia_jax.data.sources import Format, Source, open_source
from sia_jax.data.sources.conversations import OpenConversation, Rejected
from sia_jax.data.sources.official import write_official
from sia_jax.data.sources.own import write_conversations
from sia_jax.data.tokenise import stop_id, tokenise
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs
from sia_jax.files.shown import shown
from sia_jax.files.writing import write_text
from sia_jax.runs.cli import Flag, Int, check_texts, check_used, goes_on, program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.policy_replies import CUT, Prompts, ReplyJournal
from sia_jax.runs.progress import ReadProgress, waiting
from sia_jax.runs.shards import find_shard
from sia_jax.text.markup import Markup, markup_of, read_markup
from sia_jax.text.token_ids import num_tokens
from sia_jax.text.tokenizer import Tokenizer
from train.generation import PARTIAL, Generation, GenerationArgs

REPORT = "report.json"
QUANTILES = {"least": 0.0, "5%": 0.05, "half": 0.5, "95%": 0.95, "most": 1.0}


@dataclass(frozen=True, kw_only=True)
class Args:
    """Prepare a set."""

    format: Format
    """What the input is."""
    input: Annotated[str, tyro.conf.arg(metavar="PATH")]
    """A file, or a folder of files."""
    tokenizer: Annotated[str | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """The value model's tokenizer: a checkpoint's folder, or else a Hub id. With --generate: the policy's."""
    out: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """Where the set is written."""
    max_length: Annotated[int, tyro.conf.arg(metavar="N")] = 1024
    """Longest prompt and reply, in tokens; longer ones are kept out, not cut."""
    limit: Int = None
    """Stop once so many replies are kept; with --generate, once so many prompts are."""
    drop_system_prompts: Flag = False
    """Leave UltraFeedback's system prompts out, as the official code does."""
    export_official: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Also write the set as a .json file for the official code."""
    export_conversations: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Also write the kept conversations as text, .jsonl: what train.label reads, and --format jsonl."""
    overwrite: Flag = False
    """Replace a set, and exported files, that are there; begin anew with --generate."""
    sampling: Annotated[GenerationArgs, tyro.conf.OmitArgPrefixes] = field(default_factory=GenerationArgs)


def main(args: Args) -> None:
    """Prepare; exits with 1 if something is wrong with options or files, and with 130 after Ctrl-C."""
    stdout, journal = Terminal(), Path(args.out) / PARTIAL
    unfinished = args.out

    def interrupted() -> str:
        sampled = (
            f"; {journal} has what was sampled, and {goes_on(args.overwrite)}" if journal.exists() else ""
        )
        return f"interrupted; {unfinished} is as it was{sampled}"

    exported = tuple(
        None if path is None else Path(path) for path in (args.export_official, args.export_conversations)
    )
    with program("train.prepare", interrupted=interrupted) as console:
        shard = find_shard(args.sampling.shard)
        _check(args, Path(args.out))
        if shard is not None:
            journal = shard.part_of(journal)
            with locked(files=(journal,)):
                prepare(args, console)
            return
        with locked(folders=(Path(args.out),), files=exported):
            report = prepare(args, console)
            assert report is not None
            stdout.print(summary(report))
            stdout.print(f"written to {args.out}", highlight=False, soft_wrap=True)
            if args.export_official is not None:
                unfinished = args.export_official
                with waiting(console, f"writing {unfinished}"):
                    write_official(Path(unfinished), read_records(Path(args.out)), _markup(report))
                stdout.print(f"written to {unfinished}", highlight=False, soft_wrap=True)
            if args.export_conversations is not None:
                unfinished = args.export_conversations
                with waiting(console, f"writing {unfinished}"):
                    write_conversations(
                        Path(unfinished), read_records(Path(args.out)), _stop_ids(args, report)
                    )
                stdout.print(f"written to {unfinished}", highlight=False, soft_wrap=True)
            # Last: until then the same command ends what a kill has left undone.
            journal.unlink(missing_ok=True)


def is_prepared(out: Path) -> bool:
    """Whether a run of --generate has ended in this folder, where the same command would find its set."""
    return (out / REPORT).exists() and not (out / PARTIAL).exists()


def prepare(args: Args, console: Terminal) -> dict[str, Any] | None:
    """Write the set and its report, of options that were checked.

    Returns:
      The report; None: a shard has sampled its part of the journal, and there is no set yet.

    Raises:
      FileExistsError, FileNotFoundError, ValueError: what is wrong with options or files.
      SystemExit: interrupted while it sampled; what was sampled is in the journal.
    """
    out = Path(args.out)
    generation = None if args.sampling.generate is None else Generation(args.sampling, args.max_length)
    tokenizer = _tokenizer(args) if generation is None else generation.tokenizer
    markup = markup_of(tokenizer)
    path = Path(args.input)
    vocab_size = num_tokens(tokenizer)
    source = open_source(
        args.format,
        path,
        vocab_size=vocab_size,
        system_prompts=not args.drop_system_prompts,
        with_replies=generation is None,
    )
    counts = _Counts()
    settings = {
        "format": args.format,
        "input": path.name,
        "tokenizer": checkpoint_name(args.tokenizer or args.sampling.policy or ""),
        "markup": markup.to_json(),
        "vocab_size": vocab_size,
        "max_length": args.max_length,
        "limit": args.limit,
        "system_prompts": not args.drop_system_prompts,
    }
    if generation is not None:
        return _generate(args, generation, source, settings, counts, console)
    with ReadProgress(console, "replies") as progress:
        records = _records(source, tokenizer, markup, args, counts, progress)
        return _write(out, records, settings, counts, overwrite=args.overwrite)


def _generate(
    args: Args,
    generation: Generation,
    source: Source,
    settings: dict[str, Any],
    counts: "_Counts",
    console: Terminal,
) -> dict[str, Any] | None:
    """Sample what is missing; then write the set and its report, unless it is a shard."""
    for line in generation.prompting.why:
        console.say(line, "dim")
    with ReadProgress(console, "prompts") as progress:
        prompts = generation.read_prompts(source, args.limit, counts.rejections, progress)
    if not prompts.distinct:
        why = counts.rejections.describe() or "there are no rows in it"
        raise ValueError(f"{args.input}: no prompt could be kept: {why}")
    path, part = Path(args.out) / PARTIAL, None
    if args.sampling.shard is not None:
        path = generation.shard.part_of(path)
        part = generation.part(path, prompts.distinct)
    journal = generation.open_journal(path, prompts.distinct, overwrite=args.overwrite)
    done, total = len(journal.replies), generation.wanted(prompts.distinct)
    if part is not None:
        part.begin(has_records=done > 0, overwrite=args.overwrite)
    if done:
        text = f"{path}: going on after {done:,} of {total:,} replies"
        console.print(text, highlight=False, soft_wrap=True)
    if done < total:
        interruption = generation.sample(prompts.distinct, journal, console)
        if interruption.wanted:
            kept = f"{len(journal.replies):,} of {total:,} replies are in {path}"
            console.print(
                f"\ninterrupted; {kept}, and {goes_on(args.overwrite)}", highlight=False, soft_wrap=True
            )
            sys.exit(interruption.exit_status)
    if part is not None:
        generation.end_part(part, prompts.distinct, journal)
        console.print(f"{total:,} replies are in {path}", highlight=False, soft_wrap=True)
        return None
    counts.prompts = prompts
    settings = settings | {"generation": generation.settings, "record_prompt": args.sampling.record_prompt}
    records = _sampled(args, generation, prompts, journal, counts)
    # A set that is there is to be replaced: --overwrite began the journal, or this very run wrote the set.
    report = _write(Path(args.out), records, settings, counts, overwrite=True)
    if generation.differs(prompts.distinct[0]):
        console.print(
            "the prompts in the records are those that the policy read, and decode.generate gives a value "
            "model its own form of a prompt; for a value model that is to steer there leave out "
            "--record-prompt policy, which only a head on the policy's states wants",
            highlight=False,
            soft_wrap=True,
        )
    return report


def _write(
    out: Path, records: Iterator[Record], settings: dict[str, Any], counts: "_Counts", *, overwrite: bool
) -> dict[str, Any]:
    """The set, and its report."""
    write_records(out, records, lambda: settings | {"counts": counts.to_json()}, overwrite=overwrite)
    report = {**settings, **counts.to_json()}
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(out / REPORT, text + "\n")
    return report


def _stop_ids(args: Args, report: dict[str, Any]) -> list[int]:
    """The tokens in one of which a complete reply ends."""
    if args.sampling.generate is not None:
        return list(report["generation"]["stop_ids"])
    return [stop_id(_tokenizer(args), _markup(report))]


def _markup(report: dict[str, Any]) -> Markup:
    markup = read_markup(report["markup"], REPORT)
    assert markup is not None
    return markup


def _tokenizer(args: Args) -> Tokenizer:
    assert args.tokenizer is not None
    folder = resolve_checkpoint(args.tokenizer)
    tokenizer = load_tokenizer(folder)
    if tokenizer is None:
        raise ValueError(f"{folder} has no tokenizer; name the folder that has the value model's")
    return tokenizer


def summary(report: dict[str, Any]) -> Table:
    """A report as a table."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")

    def row(title: str, text: str) -> None:
        table.add_row(Text(title), Text(shown(text)))

    kept, groups, prompts = report["kept"], report["groups"], report.get("prompts")
    limited = kept if prompts is None else prompts["kept"]
    stopped = ", where --limit stopped" if report["limit"] == limited else ""
    replies, questions = (
        f"{kept:,} repl{'y' if kept == 1 else 'ies'}",
        f"{groups:,} prompt{'s' * (groups != 1)}",
    )
    row("kept", f"{replies} to {questions}{stopped}")
    row("with a reward", f"{report['with_reward']:,}")
    if report["with_reward"]:
        row("rewards", "{least:.4g} to {most:.4g}, mean {mean:.4g}".format(**report["rewards"]))
    for name, what in (("prompt", "prompts"), ("reply", "replies"), ("both", "both")):
        quantiles = report["lengths"][name].items()
        row(f"tokens of {what}", ", ".join(f"{label} {tokens:,}" for label, tokens in quantiles))
    if prompts is None:
        longer = report["longer"]
        row(f"over {report['max_length']:,} tokens", f"{longer['count']:,}, {longer['share']:.1%}")
    else:
        row("prompts in the input", f"{prompts['found']:,}, {prompts['repeated']:,} of them repetitions")
        row("replies cut by length", f"{report['cut']:,}, {report['cut'] / kept:.1%}")
    for reason, found in report["rejected"].items():
        more = ["..."] if found["count"] > len(found["first"]) else []
        row(f"left out: {reason}", f"{found['count']:,} ({'; '.join([*found['first'], *more])})")
    return table


@dataclass
class _Counts:
    """What a run has met."""

    rejections: Rejections = field(default_factory=Rejections)
    files: Counter[str] = field(default_factory=Counter)
    groups: set[str] = field(default_factory=set)
    lengths: list[tuple[int, int]] = field(default_factory=list)
    """(prompt, reply) of all that could be tokenised, those that are too long too."""
    rewards: list[float] = field(default_factory=list)
    kept: int = 0
    too_long: int = 0
    prompts: Prompts | None = None
    """With --generate."""
    cut: int = 0

    def keep(self, record: Record, file: str) -> None:
        self.kept += 1
        self.files[file] += 1
        self.groups.add(record.group)
        if record.reward is not None:
            self.rewards.append(record.reward)

    def to_json(self) -> dict[str, Any]:
        prompt, reply = np.array(self.lengths).T
        lengths = {"prompt": prompt, "reply": reply, "both": prompt + reply}
        report: dict[str, Any] = {
            "kept": self.kept,
            "groups": len(self.groups),
            "files": dict(self.files),
            "with_reward": len(self.rewards),
            **self._particulars(),
            "lengths": {
                name: {
                    label: int(np.quantile(values, q, method="inverted_cdf"))
                    for label, q in QUANTILES.items()
                }
                for name, values in lengths.items()
            },
            "rejected": self.rejections.to_json(),
        }
        if self.rewards:
            least, most = min(self.rewards), max(self.rewards)
            report["rewards"] = {"least": least, "most": most, "mean": float(np.mean(self.rewards))}
        return report

    def _particulars(self) -> dict[str, Any]:
        if self.prompts is None:
            return {"longer": {"count": self.too_long, "share": self.too_long / len(self.lengths)}}
        prompts = self.prompts
        found = {"found": prompts.found, "repeated": prompts.repeated, "kept": len(prompts.distinct)}
        return {"prompts": found, "cut": self.cut}


def _records(
    source: Source,
    tokenizer: Tokenizer,
    markup: Markup,
    args: Args,
    counts: _Counts,
    progress: ReadProgress,
) -> Iterator[Record]:
    """The records that are kept; the others are counted."""
    for number, found in enumerate(source.entries, start=1):
        progress.update(number, source.files.fraction)
        if isinstance(found, Rejected):
            counts.rejections.add(found.reason, found.place)
            continue
        assert not isinstance(found, OpenConversation)
        record = found if isinstance(found, Record) else tokenise(tokenizer, found, markup)
        place = source.files.place if isinstance(found, Record) else found.place
        prompt, reply = len(record.prompt_ids), len(record.reply_ids)
        counts.lengths.append((prompt, reply))
        if prompt + reply > args.max_length:
            counts.too_long += 1
            counts.rejections.add(f"longer than {args.max_length} tokens", place)
            continue
        counts.keep(record, source.files.current)
        yield record
        if counts.kept == args.limit:
            return
    if not counts.kept:
        why = counts.rejections.describe() or "there are no rows in it"
        raise ValueError(f"{args.input}: no reply could be kept: {why}")


def _sampled(
    args: Args, generation: Generation, prompts: Prompts, journal: ReplyJournal, counts: _Counts
) -> Iterator[Record]:
    """The records of sampled replies; those that are not kept are counted."""
    for prompt, reply, found in generation.records(prompts.distinct, journal):
        if isinstance(found, Rejected):
            counts.rejections.add(found.reason, found.place)
            continue
        counts.lengths.append((len(found.prompt_ids), len(found.reply_ids)))
        counts.cut += reply.end == CUT
        counts.keep(found, prompt.file)
        yield found
    if not counts.kept:
        raise ValueError(f"{args.input}: no reply could be kept: {counts.rejections.describe()}")


def _check(args: Args, out: Path) -> None:
    check_texts(args)
    for name in ("max_length", "limit"):
        number = getattr(args, name)
        if number is not None and number < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be 1 or more, got {number}")
    if args.drop_system_prompts and args.format != "ultrafeedback":
        raise ValueError(f"--drop-system-prompts is for --format ultrafeedback, got --format {args.format}")
    _check_sampling(args)
    shard = find_shard(args.sampling.shard)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out must be a folder, {out} is a file")
    check_outputs(
        inputs={
            **{"--input": args.input, "--tokenizer": args.tokenizer},
            **{"--policy": args.sampling.policy, "--value": args.sampling.value},
        },
        files={
            "--out's report": out / REPORT,
            "--out's journal": out / PARTIAL if shard is None else shard.part_of(out / PARTIAL),
            "--export-official": args.export_official,
            "--export-conversations": args.export_conversations,
        },
        folders={"--out's set": set_folder(out), "--out's unfinished set": unfinished_folder(out)},
    )
    if args.overwrite or shard is not None:
        return
    unfinished = (out / PARTIAL).exists()
    if unfinished and args.sampling.generate is None:
        raise FileExistsError(
            f"{out} holds an unfinished run of --generate; name another folder, or pass --overwrite"
        )
    if unfinished and set_folder(out).exists():
        return  # a run that was killed in its last moments, and goes on
    if set_folder(out).exists():
        raise FileExistsError(f"{out} holds a set already; name another folder, or pass --overwrite")
    for exported in (args.export_official, args.export_conversations):
        if exported is not None and Path(exported).exists():
            raise FileExistsError(f"{exported} is there already; name another, or pass --overwrite")


def _check_sampling(args: Args) -> None:
    """The options of --generate fit together; what they name is looked at later."""
    sampling = args.sampling
    if sampling.generate is None:
        check_used(sampling, [f.name for f in fields(sampling)], "--generate N")
        if args.tokenizer is None:
            raise ValueError("give the value model's --tokenizer DIR, or --generate N --policy DIR")
        return
    for name in ("generate", "batch"):
        if getattr(sampling, name) < 1:
            raise ValueError(f"--{name} must be 1 or more, got {getattr(sampling, name)}")
    if sampling.policy is None:
        raise ValueError("--generate needs a policy to sample from: give --policy DIR")
    if sampling.shard is not None:
        check_used(args, ("export_official", "export_conversations"), "a whole set")
    if args.tokenizer is not None:
        raise ValueError("with --generate the tokenizer is the policy's; leave --tokenizer out")
    if args.export_official is not None and sampling.record_prompt == "policy":
        raise ValueError(
            "--export-official writes the prompts that a value model reads; leave out --record-prompt policy"
        )


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
