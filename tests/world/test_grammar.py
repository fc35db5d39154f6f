import hashlib
import re
from collections import Counter

import numpy as np
import pytest

import sia_jax.world
from sia_jax.world.gold import gold_reward
from sia_jax.world.grammar import best_reply, corpus, replies, sample_reply, sample_written, worst_reply
from sia_jax.world.junctions import write_all
from sia_jax.world.prompts import FAMILIES, prompts
from sia_jax.world.streams import stream


def dialogues(seed, n):
    return "\n".join(f"{prompt.id}\t{reply}" for prompt, reply in corpus(seed, n))


@pytest.fixture(scope="module")
def written():
    """Some hundred replies of each family, with their prompts."""
    return {
        family: [
            (p, sample_written(p, stream(17, "test", p.id, i)))
            for i in range(3)
            for p in prompts("train", family)
        ]
        for family in FAMILIES
    }


def test_a_corpus_is_a_function_of_its_seed():
    assert dialogues(5, 60) == dialogues(5, 60)
    assert dialogues(5, 60) != dialogues(6, 60)
    assert dialogues(5, 60).startswith(dialogues(5, 40))


def test_the_corpus_is_the_one_that_results_were_made_with():
    assert hashlib.sha256(dialogues(0, 1000).encode()).hexdigest()[:16] == "20fecb741c74eeb9"


def test_a_corpus_has_every_training_prompt_once_before_any_twice():
    train = prompts("train")
    asked = [prompt for prompt, _ in corpus(0, 2 * len(train))]
    for part in (asked[: len(train)], asked[len(train) :]):
        assert Counter(p.id for p in part) == Counter(p.id for p in train)
    assert asked[: len(train)] != asked[len(train) :]


def test_replies_are_as_long_as_documented(written):
    words = np.array([len(w.text.split()) for ws in written.values() for _, w in ws])
    assert 45 < words.mean() < 62
    assert np.mean((words >= 30) & (words <= 90)) > 0.93
    assert words.min() >= 20
    assert words.max() <= 125


def test_replies_are_made_of_whole_sentences_none_of_them_said_twice(written):
    for ws in written.values():
        for _, w in ws:
            sentences = re.findall(r"[^.!?]+[.!?]", w.text)
            assert "".join(sentences) == w.text
            assert len(set(sentences)) == len(sentences)
            assert all(re.fullmatch(r" ?[A-Z][A-Za-z' -]*([,:] [A-Za-z' -]+)*[.?]", s) for s in sentences), (
                w.text
            )
            assert not re.search(r"\{|\||  | [,.:?]", w.text)


def test_junctions_are_as_many_and_as_often_of_style_as_documented(written):
    shares = []
    for family, ws in written.items():
        counts = [len(w.taken) for _, w in ws]
        style = [sum(t.kind == "style" for t in w.taken) for _, w in ws]
        assert 13 < np.mean(counts) < 18, family
        assert min(counts) >= 5
        shares.append(sum(style) / sum(counts))
        assert 0.5 < shares[-1] < 0.6, family
    documented = re.search(r"(\d+)% of the junctions", sia_jax.world.__doc__)
    assert abs(np.mean(shares) - int(documented[1]) / 100) < 0.02


def test_value_junctions_lie_all_over_a_reply(written):
    for family, ws in written.items():
        places = [t.start / len(w.text) for _, w in ws for t in w.taken if t.kind == "value"]
        shares = np.histogram(places, bins=4, range=(0, 1))[0] / len(places)
        assert shares.min() > 0.08, (family, shares)


def test_no_junction_comes_twice_in_a_reply(written):
    for ws in written.values():
        for _, w in ws:
            assert max(Counter(t.name for t in w.taken).values()) == 1


def test_the_base_policy_earns_clearly_less_than_the_best_reply(written):
    for family, ws in written.items():
        golds = np.array([gold_reward(p, w.text) for p, w in ws])
        share = (golds.mean() + 3) / 6
        assert 0.37 < share < 0.52, family
        assert golds.std() > 1
        assert golds.min() == -3
        assert golds.max() > 2.4


@pytest.mark.parametrize("place", [3, 70])
@pytest.mark.parametrize("family", FAMILIES)
def test_best_and_worst_reply_are_so_among_all_replies(family, place):
    prompt = prompts("test", family)[place]
    golds = [gold_reward(prompt, w.text) for w in write_all(replies(prompt))]
    assert len(golds) > 300
    assert gold_reward(prompt, best_reply(prompt)) == max(golds) == 3
    assert gold_reward(prompt, worst_reply(prompt)) == min(golds) == -3


def test_replies_to_a_prompt_vary():
    prompt = prompts("test", "helpful")[5]
    rng = np.random.default_rng(0)
    assert len({sample_reply(prompt, rng) for _ in range(100)}) > 95


def test_the_words_of_the_world_are_few_and_held_out_prompts_have_no_others():
    def words(texts):
        return {word for text in texts for word in re.findall(r"[a-z]+(?:['-][a-z]+)*", text.lower())}

    known = words(f"{prompt.text} {reply}" for prompt, reply in corpus(0, 2000))
    assert 900 < len(known) < 1200
    assert words(p.text for split in ("validation", "test") for p in prompts(split)) <= known
