"""Stop texts: special tokens become ids, others are looked for."""

import pytest

from sia_jax.engine.stops import split_stops
from tests.support.engines import tokenizer


def test_the_text_of_a_special_token_stands_for_the_token() -> None:
    ids, texts = split_stops(tokenizer(), ["<|im_start|>", "\n\n", "<think>"])
    assert ids == [tokenizer().convert_tokens_to_ids("<|im_start|>")]
    assert texts == ("\n\n", "<think>")


def test_a_text_that_holds_more_than_a_special_token_is_refused() -> None:
    with pytest.raises(ValueError, match=r"holds more than the special token '<\|im_start\|>'.* token alone"):
        split_stops(tokenizer(), ["<|im_start|>user"])


def test_texts_need_a_tokenizer() -> None:
    assert split_stops(None, []) == ([], ())
    with pytest.raises(ValueError, match="a stop text needs a tokenizer"):
        split_stops(None, ["a"])
