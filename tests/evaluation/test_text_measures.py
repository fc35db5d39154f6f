"""Measures of texts against counts made one by one, and what is and is not a refusal."""

import math
import re
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sia_jax.evaluation.text_measures import (
    BEGINNING,
    REFUSALS,
    distinct_n,
    is_refusal,
    perplexity,
    rep_n,
    reply_measures,
    set_measures,
    words,
)

TEXTS = st.lists(st.sampled_from(["tea", "is", "Tea", "hot", ",", "."]), max_size=12).map(" ".join)


def counted(text: str, n: int) -> Counter[tuple[str, ...]]:
    """The n-grams of a text of words and marks that spaces part."""
    own = text.split()
    return Counter(tuple(own[i] for i in range(start, start + n)) for start in range(len(own) - n + 1))


@given(TEXTS, st.integers(1, 5))
def test_what_is_repeated_is_what_a_counter_has_more_than_once(text: str, n: int) -> None:
    grams = counted(text, n)
    repeats = sum(times - 1 for times in grams.values())
    assert rep_n(text, n) == pytest.approx(repeats / grams.total() if grams else 0.0)


@given(st.lists(TEXTS, max_size=5), st.integers(1, 4))
def test_what_is_distinct_is_counted_over_all_texts_and_never_across_their_ends(
    texts: list[str], n: int
) -> None:
    grams: Counter[tuple[str, ...]] = sum((counted(text, n) for text in texts), Counter())
    found = distinct_n(texts, n)
    if grams:
        assert found == pytest.approx(len(grams) / grams.total())
    else:
        assert math.isnan(found)


def test_repetition_by_hand() -> None:
    assert rep_n("so it is so it is", 2) == pytest.approx(1 - 3 / 5)
    assert rep_n("so it is so it is", 4) == 0
    assert rep_n("no", 2) == rep_n("", 2) == 0
    with pytest.raises(ValueError, match="n-grams have 1 word or more, got n = 0"):
        rep_n("no", 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's 5 o'clock.", ["It's", "5", "o'clock", "."]),
        ("It\u2019s late -- so?", ["It's", "late", "-", "-", "so", "?"]),
        ("'quoted' words", ["'", "quoted", "'", "words"]),
        ("Tür und cafe\u0301", ["Tür", "und", "café"]),
        ("日本では tea", ["日", "本", "で", "は", "tea"]),
        ("snake_case 3.5", ["snake_case", "3", ".", "5"]),
        ("Привет, мир", ["Привет", ",", "мир"]),
        (" \n\t ", []),
    ],
)
def test_words_of_several_scripts(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(st.text())
def test_every_character_but_white_space_stands_in_one_word(text: str) -> None:
    plain = unicodedata.normalize("NFC", text).replace("\u2019", "'").replace("\u02bc", "'")
    assert "".join(words(text)) == re.sub(r"\s", "", plain)


@pytest.mark.parametrize("phrase", REFUSALS)
def test_a_reply_that_begins_with_a_phrase_refuses_in_any_case(phrase: str) -> None:
    for text in (phrase, phrase.upper(), f"Well, {phrase.replace(chr(39), chr(0x2019))} do that."):
        assert is_refusal(text), text


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("Unfortunately, I  can't\nhelp with that.", True),
        ("", True),
        (" \n", True),
        ("Sure, here is how to fold a boat.", False),
        ("Hawaii can't be reached by train.", False),
        ("I cannotate music", False),
        ("tea " * (BEGINNING - 2) + "I cannot", True),
        ("tea " * (BEGINNING - 1) + "I cannot", False),
    ],
)
def test_a_refusal_stands_at_the_beginning_in_whole_words(text: str, refuses: bool) -> None:
    assert is_refusal(text) == refuses


def test_perplexity_is_that_of_all_tokens_in_a_row() -> None:
    rng = np.random.default_rng(0)
    logprobs = [np.log(rng.uniform(0.1, 1, size)) for size in (3, 1, 20)]
    inverse = math.prod(1 / math.exp(x) for own in logprobs for x in own)
    found = perplexity([own.sum() for own in logprobs], [3, 1, 20])
    assert found == pytest.approx(inverse ** (1 / 24))
    uniform = np.full(4, -10 * math.log(50))
    assert perplexity(uniform, [10] * 4) == pytest.approx(50)


@pytest.mark.parametrize(
    ("logprobs", "tokens", "message"),
    [
        ([-1.0], [1, 2], "a sum and a number for each reply"),
        ([0.5], [1], "finite, and 0 at most"),
        ([float("nan")], [1], "finite, and 0 at most"),
        ([], [], "takes one token or more"),
        ([0.0], [0], "takes one token or more"),
        ([-1.0, -1.0], [3, -1], "no number of tokens below 0"),
    ],
)
def test_what_has_no_perplexity_is_refused(logprobs: list[float], tokens: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        perplexity(logprobs, tokens)


def test_the_measures_of_replies_are_those_of_each() -> None:
    texts = ["so it is so it is", "", "I cannot say. I cannot say. I cannot say."]
    found = reply_measures(texts)
    assert list(found) == ["words", "refusals", "rep_2", "rep_3", "rep_4"]
    assert found["words"].tolist() == [6, 0, 12]
    assert found["refusals"].tolist() == [0, 1, 1]
    for n in (2, 3, 4):
        assert found[f"rep_{n}"].tolist() == [rep_n(text, n) for text in texts]
    assert set_measures(texts) == {f"distinct_{n}": distinct_n(texts, n) for n in (1, 2, 3)}
