"""The text of a reply as it comes: pieces that join to the text, whatever the windows and stop texts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sia_jax.engine.stream import TextStream
from sia_jax.text.decoder import cut_at_stop, token_pieces
from tests.support.engines import tokenizer

BYTES = [
    tokenizer().encode(x, add_special_tokens=False) for x in ("é", "漢字", "👩‍🚀", "egg", "the train", " a")
]


@st.composite
def replies(draw: st.DrawFn) -> list[int]:
    """Ids of words, of characters of several tokens, of single bytes of such, and of special tokens."""
    parts = draw(
        st.lists(
            st.one_of(
                st.sampled_from(BYTES),
                st.integers(0, 345).map(lambda x: [x]),
                st.sampled_from(BYTES).map(lambda ids: ids[:1]),
            ),
            max_size=12,
        )
    )
    return [token for part in parts for token in part]


@settings(max_examples=300)
@given(
    ids=replies(),
    cuts=st.lists(st.integers(1, 7), min_size=1, max_size=30),
    stops=st.lists(
        st.sampled_from(["egg", "gg", "é", "漢字", "字", "the tr", " a", "\ufffd", "n the", "e"]), max_size=3
    ),
    least=st.integers(0, 6),
)
def test_pieces_joined_are_the_text_of_all_tokens_up_to_the_stop_text(
    ids: list[int], cuts: list[int], stops: list[str], least: int
) -> None:
    pieces = token_pieces(tokenizer(), ids)
    expected = cut_at_stop(pieces, stops, least)
    stream, shown, start = TextStream(tokenizer(), stops, least), [], 0
    for turn in range(len(ids)):
        size = cuts[turn % len(cuts)]
        if stream.cut is not None or start >= len(ids):
            break
        shown.append(stream.push(ids[start : start + size]))
        start += size
    shown.append(stream.finish())
    assert "".join(shown) == "".join(pieces if expected is None else expected.pieces)
    assert (stream.cut is None) == (expected is None)
    if expected is not None and stream.cut is not None:
        assert (stream.cut.stop, len(stream.cut.pieces)) == (expected.stop, len(expected.pieces))


def test_what_may_begin_a_stop_text_is_held_back_and_shown_when_it_does_not() -> None:
    stream = TextStream(tokenizer(), ["the end", "end."])
    ids = {word: tokenizer().encode(word, add_special_tokens=False) for word in ("a the", " en", "gine")}
    assert stream.push(ids["a the"]) == "a "
    assert stream.push(ids[" en"]) == ""
    assert stream.push(ids["gine"]) == "the engin"
    assert stream.finish() == "e"
    assert stream.cut is None


def test_without_stop_texts_nothing_but_unfinished_characters_is_held_back() -> None:
    stream = TextStream(tokenizer())
    whole = tokenizer().encode("egg 漢", add_special_tokens=False)
    assert stream.push(whole[:-1]) == "egg "
    assert stream.push(whole[-1:]) + stream.finish() == "漢"


def test_half_a_character_at_the_end_of_a_reply_that_is_broken_off_is_no_stop_text() -> None:
    half = tokenizer().encode("egg 漢", add_special_tokens=False)[:-1]
    for broken_off, expected in ((False, "egg "), (True, "egg \ufffd")):
        stream = TextStream(tokenizer(), ["\ufffd"])
        shown = stream.push(half) + stream.finish(broken_off=broken_off)
        assert shown == expected
        assert (stream.cut is None) == broken_off


def test_a_text_without_the_stop_text_comes_through_whole() -> None:
    stream, ids = TextStream(tokenizer(), ["zzz"]), np.array(BYTES[4] * 200)
    text = "".join(stream.push(chunk.tolist()) for chunk in np.split(ids, 100))
    assert text + stream.finish() == "the train" * 200


@pytest.mark.parametrize("least", [0, 3])
def test_a_stop_text_across_windows_ends_the_reply_at_the_token_that_completes_it(least: int) -> None:
    ids = tokenizer().encode("an egg and the train", add_special_tokens=False)
    stream = TextStream(tokenizer(), ["g a"], least)
    shown = ""
    for token in ids:
        if stream.cut is None:
            shown += stream.push([token])
    assert shown == "an eg"
    assert stream.cut is not None
    assert stream.cut.stop == "g a"
