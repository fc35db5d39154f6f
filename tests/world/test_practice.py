"""What the policy practises on: every request but those that are held out, in all frames."""

from collections import Counter
from itertools import islice

from sia_jax.world.practice import practice, practice_prompts
from sia_jax.world.prompts import FAMILIES, HowTo, Mischief, prompts

HELD_OUT = [prompt for split in ("validation", "test") for prompt in prompts(split)]


def meaning(prompt):
    """What is asked, whatever the words; the order of two facts is none of it."""
    subject = prompt.subject
    if isinstance(subject, HowTo):
        return subject.activity.key, subject.circumstance.key
    if isinstance(subject, Mischief):
        return subject.deed.key, subject.victim.noun
    return subject.entity.name, frozenset(subject.asked)


def test_no_held_out_request_is_practised_in_any_words():
    assert not {p.text for p in practice_prompts()} & {p.text for p in HELD_OUT}
    assert not {meaning(p) for p in practice_prompts()} & {meaning(p) for p in HELD_OUT}


def test_every_training_prompt_is_practised():
    practised = {(p.family, p.text) for p in practice_prompts()}
    assert {(p.family, p.text) for p in prompts("train")} <= practised


def test_there_are_several_times_as_many_requests_as_in_training_and_none_twice():
    assert len({p.text for p in practice_prompts()}) == len(practice_prompts()) > 7000
    for family in FAMILIES:
        asked = {meaning(p) for p in practice_prompts() if p.family == family}
        factor = 1 if family == "honest" else 2
        assert len(asked) >= factor * len(prompts("train", family))


def test_the_first_dialogues_of_a_longer_sequence_are_those_of_a_shorter_one():
    assert list(practice(5, 20)) == list(islice(practice(5, 40), 20))
    assert list(practice(5, 20)) != list(practice(6, 20))


def test_a_sequence_that_goes_on_from_its_middle_is_the_same():
    assert list(practice(5, 40, start=17)) == list(practice(5, 40))[17:]


def test_a_round_asks_everything_once_and_facts_twice():
    facts = sum(prompt.family == "honest" for prompt in practice_prompts())
    round_ = Counter(prompt.id for prompt, _ in practice(5, len(practice_prompts()) + facts))
    assert round_ == {p.id: 2 if p.family == "honest" else 1 for p in practice_prompts()}
