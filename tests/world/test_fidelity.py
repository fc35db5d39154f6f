"""Whether a reply is about its request: the grammar's own replies are, and those to others are not."""

import pytest

from sia_jax.world.fidelity import fidelity, known_words, sentences_of
from sia_jax.world.grammar import best_reply, sample_reply, worst_reply
from sia_jax.world.prompts import FAMILIES, prompts
from sia_jax.world.streams import stream

PROMPTS = [prompt for family in FAMILIES for prompt in prompts("test", family)[::9]]


def test_what_the_grammar_writes_to_a_prompt_is_about_it_and_in_its_words():
    pairs = [(p, sample_reply(p, stream(1, p.id, i))) for p in PROMPTS for i in range(3)]
    pairs += [(p, text(p)) for p in PROMPTS for text in (best_reply, worst_reply)]
    found = fidelity(pairs)
    assert found.replies == len(pairs)
    assert (found.about_another, found.unwritten, found.strange_words) == (0, 0, 0)
    assert found.words > 30 * len(pairs)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reply_to_another_prompt_is_about_another_request(family):
    asked = prompts("test", family)[::5]
    swapped = list(zip(asked, [best_reply(p) for p in (*asked[1:], asked[0])], strict=True))
    assert fidelity(swapped).about_another == len(swapped)


def test_a_garbled_word_is_strange_and_its_sentence_nobodys():
    prompt = PROMPTS[0]
    found = fidelity([(prompt, f"{best_reply(prompt)} Ride the bicyiard.")])
    assert (found.about_another, found.unwritten, found.strange_words) == (0, 1, 1)


def test_a_reply_that_is_cut_short_has_one_unwritten_sentence_at_most():
    prompt = PROMPTS[-1]
    text = best_reply(prompt)
    assert fidelity([(prompt, text[:-8])]).unwritten == 1


def test_the_sentences_of_a_prompt_are_those_that_its_replies_can_have():
    prompt = PROMPTS[3]
    written = {s for i in range(400) for s in _split(sample_reply(prompt, stream(2, "all", i)))}
    assert written <= sentences_of(prompt)
    assert len(written) > 0.8 * len(sentences_of(prompt))
    assert {w.strip(".,:!?") for s in written for w in s.split()} - known_words() == set()


def _split(text: str) -> list[str]:
    parts = text.lower().replace("! ", "!|").replace("? ", "?|").replace(". ", ".|").split("|")
    return [part for part in parts if part]
