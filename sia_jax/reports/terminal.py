"""Replies in a terminal: junctions stand out, and what the value model changed is underlined."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table
from rich.text import Text

from sia_jax.engine.handle import Piece
from sia_jax.engine.reply import Reply
from sia_jax.files.shown import shown
from sia_jax.runs.progress import rate
from sia_jax.steering.types import TokenRecord
from sia_jax.text.decoder import IncrementalDecoder
from sia_jax.text.tokenizer import Tokenizer

JUNCTION = "bold magenta"
SHIFTED = "bold magenta underline"

_Run = tuple[str, str]
"""What a token says, and its style."""


def legend() -> Text:
    """What the styles mean."""
    return Text.assemble(
        ("steered", JUNCTION),
        (" at a junction    ", "dim"),
        ("shifted", SHIFTED),
        (" away from the policy's choice", "dim"),
    )


def reply_text(reply: Reply) -> Text:
    """A reply with its junctions in magenta, and its shifted tokens underlined."""
    return _text(_runs(reply.pieces, reply.record))


class ReplyStream:
    """`reply_text` of a reply that is still being written.

    All that `push` returns, joined, is `reply_text` of the whole reply. A token whose character is not whole
    yet, or which may begin a stop text, comes in its own style once it is to be seen.

    Args:
      tokenizer: the policy's.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._decoder = IncrementalDecoder(tokenizer)
        self._held: list[_Run] = []
        self._certain = self._out = 0

    def push(self, piece: Piece) -> Text:
        """What can be shown from this piece on; of the last, all that is left. Its tokenizer is used."""
        if piece.reply is not None:
            # Bytes that never became a character, and what a stop text takes off, are known only now.
            whole = _runs(piece.reply.pieces, piece.reply.record)
            return _text(_parted(whole, self._out)[1])
        self._held += _runs([self._decoder.push(int(token)) for token in piece.tokens], piece.record)
        self._certain += len(piece.text)
        ready, self._held = _parted(self._held, self._certain - self._out)
        self._out += sum(len(text) for text, _ in ready)
        return _text(ready)


def _runs(pieces: Sequence[str], record: TokenRecord) -> list[_Run]:
    flags = zip(pieces, np.asarray(record.junction), np.asarray(record.shifted), strict=True)
    return [
        (piece, SHIFTED if shifted else JUNCTION if junction else "") for piece, junction, shifted in flags
    ]


def _parted(runs: Sequence[_Run], characters: int) -> tuple[list[_Run], list[_Run]]:
    """The first characters, as far as there are any, and the rest."""
    first, rest = [], []
    for text, style in runs:
        first.append((text[:characters], style))
        rest.append((text[characters:], style))
        characters -= len(first[-1][0])
    return first, [run for run in rest if run[0]]


def _text(runs: Sequence[_Run]) -> Text:
    text = Text()
    for piece, style in runs:
        text.append(shown(piece), style)
    return text


@dataclass
class Tally:
    """Counts over replies, and the time they took."""

    replies: int = 0
    tokens: int = 0
    junctions: int = 0
    shifted: int = 0
    decided: int = 0
    """Steered, without a value."""
    seconds: float = 0.0

    def add(self, replies: Sequence[Reply], seconds: float) -> None:
        """Count replies that were generated together in `seconds`."""
        self.replies += len(replies)
        self.tokens += sum(len(reply.tokens) for reply in replies)
        self.junctions += sum(reply.num_junctions for reply in replies)
        self.shifted += sum(reply.num_shifted for reply in replies)
        self.decided += sum(reply.num_decided for reply in replies)
        self.seconds += seconds

    @property
    def tokens_per_second(self) -> float:
        """0 before anything is counted."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def describe(self, *, steered: bool = True) -> str:
        """'57 tokens, 21% steered, 4 shifted, 83 tok/s'; no rate where no time was counted."""
        parts = [f"{self.tokens:,} token{'s' * (self.tokens != 1)}"]
        if steered:
            parts.append(f"{self.junctions / max(self.tokens, 1):.0%} steered")
            parts.append(f"{self.shifted:,} shifted")
        if self.decided:
            parts.append(f"{self.decided / self.junctions:.0%} of the steered decided without a value")
        if self.seconds:
            parts.append(f"{rate(self.tokens_per_second)} tok/s")
        return ", ".join(parts)


def summary(reply: Reply, seconds: float = 0.0, *, steered: bool = True) -> str:
    """'57 tokens, 21% steered, 4 shifted, 83 tok/s, stop'.

    Args:
      reply: one reply.
      seconds: what it took; 0: no rate.
      steered: False leaves out the steering.
    """
    tally = Tally()
    tally.add([reply], seconds)
    end = reply.finish_reason.name.lower().replace("_", "-")
    at = "" if reply.stop_string is None else f" at {shown(repr(reply.stop_string))}"
    return f"{tally.describe(steered=steered)}, {end}{at}"


def side_by_side(base: Reply, steered: Reply, titles: tuple[str, str]) -> Table:
    """Two replies to one prompt in two columns, with a summary under each."""
    table = Table(expand=True, show_footer=True, footer_style="dim")
    for title, reply, is_steered in zip(titles, (base, steered), (False, True), strict=True):
        table.add_column(title, ratio=1, overflow="fold", footer=summary(reply, steered=is_steered))
    table.add_row(reply_text(base), reply_text(steered))
    return table


def candidates_table(reply: Reply, name: Callable[[int], str], most: int = 5, rows: int = 40) -> Table:
    """The junctions of a reply: what stood to choice there, and what came of it.

    A candidate is shown as token·probability·value, the probability among the candidates, which is what the
    entropy is taken of. The chosen one is magenta; the policy's own choice is underlined.

    Args:
      reply: with candidates.
      name: a token's text from its id.
      most: candidates shown at each junction; the chosen one and the policy's own are shown beside them.
      rows: junctions shown.

    Raises:
      ValueError: a reply whose candidates were not recorded.
    """
    record = reply.candidates
    if record is None:
        raise ValueError('the candidates were not recorded; sample with record="candidates"')
    table = Table(caption_justify="left")
    for title, style in (("at", "dim"), ("token", JUNCTION), ("entropy", ""), ("policy alone", "")):
        table.add_column(title, style=style, justify="right" if title in ("at", "entropy") else "left")
    table.add_column("candidates: token·policy·value", overflow="fold")
    places = np.flatnonzero(reply.junction)
    for t in places[:rows]:
        ids, own = record.ids[t].tolist(), int(record.policy_choice[t])
        chosen = int(reply.tokens[t])
        weights = np.exp(record.logits[t] - record.logits[t].max())
        shares = weights / weights.sum()
        cells = Text()
        for place, (token, share, value) in enumerate(zip(ids, shares, record.values[t], strict=True)):
            if place >= most and token not in (chosen, own):
                continue
            style = JUNCTION if token == chosen else "underline" if token == own else ""
            cells.append("   " if cells else "")
            cells.append(_quoted(name(token)), style)
            numbers = f"·{share:.0%}·{value:+.2f}" if math.isfinite(value) else f"·{share:.0%}"
            cells.append(numbers, "dim")
        own_cell = Text("the same", "dim") if own == chosen else Text(_quoted(name(own)), "underline")
        table.add_row(
            str(t), Text(_quoted(name(chosen)), JUNCTION), f"{reply.entropy[t]:.2f}", own_cell, cells
        )
    if len(places) > rows:
        table.caption = f"and {len(places) - rows} more"
    return table


def _quoted(token: str) -> str:
    """A token with its spaces to be seen."""
    return shown(token).replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") or "∅"
