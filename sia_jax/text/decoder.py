"""Ids as text, token by token, and where a reply's text stops."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sia_jax.text.tokenizer import Tokenizer

_REPLACEMENT = "\ufffd"
"""What decoders write for bytes that are no character, or not one yet."""

_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")


class IncrementalDecoder:
    """Text from ids as they come, across characters that several tokens spell.

    All that `push` and `finish` return, joined, is `tokenizer.decode` of all ids (without its "clean-up",
    which takes spaces out of the text). An unfinished character is held back until its last byte is there: a
    replacement character comes out only for bytes that can no longer become one, and always a push later.

    Tokenizers that spell rare characters as bytes (<0xE2><0x82>..., "byte fallback") take a run of them for
    text only if the whole run is: one byte too many, and each of them becomes a replacement character. What
    such a run says is known at its end, so it is held back until then.

    Args:
      tokenizer: a transformers tokenizer.
      skip_special_tokens: leave out the likes of <|im_end|>.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True):
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        # What is decoded each time: ids that are out already, for tokenizers whose tokens depend on what is
        # in front of them, and ids that are not. Both begin where a character begins.
        self._context: list[int] = []
        self._fresh: list[int] = []
        self._emitted = 0  # characters of the two that are out
        self._run: list[int] = []  # ids from the first byte of a run on

    def push(self, ids: int | Iterable[int]) -> str:
        """The text that these ids complete; "" as long as they complete none."""
        self._run += [ids] if isinstance(ids, int) else ids
        ready = self._before_open_run()
        self._fresh += self._run[:ready]
        self._run = self._run[ready:]
        return self._complete()

    def finish(self) -> str:
        """What was held back; the decoder is as new afterwards."""
        rest = self._decode(self._context + self._fresh + self._run)[self._emitted :]
        self._context, self._fresh, self._run, self._emitted = [], [], [], 0
        return rest

    def _complete(self) -> str:
        text = self._decode(self._context + self._fresh)
        # Decoders write one replacement character for a character that lacks bytes, and it is the last.
        unfinished = text.endswith(_REPLACEMENT)
        stable = len(text) - unfinished
        new = text[self._emitted : stable]
        if unfinished:
            self._emitted = max(self._emitted, stable)
        elif new:  # ids without text are no context: what follows them would be taken for a beginning
            self._context, self._fresh = self._fresh, []
            self._emitted = len(self._decode(self._context))
        return new

    def _before_open_run(self) -> int:
        """How many of the ids stand in front of bytes that more bytes may follow."""
        names = map(self._tokenizer.convert_ids_to_tokens, self._run)
        is_byte = [_BYTE.fullmatch(str(name)) is not None for name in names]
        begin = len(self._run)
        if not any(is_byte):
            return begin
        for place in reversed(range(begin)):
            if is_byte[place]:
                begin = place
            elif self._decode(self._run[place : place + 1]):  # a token that is left out ends no run
                break
        return begin

    def _decode(self, ids: list[int]) -> str:
        return str(
            self._tokenizer.decode(ids, skip_special_tokens=self._skip, clean_up_tokenization_spaces=False)
        )


def token_pieces(
    tokenizer: Tokenizer, ids: Sequence[int], *, skip_special_tokens: bool = True, whole: bool = True
) -> list[str]:
    """The text that each token completes; joined, the text of all.

    Args:
      tokenizer: a transformers tokenizer.
      ids: T ids.
      skip_special_tokens: "" for the likes of <|im_end|>.
      whole: False: others follow, so that bytes at the end may yet become a character.

    Returns:
      T strings. Bytes that never became a character belong to the last.
    """
    decoder = IncrementalDecoder(tokenizer, skip_special_tokens=skip_special_tokens)
    pieces = [decoder.push(int(token)) for token in ids]
    if pieces and whole:
        pieces[-1] += decoder.finish()
    return pieces


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """What one token says alone; of one that is part of a character, the tokenizer's own name."""
    text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
    return str(tokenizer.convert_ids_to_tokens(token)) if _REPLACEMENT in text else text


@dataclass(frozen=True)
class Cut:
    """A text that ends before a stop string."""

    pieces: list[str]
    """What is left of the text, one string for each token that is kept."""
    stop: str
    """The stop string that was found."""


def cut_at_stop(pieces: Sequence[str], stops: Sequence[str], min_new_tokens: int = 0) -> Cut | None:
    """Cut before the stop string that is complete first; of several that end there, before the longest.

    It does not matter how the text is split into tokens. The token that completes the stop string is kept, as
    a stop id is, and no text of the stop string with it. One that the first `min_new_tokens` tokens complete
    ends nothing, and is text like any other (as in vLLM); one that they only begin does.

    Args:
      pieces: the text, one string a token.
      stops: none of them empty.
      min_new_tokens: tokens that complete no stop string, as they are no stop ids.

    Returns:
      None if the text holds no stop string.

    Raises:
      ValueError: an empty stop string.
    """
    if "" in stops:
        raise ValueError("a stop string must not be empty")
    text = "".join(pieces)
    held = sum(map(len, pieces[:min_new_tokens]))
    places = ((text.find(stop, max(0, held - len(stop) + 1)), stop) for stop in stops)
    found = [(place + len(stop), -len(stop), stop) for place, stop in places if place >= 0]
    if not found:
        return None
    end, _, stop = min(found)
    left, kept, seen = end - len(stop), [], 0
    for piece in pieces:
        kept.append(piece[: max(0, left - seen)])
        seen += len(piece)
        if seen >= end:
            break
    return Cut(kept, stop)
