"""What dense steering would have done at the tokens that a gate left alone, after the gate's own prefixes.

A threshold's promise is about prefixes that dense steering wrote. A gate writes others: at each token of its
reply y that was not steered, dense steering is asked for one token after the same prompt and y_<t, and says
whether it would have been shifted. The draw is a new one, so the answer is right in law, not token for token.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sia_jax.evaluation.dense_replies import steered_lists
from sia_jax.files.shown import shown_value


@dataclass(frozen=True, eq=False)
class GatedReply:
    """A reply under a gate, as `decode.generate` wrote it."""

    record: Mapping[str, Any]
    tokens: tuple[int, ...]
    closed: tuple[int, ...]
    """Places of the tokens that were not steered."""

    def reread(self, shifted: Mapping[int, bool]) -> dict[str, Any]:
        """Its line with every token as steered: what was read at the places that the gate left alone.

        Args:
          shifted: by those places, all of them.
        """
        record = self.record
        whole = [shifted.get(t, own) for t, own in enumerate(record["shifted"])]
        numbers = ("seed", "threshold", "index", "branch", "method", "prompt_id")
        same = ("id", *numbers, "prompt", "tokens", "entropy")
        return {name: record[name] for name in same} | {
            "shifted": whole,
            "junction": [True] * len(whole),
            "gate": record["junction"],
        }


def gated_reply(record: Mapping[str, Any], vocab_size: int) -> GatedReply:
    """A line of `decode.generate`.

    Args:
      record: the line.
      vocab_size: ids lie below it.

    Raises:
      KeyError, ValueError: it is none.
    """
    _, _, junction = steered_lists(record)
    tokens = record["tokens"]
    if not isinstance(tokens, list) or len(tokens) != len(junction):
        raise ValueError(f"tokens must be a list of {len(junction)} ids, got {shown_value(tokens, 60)}")
    if any(type(token) is not int or not 0 <= token < vocab_size for token in tokens):
        raise ValueError(f"tokens must be ids in 0 .. {vocab_size - 1}")
    return GatedReply(record, tuple(tokens), tuple(t for t, steered in enumerate(junction) if not steered))


def reading_order(replies: Sequence[GatedReply], rows: int) -> Iterator[tuple[int, int]]:
    """(place of the reply, place of the token) of all that is to be read.

    `rows` replies at a time, all their first such tokens before the second: rows that hold a prefix go on
    from there, and two neighbouring prefixes of one reply are not read in two rows at once.

    Args:
      replies: any number.
      rows: of the engine.
    """
    for begin in range(0, len(replies), rows):
        group = range(begin, min(begin + rows, len(replies)))
        for turn in range(max((len(replies[i].closed) for i in group), default=0)):
            for i in group:
                if turn < len(replies[i].closed):
                    yield i, replies[i].closed[turn]
