"""Tokens and their texts, however a reply is cut into pieces."""

import random

import numpy as np
import pytest

from sia_jax.decoding.state import FinishReason
from sia_jax.engine.handle import Piece
from sia_jax.engine.reply import Reply, Usage
from sia_jax.engine.request import Request
from sia_jax.engine.stream import TextStream
from sia_jax.serve.tokens import Spoken, Telling
from sia_jax.text.decoder import cut_at_stop, token_pieces
from tests.support.engines import tokenizer
from tests.support.stub_engine import record_of

ASKED = Request(prompt_ids=[1])


def pieces_of(ids: list[int], stops: tuple[str, ...], rng: random.Random) -> list[Piece]:
    """What an engine would hand out, in windows of any lengths."""
    stream, shown, found, begin = TextStream(tokenizer(), stops), "", [], 0
    while stream.cut is None and begin < len(ids):
        end = min(begin + rng.randint(1, 6), len(ids))
        text = stream.push(ids[begin:end])
        found.append((text, ids[begin:end]))
        shown += text
        begin = end
    rest = stream.finish()
    kept = ids[:begin] if stream.cut is None else ids[: len(stream.cut.pieces)]
    usage = Usage(1, len(kept), 0, 0, 0, 0, 0, 0)
    reply = Reply(shown + rest, FinishReason.STOP, record_of(kept, ASKED), usage, tokenizer=tokenizer())
    last, said = found.pop()
    found.append((last + rest, said))
    whole = [Piece(text, 0, record_of(part, ASKED), None) for text, part in found[:-1]]
    return [*whole, Piece(found[-1][0], 0, record_of(said, ASKED), reply)]


@pytest.mark.parametrize("seed", range(40))
def test_tokens_are_told_once_in_order_with_the_texts_and_records_of_the_whole(seed: int) -> None:
    rng = random.Random(seed)
    text = "".join(rng.choice(["bread ", "then ", "é", "語", "the", "\U0001f35e", " and"]) for _ in range(20))
    ids = list(tokenizer().encode(text, add_special_tokens=False))
    ids = ids[: rng.randint(1, len(ids))]  # it may end in half a character
    ids += rng.choice([[], [tokenizer().convert_tokens_to_ids("<|im_end|>")]])
    stops = rng.choice([(), ("then é",), ("and", "語bread"), ("th",), ("bread the",)])
    offset = rng.choice([0, 7])
    telling = Telling(tokenizer(), offset)
    told: list[Spoken] = []
    handed = ""
    for piece in pieces_of(ids, stops, rng):
        handed += piece.text
        new = telling.push(piece)
        told += new
        assert len("".join(one.text for one in told)) <= len(handed)
        assert telling.told == len(told)
    whole = token_pieces(tokenizer(), ids)
    cut = cut_at_stop(whole, stops) if stops else None
    expected = whole if cut is None else cut.pieces
    assert [one.text for one in told] == expected
    assert "".join(expected) == handed
    assert [one.id for one in told] == ids[: len(expected)]
    assert [one.offset for one in told] == (np.cumsum([0, *map(len, expected)])[:-1] + offset).tolist()
    record = record_of(ids, ASKED)
    assert [one.number("entropy") for one in told] == record.entropy[: len(expected)].tolist()


def test_without_texts_every_token_is_told_as_it_comes() -> None:
    ids = list(tokenizer().encode("bread and then", add_special_tokens=False))
    telling = Telling(None)
    for piece in pieces_of(ids, (), random.Random(0)):
        assert [one.id for one in telling.push(piece)] == piece.tokens.tolist()
    assert telling.told == len(ids)


@pytest.mark.parametrize("stops", [(), ("the ",), ("bread the",)])
def test_tokens_that_nobody_asks_about_are_counted_as_those_that_are_told(stops: tuple[str, ...]) -> None:
    ids = list(tokenizer().encode("bread and then the bread there", add_special_tokens=False))
    told, counted = Telling(None), Telling(None)
    for piece in pieces_of(ids, stops, random.Random(1)):
        told.push(piece)
        counted.pass_over(piece)
        assert counted.told == told.told > 0
