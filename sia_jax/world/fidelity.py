"""How faithful a reply is to its request: whether it is about another one, and whether its words are words.

The grammar decides. It writes finitely many sentences to a request; a sentence that it writes to others alone
is about another request. What it says on purpose that is wrong, confused or off the topic is among its own.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from sia_jax.world.grammar import replies
from sia_jax.world.junctions import Junction, Node
from sia_jax.world.practice import practice_prompts
from sia_jax.world.prompts import SPLITS, Prompt, prompts

_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")


@dataclass(frozen=True)
class Fidelity:
    """Counts over replies."""

    replies: int
    about_another: int
    """With a sentence that the grammar writes to other requests, and never to this one."""
    unwritten: int
    """With a sentence that the grammar writes to no request at all."""
    words: int
    strange_words: int
    """That stand in no text of the world."""


def fidelity(pairs: Iterable[tuple[Prompt, str]]) -> Fidelity:
    """Count over (prompt, finished reply)."""
    texts = list(pairs)
    found = [_sentences(text) for _, text in texts]
    words = [word for _, text in texts for word in _WORD.findall(text.lower())]
    foreign = [
        [s for s in sentences if s not in sentences_of(prompt)]
        for (prompt, _), sentences in zip(texts, found, strict=True)
    ]
    known = {s: s in _all_sentences() for s in {s for sentences in foreign for s in sentences}}
    return Fidelity(
        replies=len(texts),
        about_another=sum(any(known[s] for s in sentences) for sentences in foreign),
        unwritten=sum(any(not known[s] for s in sentences) for sentences in foreign),
        words=len(words),
        strange_words=sum(word not in known_words() for word in words),
    )


@cache
def sentences_of(prompt: Prompt) -> frozenset[str]:
    """Every sentence that the grammar writes to a prompt, in lower case."""
    closed: set[str] = set()
    _walk(replies(prompt), frozenset({""}), closed, {})
    return frozenset(closed)


@cache
def known_words() -> frozenset[str]:
    """Every word of the world's prompts and replies, in lower case."""
    texts = [*_all_sentences(), *(prompt.text.lower() for prompt in _every_prompt())]
    return frozenset(word for text in texts for word in _WORD.findall(text))


@cache
def _all_sentences() -> frozenset[str]:
    return frozenset().union(*map(sentences_of, _every_prompt()))


def _every_prompt() -> list[Prompt]:
    """One for each request and order of facts, held out or not."""
    first = {prompt.subject: prompt for prompt in practice_prompts()}
    return [*first.values(), *(prompt for split in SPLITS for prompt in prompts(split))]


def _walk(
    node: Node,
    begun: frozenset[str],
    closed: set[str],
    seen: dict[tuple[int, frozenset[str]], frozenset[str]],
) -> frozenset[str]:
    """Go through a node with sentences that are begun; the ones that are begun behind it.

    Nodes share what follows them, so that each is gone through once for the same beginnings.
    """
    place = (id(node), begun)
    if place not in seen:
        if isinstance(node, Junction):
            after = frozenset().union(*(_walk(branch, begun, closed, seen) for branch in node.branches))
        elif isinstance(node, tuple):
            after = begun
            for part in node:
                after = _walk(part, after, closed, seen)
        else:
            after = frozenset(_append(text, node, closed) for text in begun)
        seen[place] = after
    return seen[place]


def _append(begun: str, piece: str, closed: set[str]) -> str:
    """A piece behind the beginning of a sentence; the sentences that it ends are closed."""
    if not piece:
        return begun
    space = "" if not begun or piece[0] in ".,:;!?" else " "
    *ended, rest = re.split(r"(?<=[.!?]) ?", (begun + space + piece).lower())
    closed.update(ended)
    return rest


def _sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?]) ?", text.strip().lower()) if part]
