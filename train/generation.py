"""Replies that a policy itself gives to prompts, steered or not, for `train.prepare --generate`.

Sampled replies go into a journal, with which a run that was stopped goes on; once it is whole, records are
made of it. What a reply depends on, `sia_jax.runs.policy_replies` says.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro

from sia_jax.data.prompts import PromptLine
from sia_jax.data.records import Record
from sia_jax.data.rejections import Rejections
from sia_jax.data.row_files import put_in_order
from sia_jax.data.sources import Source
from sia_jax.data.sources.conversations import Rejected
from sia_jax.runs import prompting, runner
from sia_jax.runs.cli import Flag, Float, Int, Name, memory_explained
from sia_jax.runs.console import Terminal
from sia_jax.runs.engines import Row, completed, make_engine, missing_replies, warm_up
from sia_jax.runs.interruption import Interruption
from sia_jax.runs.options import FilterArgs, Models, SamplingArgs
from sia_jax.runs.parts import Part, Work
from sia_jax.runs.policy_replies import (
    PromptReader,
    Prompts,
    ReplyJournal,
    Sampled,
    SourcePrompt,
    key_of_prompt,
    record_of,
)
from sia_jax.runs.progress import ReadProgress, RunProgress, waiting
from sia_jax.runs.provenance import made_here
from sia_jax.runs.shards import Shard, ShardArgs, find_shard, goes_on_smaller
from sia_jax.steering.numbers import names_of
from sia_jax.text.tokenizer import Tokenizer

PARTIAL = "replies.partial.jsonl"
"""The journal, in the folder of the set."""

FILTERS = names_of(FilterArgs)
"""The sampling numbers that can be given here."""

STEERING = ("value", "threshold", "beta", "tilt_bound", "num_candidates")
"""The options of steering that can be given here."""

_STEERED_BY = (
    *("value", "value_fingerprint", "value_files"),
    *("value_backbone", "value_backbone_fingerprint", "value_backbone_files"),
    *("threshold", "beta", "num_candidates", "tilt"),
)
"""What a run's identity says of its steering."""


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
class SteeredArgs:
    """With what the replies are steered."""

    value: Name = None
    """A value model that steers the replies, as in decode.generate: a folder, or else a Hub id."""
    threshold: Float = None
    """Entropy in nats from which a position is steered; -inf: all. Default 1.0."""
    beta: Float = None
    """Weight of the values, nats for each unit of reward. Default 1."""
    tilt_bound: Float = None
    """Nats that no logit is moved beyond, as in decode.generate."""
    num_candidates: Int = None
    """Tokens that the value model chooses among. Default 10."""


@dataclass(frozen=True, kw_only=True)
class GenerationArgs(FilterArgs, SteeredArgs, PolicyArgs, ShardArgs):
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
            **{name: getattr(args, name) for name in (*FILTERS, *STEERING)},
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
        self._reader = PromptReader(
            self._policy,
            found,
            for_value=args.record_prompt == "value",
            most_policy=self._policy.config.max_position_embeddings - args.max_new_tokens,
            most_record=max_length - args.max_new_tokens,
        )
        if min(self._reader.most_policy, self._reader.most_record) < 1:
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
        steered = () if self.args.value is None else (name for name in _STEERED_BY if name in whole)
        return {
            "replies": self.replies,
            **{name: whole[name] for name in (*names, *steered)},
            "stop_ids": list(self.stop_ids),
        }

    def read_prompts(
        self, source: Source, limit: int | None, rejections: Rejections, progress: ReadProgress
    ) -> Prompts:
        """See `PromptReader.read`."""
        return self._reader.read(source, limit, rejections, progress.update)

    def open_journal(self, path: Path, prompts: Sequence[SourcePrompt], *, overwrite: bool) -> ReplyJournal:
        """The replies that are there already, for `sample` to go on with.

        Raises:
          ValueError: the file holds something else, replies of other settings, or to other prompts.
        """
        return ReplyJournal(path, self.settings, prompts, overwrite=overwrite)

    @property
    def shard(self) -> Shard:
        """Whose prompts are replied to; of a run of all, the only one."""
        return find_shard(self.args.shard) or Shard(0, 1)

    def wanted(self, prompts: Sequence[SourcePrompt]) -> int:
        """Replies of the shard to these prompts."""
        return len(self.shard.places(len(prompts))) * self.replies

    def part(self, path: Path, prompts: Sequence[SourcePrompt]) -> Part:
        """What the journal of a shard says of itself.

        Args:
          path: of the journal.
          prompts: all of the input.
        """
        rows = runner.whole_rows(self._sampling, min(self.args.batch, len(prompts) * self.replies))
        work = Work(
            "train.prepare",
            self.settings,
            made_here(rows=rows, mesh=list(self.args.mesh)),
            ("prompt",),
            ("branch",),
            [(prompt.digest,) for prompt in prompts],
            [(branch,) for branch in range(self.replies)],
        )
        return Part(path, work, self.shard)

    def end_part(self, part: Part, prompts: Sequence[SourcePrompt], journal: ReplyJournal) -> None:
        """The shard's journal is whole: put it in order, and say so."""
        if not journal.path.exists():
            with journal:  # of a shard without prompts
                pass
        places = {prompt.digest: place for place, prompt in enumerate(prompts)}
        put_in_order(journal.path, lambda record: (places[record["prompt"]], record["branch"]))
        part.end()

    def sample(
        self, prompts: Sequence[SourcePrompt], journal: ReplyJournal, console: Terminal
    ) -> Interruption:
        """Sample what the journal lacks, unless a signal comes: then replies that are whole are kept.

        Args:
          prompts: all of the input; of a shard, its own are replied to.
          journal: what is there already.
          console: for the progress.

        Raises:
          FileNotFoundError, ValueError: a policy that cannot be loaded, or rows that memory does not hold.
        """
        done, total, shard = len(journal.replies), self.wanted(prompts), self.shard
        with waiting(console, "loading the models"):
            models = runner.load_models(self._sampling)
        rows = [self._row(prompt, models) for prompt in prompts]
        missing = missing_replies(
            rows,
            self._sampling,
            self.replies,
            lambda i, j: not shard.owns(i) or (prompts[i].digest, j) in journal.done,
        )
        progress = RunProgress(console, total, done)
        smaller = (
            f"lower --batch, now {self.args.batch}, {goes_on_smaller(self.args.shard)}; or lower "
            "--max-new-tokens"
        )
        with memory_explained(smaller), Interruption(ends=True) as interruption:
            # As a run of all prompts makes it, so that a shard's replies are the same bits.
            at_a_time = min(self.args.batch, len(prompts) * self.replies)
            engine = make_engine(models, self._sampling, at_a_time, rows)
            with engine, journal, progress:
                warm_up(engine, missing, progress.aside)
                for index, branch, reply in completed(engine, missing):
                    journal.add(prompts[index].digest, branch, reply)
                    progress.advance(1, len(reply.tokens))
        new_replies = len(journal.replies) - done
        console.print(f"{new_replies:,} sampled, {progress.rates()}", highlight=False, soft_wrap=True)
        return interruption

    def records(
        self, prompts: Sequence[SourcePrompt], journal: ReplyJournal
    ) -> Iterator[tuple[SourcePrompt, Sampled, Record | Rejected]]:
        """Every reply, in the order of prompts and branches, with its record or why there is none."""
        for prompt in prompts:
            for branch in range(self.replies):
                reply = journal.replies[prompt.digest, branch]
                yield prompt, reply, record_of(prompt, branch, reply)

    def differs(self, prompt: SourcePrompt) -> bool:
        """See `PromptReader.differs`."""
        return self._reader.differs(prompt)

    def _row(self, prompt: SourcePrompt, models: Models) -> Row:
        key = key_of_prompt(prompt, self.args.seed)
        if self.replies == 1:  # a request folds in the number of a branch only where there are several
            key = jax.random.fold_in(key, 0)
        ids = prompt.policy_ids.tolist()
        asked = PromptLine(0, prompt.conversation.id, tuple(prompt.conversation.messages))
        value_ids = prompting.value_ids(models, asked, ids, self._sampling)
        return Row(ids, value_ids, key, runner.threshold(self._sampling))
