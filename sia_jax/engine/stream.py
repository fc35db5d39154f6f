"""The text of a reply as its tokens come: pieces that can be shown, and where a stop text ends it."""

from collections.abc import Sequence

from sia_jax.text.decoder import Cut, IncrementalDecoder, cut_at_stop, token_pieces
from sia_jax.text.tokenizer import Tokenizer


class TextStream:
    """Text from ids, window by window.

    All that `push` and `finish` return, joined, is the text of the reply: what `token_pieces` and
    `cut_at_stop` make of all ids. What may yet turn out to begin a stop text is held back.

    Args:
      tokenizer: the policy's.
      stops: none of them empty.
      min_new_tokens: tokens that complete no stop text; see `sia_jax.text.decoder.cut_at_stop`.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = (), min_new_tokens: int = 0):
        self._tokenizer, self._stops, self._least = tokenizer, tuple(stops), min_new_tokens
        self._decoder = IncrementalDecoder(tokenizer)
        self._ids: list[int] = []
        self._text = ""
        self._shown = 0
        self._longest = max(map(len, self._stops), default=0)
        self.cut: Cut | None = None
        """Where the reply ends; None: no stop text has been found."""

    def push(self, ids: Sequence[int]) -> str:
        """What these ids let be shown; once `cut` is there, nothing more comes."""
        assert self.cut is None
        self._ids += ids
        return self._take(self._decoder.push(ids), last=False)

    def finish(self, *, broken_off: bool = False) -> str:
        """The rest, for no ids follow.

        Args:
          broken_off: others would have followed; half a character at the end is then no stop text.
        """
        if self.cut is not None:
            return ""
        return self._take(self._decoder.finish(), last=True, seek=not broken_off)

    def _take(self, new: str, last: bool, seek: bool = True) -> str:
        before = len(self._text)
        self._text += new
        end = len(self._text)
        if self._stops and seek:
            # A stop text that was complete before would have been found before, but for the first tokens',
            # which may still begin one.
            begin = max(0, before - self._longest + 1)
            if any(self._text.find(stop, begin) >= 0 for stop in self._stops):
                pieces = token_pieces(self._tokenizer, self._ids, whole=last)
                self.cut = cut_at_stop(pieces, self._stops, self._least)
            if self.cut is not None:
                end = sum(map(len, self.cut.pieces))
            elif not last:
                end -= _held(self._text, self._stops)
        shown, self._shown = self._text[self._shown : end], max(self._shown, end)
        return shown


def _held(text: str, stops: Sequence[str]) -> int:
    """Characters at the end of a text that may begin a stop text."""
    longest = min(len(text), max(map(len, stops)) - 1)
    for length in range(longest, 0, -1):
        end = text[-length:]
        if any(stop.startswith(end) for stop in stops):
            return length
    return 0
