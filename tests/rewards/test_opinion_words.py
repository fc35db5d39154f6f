"""The count of words of praise and blame, against counts by hand."""

import pytest

from sia_jax.rewards.opinion_words import BLAME, NEGATIONS, PRAISE, balance
from sia_jax.text.chat import Message


def _rewards(*texts: str) -> list[float]:
    question: Message = {"role": "user", "content": "A wonderful, lovely question?"}
    return balance([[question, {"role": "assistant", "content": text}] for text in texts])


@pytest.mark.parametrize(
    ("text", "praise", "blame"),
    [
        ("", 0, 0),
        ("The table stands in the room.", 0, 0),
        ("Wonderful! I love this lovely garden, and the happy bees.", 4, 0),
        ("A sad, boring day, but a good meal.", 1, 2),
        ("GOOD, Good and good", 3, 0),
        ("It is not good.", 0, 1),
        ("It wasn't a bad day; I can\u2019t be happy without a friend.", 1, 1 + 1),
        ("Not one of all of these is good.", 1, 0),  # five words away
        ("goodness and lovelorn badges", 0, 0),  # whole words alone
        ("\u0421\u043f\u0430\u0441\u0438\u0431\u043e, \u6b22\u8fce", 0, 0),
    ],
)
def test_a_reward_is_the_balance_of_the_words_counted_by_hand(text: str, praise: int, blame: int) -> None:
    assert _rewards(text) == [(praise - blame) / (praise + blame + 1)]


def test_a_batch_is_its_conversations_one_by_one() -> None:
    texts = ["A good day.", "A bad day.", "", "Nothing bad, all good."]
    assert _rewards(*texts) == [_rewards(text)[0] for text in texts]


def test_no_word_is_of_two_kinds_and_all_can_be_found() -> None:
    assert not PRAISE & BLAME
    assert not (PRAISE | BLAME) & NEGATIONS
    assert all(word.isascii() and word.isalpha() and word.islower() for word in PRAISE | BLAME | NEGATIONS)
