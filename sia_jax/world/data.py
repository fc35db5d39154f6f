"""The world's text in the world's tokens: dialogues for a policy, pairs for a reward model, prompts."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from sia_jax.data.sources.conversations import Conversation
from sia_jax.data.tokenise import tokenise
from sia_jax.data.trajectories import Trajectory
from sia_jax.files.writing import write_text
from sia_jax.text.chat import Message, reward_conversation
from sia_jax.text.markup import CHATML
from sia_jax.text.tokenizer import Tokenizer
from sia_jax.world.grammar import sample_reply
from sia_jax.world.pairs import preference_pairs
from sia_jax.world.practice import practice
from sia_jax.world.prompts import SPLITS, Prompt, Split, prompts
from sia_jax.world.streams import stream


def conversation(prompt: Prompt, reply: str) -> tuple[Message, ...]:
    """A prompt with a reply."""
    return (*prompt.messages, {"role": "assistant", "content": reply})


def texts(seed: int, dialogues: int) -> Iterator[str]:
    """What the tokenizer learns from: prompts and replies of the policy's practice."""
    for prompt, reply in practice(seed, dialogues):
        yield prompt.text
        yield reply


class Practice:
    """What a policy learns from, in batches of whole dialogues, each written when it is asked for.

    Rewards are 0: nothing is learned from them.

    Args:
      tokenizer: the world's.
      seed: of the world.
      dialogues: of all batches.
      size: of a batch.
    """

    def __init__(self, tokenizer: Tokenizer, seed: int, dialogues: int, size: int):
        self._tokenizer, self._seed = tokenizer, seed
        self._size, self._dialogues = size, dialogues
        self._next, self._written = 0, practice(seed, dialogues)

    def batch(self, number: int) -> list[Trajectory]:
        """The dialogues of a batch; cheap in their order."""
        first = number * self._size
        if first != self._next:
            self._written = practice(self._seed, self._dialogues, first)
        self._next = first + self._size
        chosen = enumerate(islice(self._written, self._size), first)
        return [_trajectory(self._tokenizer, i, *pair) for i, pair in chosen]


def held_out_language_data(tokenizer: Tokenizer, seed: int, split: Split) -> list[Trajectory]:
    """A dialogue for each prompt of a split, as the grammar would have it."""
    replies = ((p, sample_reply(p, stream(seed, "held out", p.id))) for p in prompts(split))
    return [_trajectory(tokenizer, i, *pair) for i, pair in enumerate(replies)]


def _trajectory(tokenizer: Tokenizer, number: int, prompt: Prompt, reply: str) -> Trajectory:
    found = Conversation(str(number), prompt.id, conversation(prompt, reply), place=f"dialogue {number}")
    record = tokenise(tokenizer, found, CHATML)
    return Trajectory(record.prompt_ids, record.reply_ids, 0.0, number=number, group=prompt.id)


@dataclass(frozen=True)
class Pairs:
    """Preference pairs, padded on the right to a common length."""

    chosen: np.ndarray  # [n, L] int32
    rejected: np.ndarray  # [n, L] int32
    lengths: np.ndarray  # [2, n] int32, of the chosen and of the rejected
    width: int
    """Batches are so many tokens wide, or a multiple: each width is compiled."""

    def batch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(tokens, lengths) of the pairs with these numbers, as `preference_step` takes them.

        They are padded to the next multiple of `width` that the longest of them needs.
        """
        lengths = self.lengths[:, numbers].reshape(-1)
        width = _padded(int(lengths.max()), self.width)
        return np.concatenate([self.chosen[numbers, :width], self.rejected[numbers, :width]]), lengths


def preference_data(tokenizer: Tokenizer, seed: int, count: int, noise: float, width: int = 64) -> Pairs:
    """Pairs for a reward model, in its own form of a conversation."""
    ids = [
        [
            reward_conversation(tokenizer, conversation(pair.prompt, text))
            for text in (pair.chosen, pair.rejected)
        ]
        for pair in preference_pairs(seed, count, noise)
    ]
    lengths = np.array([[len(one) for one in pair] for pair in ids], np.int32).T
    padded = np.zeros((count, 2, _padded(int(lengths.max()), width)), np.int32)
    for number, pair in enumerate(ids):
        for side, one in enumerate(pair):
            padded[number, side, : len(one)] = one
    return Pairs(padded[:, 0], padded[:, 1], lengths, width)


def _padded(length: int, width: int) -> int:
    return -(-length // width) * width


def write_prompts(folder: Path) -> None:
    """The prompts of every split as JSONL, which `train.prepare` and `decode.generate` read."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        lines = (json.dumps({"id": p.id, "prompt": p.text}, ensure_ascii=False) for p in prompts(split))
        write_text(folder / f"{split}.jsonl", "".join(line + "\n" for line in lines))
