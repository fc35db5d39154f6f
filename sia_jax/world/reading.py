"""Reading a finished text: its sentences, and which phrase of a table a sentence says."""

import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Generic, TypeVar

Label = TypeVar("Label", bound=Hashable)

MAX_WORDS = 30
"""Of a sentence that can still be read."""

SAID = 0.75
"""Share of a phrase's content words that make a sentence say it."""

_EMPTY_WORDS = """
a about above after all and any are as at away be before below but by do does down each every for from has
have her him his how i if in into is it its let make me more my no not of off on one or our out over own put
set so some than that the their them then there they this to under until up use was we well what when which
who will with without would you your
"""
"""Words that tell nothing about the topic of a sentence."""


@dataclass(frozen=True)
class Sentence:
    """A sentence as it stands in a text."""

    text: str
    """With its mark, without spaces around it."""

    @cached_property
    def words(self) -> tuple[str, ...]:
        """In lower case, without marks."""
        return tuple(re.findall(r"[a-z]+(?:[-'’][a-z]+)*", self.text.lower()))

    @cached_property
    def plain(self) -> str:
        """The words with one space between them, and one at either end."""
        return f" {' '.join(self.words)} "

    @property
    def is_complete(self) -> bool:
        """Whether it has its full stop."""
        return self.text[-1] in ".!?"

    @property
    def is_well_formed(self) -> bool:
        """A capital first, ordinary marks, words but not too many, and no word twice running."""
        twice = any(a == b for a, b in pairwise(self.words))
        ordinary = re.fullmatch(r"[A-Z][A-Za-z,:;'’ -]*[.!?]?", self.text) is not None
        return ordinary and not twice and self.is_readable and self.words != ()

    @property
    def is_readable(self) -> bool:
        """Whether it is short enough to be understood."""
        return len(self.words) <= MAX_WORDS

    def has_any(self, phrases: Iterable[str]) -> bool:
        """Whether one of the phrases (lower case, no marks) stands in it."""
        return any(f" {phrase} " in self.plain for phrase in phrases)


def read_sentences(text: str) -> list[Sentence]:
    """The sentences of a text; the last one may lack its full stop."""
    parts = re.findall(r"[^.!?]+[.!?]*", text)
    return [Sentence(part.strip()) for part in parts if part.strip()]


class Phrasebook(Generic[Label]):
    """Finds the phrase that a sentence says: the one most of whose content words stand in it.

    At least three quarters of them must; their order and the words between them do not matter, so a small
    slip does not spoil a phrase. A sentence says one phrase at most, whatever is crammed into it.
    """

    def __init__(self, phrases: Iterable[tuple[Label, str]]):
        self._phrases = [(label, content_words(phrase)) for label, phrase in phrases]

    def find(self, sentence: Sentence) -> Label | None:
        """The label of the phrase that the sentence says, if it says one."""
        words = frozenset(sentence.words)
        best, best_share = None, 0.0
        for label, content in self._phrases:
            share = len(content & words) / len(content)
            if share > best_share:
                best, best_share = label, share
        return best if best_share >= SAID else None


def longest(names: Iterable[str]) -> re.Pattern[str]:
    """Finds names, letter for letter and as whole words; of two that start alike, the longer one."""
    return re.compile(
        rf"(?<![\w-])(?:{'|'.join(map(re.escape, sorted(names, key=len, reverse=True)))})(?![\w-])"
    )


def content_words(phrase: str) -> frozenset[str]:
    """The words of a phrase that tell its topic."""
    return frozenset(Sentence(phrase).words).difference(_EMPTY_WORDS.split())
