"""Replies that a policy itself gives to prompts, for `train.prepare --generate`.

Sampled replies go into a journal, with which a run that was stopped goes on; once it is whole, records are
made of it. A reply depends on the weights, the numbers, its prompt's ids and its own number alone, but for
how the program of its batch's shape rounds: branch j of a prompt draws with fold_in(k, j), where k is
key(seed) with the first two words of the SHA-256 of the prompt's ids folded in, one after the other.
"""

import hashlib
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np
import tyro

from sia_jax.data.records import Record
from sia_jax.data.rejections import Rejections
from sia_jax.data.sources import Source
from sia_jax.data.sources.conversations import OpenConversation, Rejected
from sia_jax.engine.reply import Reply
from sia_jax.models.passes import bucket_length
from sia_jax.runs import prompting, runner
from sia_jax.runs.cli import Flag, Int, Name, memory_explained
from sia_jax.runs.console import Terminal
from sia_jax.runs.interruption import Interruption
from sia_jax.runs.journal import Journal
from sia_jax.runs.options import FilterArgs, SamplingArgs
from sia_jax.runs.progress import ReadProgress, RunProgress, waiting
from sia_jax.runs.runner import Row, Runner
from sia_jax.steering.numbers import names_of
from sia_jax.text.chat import Message, value_prompt
from sia_jax.text.markup import markup_of
from sia_jax.text.templates import TemplateRefusal
from sia_jax.text.tokenizer import Tokenizer

PARTIAL = "replies.partial.jsonl"
"""The journal, in the folder of the set."""

FILTERS = names_of(FilterArgs)
"""The sampling numbers that can be given here."""

CUT, FAILED = "length", "non_finite"
ENDS = ("stop", CUT, FAILED)
"""How a reply may end; names of `sia_jax.decoding.state.FinishReason`."""


@dataclass(frozen=True, kw_only=True)
class PolicyArgs:
    """Which policy replies, and how often."""

    generate: Int = None
    """Sample N replies to each distinct prompt of the input, whatever was replied to it there."""
    policy: Name = None
    """The language model, whose tokenizer the set gets: a folder, or else a Hub id."""
    dtype: Literal["config", "float32", "bfloat16"] = "config"
    """Of the weights; config: as their config.json says. float32 is the fast one on a CPU."""
    mesh: Annotated[tuple[int, int, int], tyro.conf.arg(metavar="DATA FSDP TENSOR")] = (1, 1, 1)
    """Devices that share the prompts, the same from weights that are stored in parts, and that split heads
    and features, which alone makes room for larger models; all there are, or one."""
    batch: Annotated[int, tyro.conf.arg(metavar="N")] = 16
    """Replies that are sampled at a time. More is faster until the memory is full."""
    max_new_tokens: Annotated[int, tyro.conf.arg(metavar="N")] = 128
    """Length at which a reply is cut; it then has no stop token."""


@dataclass(frozen=True, kw_only=True)
class GenerationArgs(FilterArgs, PolicyArgs):
    """Replies of a policy, in place of the input's."""

    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Of everything random."""
    prompt_form: Literal["auto", "chat", "raw"] = "auto"
    """chat: the policy's chat template; raw: plain text for base models; auto: the template, if the policy
    has one and is none of the paper's base models."""
    thinking: Flag = False
    """Let Qwen3 think before it replies."""
    date_string: Annotated[str | None, tyro.conf.arg(metavar="DATE", help_behavior_hint="")] = None
    """The date that the chat template writes, such as "26 Jul 2024"; must be given if it writes today's."""
    record_prompt: Literal["policy", "value"] = "value"
    """The prompts in the records. value: the form that decode.generate gives to a value model; policy: the
    ids that were replied to."""


class Sampled(NamedTuple):
    """A reply, as the journal has it."""

    tokens: np.ndarray  # [T] int32
    text: str
    end: str
    """One of `ENDS`."""


@dataclass(frozen=True, eq=False)
class SourcePrompt:
    """A prompt that is to be replied to."""

    conversation: OpenConversation
    file: str
    """Where it was first met."""
    policy_ids: np.ndarray  # [P] int32
    record_ids: np.ndarray  # [P'] int32, the prompt of its records
    digest: str
    """Of `policy_ids`."""


@dataclass(frozen=True)
class Prompts:
    """The prompts of a source."""

    found: int
    """That the policy can read, repetitions included."""
    repeated: int
    distinct: list[SourcePrompt]
    """Those that have room for a reply, in their order."""


class Generation:
    """What is sampled, and after which prompts; the weights are loaded by `sample` alone.

    Args:
      args: with `generate`.
      max_length: tokens of prompt and reply in a record.

    Raises:
      FileNotFoundError: no such policy.
      ValueError: an option out of its range or that does not fit the policy, or a policy without tokenizer.
    """

    def __init__(self, args: GenerationArgs, max_length: int):
        assert args.generate is not None
        assert args.policy is not None
        self.args, self.replies = args, args.generate
        self._sampling = SamplingArgs(
            policy=args.policy,
            dtype=args.dtype,
            mesh=args.mesh,
            **{name: getattr(args, name) for name in FILTERS},
            max_new_tokens=args.max_new_tokens,
            seed=args.seed,
            prompt_form=args.prompt_form,
            thinking=args.thinking,
            date_string=args.date_string,
        )
        runner.check_options(self._sampling)
        self._policy = runner.prepare(self._sampling)
        if self._policy.tokenizer is None:
            raise ValueError(f"{args.policy} has no tokenizer; --generate needs the policy's own")
        self.tokenizer: Tokenizer = self._policy.tokenizer
        found = prompting.find_prompting(self._policy, self._sampling)
        assert found is not None
        self.prompting = found
        """How the policy is prompted."""
        self._markup = markup_of(self.tokenizer)
        self._most_policy = self._policy.config.max_position_embeddings - args.max_new_tokens
        self._most_record = max_length - args.max_new_tokens
        if min(self._most_policy, self._most_record) < 1:
            raise ValueError(
                f"--max-new-tokens {args.max_new_tokens} leaves no room for a prompt in --max-length "
                f"{max_length} and the policy's {self._policy.config.max_position_embeddings} positions"
            )

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens in one of which a complete reply ends."""
        return self._policy.config.eos_token_ids

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the replies depend on, but for their prompts; JSON."""
        names = (
            *("policy", "policy_fingerprint", "policy_files", "dtype", *FILTERS),
            *("max_new_tokens", "seed", "prompt_form", "thinking", "date_string"),
        )
        whole = runner.run_identity(self._sampling, self.prompting)
        return {
            "replies": self.replies,
            **{name: whole[name] for name in names},
            "stop_ids": list(self.stop_ids),
        }

    def read_prompts(
        self, source: Source, limit: int | None, rejections: Rejections, progress: ReadProgress
    ) -> Prompts:
        """The distinct prompts: those that the policy reads as other ids than any before.

        Args:
          source: open, without replies.
          limit: stop after so many that have room for a reply.
          rejections: those that have none are counted here.
          progress: shown.

        Raises:
          ValueError: what the source or the policy's template finds.
        """
        seen: set[str] = set()
        distinct: list[SourcePrompt] = []
        found = 0
        for number, entry in enumerate(source.entries, start=1):
            progress.update(number, source.files.fraction)
            if isinstance(entry, Rejected):
                rejections.add(entry.reason, entry.place)
                continue
            assert isinstance(entry, OpenConversation)
            try:
                prompt = self._prompt(entry, source.files.current)
            except TemplateRefusal as error:
                rejections.add("the chat template refuses it", f"{entry.place} ({error.why})")
                continue
            found += 1
            if prompt.digest in seen:
                continue
            seen.add(prompt.digest)
            why = self._problem(prompt)
            if why is not None:
                rejections.add(why, entry.place)
                continue
            distinct.append(prompt)
            if len(distinct) == limit:
                break
        return Prompts(found, found - len(seen), distinct)

    def open_journal(self, path: Path, prompts: Sequence[SourcePrompt], *, overwrite: bool) -> "ReplyJournal":
        """The replies that are there already, for `sample` to go on with.

        Raises:
          ValueError: the file holds something else, replies of other settings, or to other prompts.
        """
        return ReplyJournal(path, self.settings, prompts, overwrite=overwrite)

    def sample(
        self, prompts: Sequence[SourcePrompt], journal: "ReplyJournal", console: Terminal
    ) -> Interruption:
        """Sample what the journal lacks, unless a signal comes: then the batch that runs is the last.

        Raises:
          FileNotFoundError, ValueError: a policy that cannot be loaded, or a batch that memory does not hold.
        """
        done, total = len(journal.replies), len(prompts) * self.replies
        with waiting(console, "loading the policy"):
            models = runner.load_models(self._sampling)
        branches = self.replies if self.replies <= self.args.batch else 1
        size = runner.whole_rows(self._sampling, self.args.batch // branches)
        batches = plan([len(prompt.policy_ids) for prompt in prompts], self.replies, branches, size)
        rows = max(len(batch.heads) for batch in batches)
        engine = Runner(models, self._sampling, rows, branches=branches)
        progress = RunProgress(console, total, done)
        smaller = (
            f"lower --batch, now {self.args.batch}, and the same command goes on; or lower --max-new-tokens"
        )
        with memory_explained(smaller), Interruption() as interruption, journal, progress:
            for batch in batches:
                if interruption.wanted:
                    break
                keys = [
                    (prompts[index].digest, first + branch)
                    for index, first in batch.heads
                    for branch in range(branches)
                ]
                if journal.done.issuperset(keys):
                    continue
                shape = (batch.length, batch.length)
                if engine.needs_compiling(shape):
                    with progress.aside(f"compiling for prompts of up to {batch.length} tokens"):
                        engine.compile(shape)
                heads = [self._row(prompts[index], first, branches) for index, first in batch.heads]
                groups, _ = engine.run(heads, shape, self._sampling)
                replies = zip(keys, chain.from_iterable(groups), strict=True)
                new = [(key, reply) for key, reply in replies if key not in journal.done]
                for (digest, branch), reply in new:
                    journal.add(digest, branch, reply)
                progress.advance(len(new), sum(len(reply.tokens) for _, reply in new))
        new_replies = len(journal.replies) - done
        console.print(f"{new_replies:,} sampled, {progress.rates()}", highlight=False, soft_wrap=True)
        return interruption

    def records(
        self, prompts: Sequence[SourcePrompt], journal: "ReplyJournal"
    ) -> Iterator[tuple[SourcePrompt, Sampled, Record | Rejected]]:
        """Every reply, in the order of prompts and branches, with its record or why there is none."""
        for prompt in prompts:
            for branch in range(self.replies):
                reply = journal.replies[prompt.digest, branch]
                yield prompt, reply, _record(prompt, branch, reply)

    def differs(self, prompt: SourcePrompt) -> bool:
        """Whether a value model would be given other ids than those in the records."""
        return prompt.record_ids.tolist() != self._value_ids(prompt.conversation.messages)

    def _prompt(self, conversation: OpenConversation, file: str) -> SourcePrompt:
        ids = self._policy.prompt_ids(conversation.messages, self.prompting.form, **self.prompting.variables)
        policy_ids = np.array(ids, np.int32)
        record_ids = policy_ids
        if self.args.record_prompt == "value":
            record_ids = np.array(self._value_ids(conversation.messages), np.int32)
        return SourcePrompt(conversation, file, policy_ids, record_ids, _hash(policy_ids).hex())

    def _value_ids(self, messages: Sequence[Message]) -> list[int]:
        return value_prompt(self.tokenizer, messages, self._markup)

    def _problem(self, prompt: SourcePrompt) -> str | None:
        """Why it cannot be replied to, in words that can be counted."""
        largest = max(int(ids.max()) for ids in (prompt.policy_ids, prompt.record_ids))
        if largest >= self._policy.config.vocab_size:
            return "prompt has ids outside the vocabulary"
        lengths = ((prompt.policy_ids, self._most_policy), (prompt.record_ids, self._most_record))
        for ids, most in lengths:
            if len(ids) > most:
                return f"prompt of more than {most} tokens, which leaves no room for a reply"
        return None

    def _row(self, prompt: SourcePrompt, first: int, branches: int) -> Row:
        key = runner.own_key(self.args.seed)
        for word in np.frombuffer(bytes.fromhex(prompt.digest), ">u4"):
            key = jax.random.fold_in(key, np.uint32(word))
        if branches == 1:  # the sampler folds in the number of a branch only where there are several
            key = jax.random.fold_in(key, first)
        ids = prompt.policy_ids.tolist()
        return Row(ids, ids, key, math.inf)


class Batch(NamedTuple):
    """Prompts that run together."""

    heads: list[tuple[int, int]]
    """(a prompt's index, its first branch here)."""
    length: int
    """Of the buffer for the prompts."""


def plan(lengths: Sequence[int], replies: int, branches: int, size: int) -> list[Batch]:
    """Which replies are sampled together: prompts of like lengths, so that little is padded.

    Args:
      lengths: of all prompts of the run, those that are done too: a run that goes on meets the same batches.
      replies: to each prompt.
      branches: of them that share a prefill: all, or one.
      size: prefills at a time.
    """
    order = sorted(range(len(lengths)), key=lambda index: bucket_length(lengths[index]))
    heads = [(index, first) for index in order for first in range(0, replies, branches)]
    groups = [heads[start : start + size] for start in range(0, len(heads), size)]
    return [Batch(group, bucket_length(max(lengths[index] for index, _ in group))) for group in groups]


class ReplyJournal(Journal):
    """The replies of a run, each in the file as soon as it is there."""

    def __init__(
        self, path: Path, settings: dict[str, Any], prompts: Sequence[SourcePrompt], *, overwrite: bool
    ):
        self.replies: dict[tuple[str, int], Sampled] = {}
        """By digest of the prompt, and branch."""
        self._wanted, self._branches = {prompt.digest for prompt in prompts}, settings["replies"]
        super().__init__(path, settings, self._take, overwrite=overwrite)

    def add(self, digest: str, branch: int, reply: Reply) -> None:
        """Write a reply; inside `with journal:`."""
        self.write(
            {
                "prompt": digest,
                "branch": branch,
                "tokens": reply.tokens.tolist(),
                "text": reply.text,
                "finish_reason": reply.finish_reason.name.lower(),
            }
        )

    def _take(self, record: dict[str, Any]) -> Hashable:
        """Keep a record's reply.

        Raises:
          ValueError: it is none, or to none of the prompts.
        """
        digest, branch, end = record["prompt"], record["branch"], record["finish_reason"]
        if digest not in self._wanted:
            raise ValueError(f"prompt {digest!r} is none of the input's, as the policy reads them now")
        if type(branch) is not int or not 0 <= branch < self._branches:
            raise ValueError(f"expected a branch in 0 .. {self._branches - 1}, got {branch!r}")
        if end not in ENDS or not isinstance(record["text"], str):
            raise ValueError(f"expected a text and how it ended, got {record['text']!r} and {end!r}")
        tokens = record["tokens"]
        are_ids = isinstance(tokens, list) and all(type(t) is int and 0 <= t < 2**31 for t in tokens)
        if not are_ids or not (tokens or end == FAILED):
            raise ValueError(f"expected the reply's ids, got {tokens!r}")
        self.replies[digest, branch] = Sampled(np.array(tokens, np.int32), record["text"], end)
        return digest, branch


def _record(prompt: SourcePrompt, branch: int, reply: Sampled) -> Record | Rejected:
    source = prompt.conversation
    place = f"{source.place}, reply {branch + 1}"
    if reply.end == FAILED:
        return Rejected("the policy's logits are not finite", place)
    if not reply.text.strip():
        return Rejected("no reply", place)
    return Record(
        id=f"{source.id}:{branch + 1}",
        group=source.group,
        messages=(*source.messages, {"role": "assistant", "content": reply.text}),
        prompt_ids=prompt.record_ids,
        reply_ids=reply.tokens,
    )


def _hash(ids: np.ndarray) -> bytes:
    """Eight bytes that stand for ids."""
    return hashlib.sha256(ids.astype("<i4").tobytes()).digest()[:8]
