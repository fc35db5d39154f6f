"""The tokens of a choice as they can be told: each with the part of the text that it completes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from sia_jax.engine.handle import Piece
from sia_jax.text.decoder import IncrementalDecoder
from sia_jax.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Spoken:
    """One token of a choice."""

    id: int
    text: str
    """What of the choice's text it completes; "" where texts are not asked for."""
    offset: int
    """Characters of the choice's text before that."""
    record: Any
    """`sia_jax.steering.types.TokenRecord` that it stands in, NumPy."""
    place: int
    """Where in the record."""

    def number(self, name: str) -> Any:
        """A number of its record."""
        return getattr(self.record, name)[self.place]


class Telling:
    """The tokens of one choice, piece by piece.

    The texts of all tokens, joined, are the text of the reply. A token is told once its text has been handed
    out: what may yet turn out to be a stop text, or is half a character, is held back with its tokens.

    Args:
      tokenizer: the policy's; None: nobody asks for the texts of tokens, and each is told as it comes.
      offset: characters of the choice's text before the reply.
    """

    def __init__(self, tokenizer: Tokenizer | None, offset: int = 0):
        self._decoder = None if tokenizer is None else IncrementalDecoder(tokenizer)
        self._held: list[Spoken] = []
        self._offset = self._end = self._handed_out = offset
        self.told = 0
        """Tokens that were told."""

    def push(self, piece: Piece) -> list[Spoken]:
        """The tokens that can be told from this piece on; of the last, all that are left.

        The tokenizer, if there is one, is used.
        """
        if piece.reply is not None:
            # What a stop text takes off, and bytes that never became a character, are known only now.
            texts = [""] * len(piece.reply.tokens) if self._decoder is None else piece.reply.pieces
            self._end = self._offset
            ready = self._spoken(piece.reply.tokens, texts, piece.reply.record)[self.told :]
        else:
            ids = piece.tokens
            decoder = self._decoder
            texts = [""] * len(ids) if decoder is None else [decoder.push(int(id_)) for id_ in ids]
            self._held += self._spoken(ids, texts, piece.record)
            self._handed_out += len(piece.text)
            certain = self._handed_out
            count = sum(1 for _ in takewhile(lambda one: one.offset + len(one.text) <= certain, self._held))
            ready, self._held = self._held[:count], self._held[count:]
        self.told += len(ready)
        return ready

    def pass_over(self, piece: Piece) -> None:
        """Count the tokens of a piece as told, where nobody asks for more than their number."""
        whole = piece.reply
        self.told = self.told + len(piece.tokens) if whole is None else max(self.told, len(whole.tokens))

    def _spoken(self, ids: Any, texts: Sequence[str], record: Any) -> list[Spoken]:
        found = []
        for place, (id_, text) in enumerate(zip(ids, texts, strict=True)):
            found.append(Spoken(int(id_), text, self._end, record, place))
            self._end += len(text)
        return found
