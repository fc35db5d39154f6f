"""Prompts of raw data as a policy reads them, and its replies to them: in a journal, and as records.

A reply depends on the weights, the numbers, its prompt's ids and its own number alone: branch j of a prompt
draws with fold_in(k, j), where k is `key_of_prompt`.
"""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import sia_jax
from sia_jax.data.records import Record
from sia_jax.data.rejections import Rejections
from sia_jax.data.sources import Source
from sia_jax.data.sources.conversations import OpenConversation, Rejected
from sia_jax.engine.reply import Reply
from sia_jax.runs.journal import Journal
from sia_jax.runs.prompt_ids import key_of_digest
from sia_jax.text.chat import Message, value_prompt
from sia_jax.text.forms import Prompting
from sia_jax.text.markup import Markup, markup_of
from sia_jax.text.templates import TemplateRefusal
from sia_jax.text.tokenizer import Tokenizer

CUT, FAILED = "length", "non_finite"
ENDS = ("stop", CUT, FAILED)
"""How a reply may end; names of `sia_jax.decoding.state.FinishReason`."""


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


@dataclass(frozen=True, eq=False)
class PromptReader:
    """Makes prompts of open conversations.

    Args:
      policy: with a tokenizer; its weights are not looked at.
      prompting: how it is prompted.
      for_value: whether records get the form of a prompt that a value model is given; else the policy's ids.
      most_policy: ids of the longest prompt that leaves room for a reply, as the policy reads it.
      most_record: likewise, as records have it.
    """

    policy: sia_jax.Policy
    prompting: Prompting
    for_value: bool
    most_policy: int
    most_record: int

    @cached_property
    def _markup(self) -> Markup:
        return markup_of(self._tokenizer)

    @property
    def _tokenizer(self) -> Tokenizer:
        assert self.policy.tokenizer is not None
        return self.policy.tokenizer

    def read(
        self,
        source: Source,
        limit: int | None,
        rejections: Rejections,
        progress: Callable[[int, float], None],
    ) -> Prompts:
        """The distinct prompts: those that the policy reads as other ids than any before.

        Args:
          source: open, without replies.
          limit: stop after so many that have room for a reply.
          rejections: those that have none are counted here.
          progress: told how many were read, and what share of the data that is.

        Raises:
          ValueError: what the source or the policy's template finds.
        """
        seen: set[str] = set()
        distinct: list[SourcePrompt] = []
        found = 0
        for number, entry in enumerate(source.entries, start=1):
            progress(number, source.files.fraction)
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

    def differs(self, prompt: SourcePrompt) -> bool:
        """Whether a value model would be given other ids than those in the records."""
        return prompt.record_ids.tolist() != self._value_ids(prompt.conversation.messages)

    def _prompt(self, conversation: OpenConversation, file: str) -> SourcePrompt:
        ids = self.policy.prompt_ids(conversation.messages, self.prompting.form, **self.prompting.variables)
        policy_ids = np.array(ids, np.int32)
        record_ids = policy_ids
        if self.for_value:
            record_ids = np.array(self._value_ids(conversation.messages), np.int32)
        return SourcePrompt(conversation, file, policy_ids, record_ids, _hash(policy_ids).hex())

    def _value_ids(self, messages: Sequence[Message]) -> list[int]:
        return value_prompt(self._tokenizer, messages, self._markup)

    def _problem(self, prompt: SourcePrompt) -> str | None:
        """Why it cannot be replied to, in words that can be counted."""
        largest = max(int(ids.max()) for ids in (prompt.policy_ids, prompt.record_ids))
        if largest >= self.policy.config.vocab_size:
            return "prompt has ids outside the vocabulary"
        lengths = ((prompt.policy_ids, self.most_policy), (prompt.record_ids, self.most_record))
        for ids, most in lengths:
            if len(ids) > most:
                return f"prompt of more than {most} tokens, which leaves no room for a reply"
        return None


def key_of_prompt(prompt: SourcePrompt, seed: int) -> jax.Array:
    """key(seed) with the first two words of the SHA-256 of the ids folded in, one after the other."""
    return key_of_digest(prompt.digest, seed)


class Sampled(NamedTuple):
    """A reply, as the journal has it."""

    tokens: np.ndarray  # [T] int32
    text: str
    end: str
    """One of `ENDS`."""


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


def record_of(prompt: SourcePrompt, branch: int, reply: Sampled) -> Record | Rejected:
    """The record of a reply, or why there is none."""
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
