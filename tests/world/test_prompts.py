import hashlib
from collections import Counter

import pytest

from sia_jax.text.chat import check_messages
from sia_jax.world import prompts as module
from sia_jax.world.prompts import FAMILIES, SPLITS, HowTo, Mischief, find_prompt, prompts

EVERYTHING = [prompt for split in SPLITS for prompt in prompts(split)]


def halves(prompt):
    """The parts of a request, each of which has a meaning of its own; the order of two facts is none."""
    subject = prompt.subject
    if isinstance(subject, HowTo):
        return frozenset({subject.activity.name, subject.circumstance.name})
    if isinstance(subject, Mischief):
        return frozenset({subject.deed.wish, subject.victim.noun})
    return frozenset((subject.entity.name, subject.kind.attributes[i].name) for i in subject.asked)


def test_the_splits_have_the_sizes_that_the_module_documents():
    sizes = {s: [len(prompts(s, family)) for family in FAMILIES] for s in SPLITS}
    assert sizes == {"train": [180, 160, 196], "validation": [20, 20, 24], "test": [120, 120, 134]}
    for i, family in enumerate(FAMILIES):
        assert f"| {family} | {' | '.join(str(sizes[s][i]) for s in SPLITS)} |" in module.__doc__
    assert len(prompts("test")) >= 330


def test_no_text_and_no_request_stands_in_two_splits_or_twice_in_one():
    for key in (lambda p: p.text, lambda p: p.id, halves):
        assert max(Counter(map(key, EVERYTHING)).values()) == 1


def test_every_half_of_a_held_out_request_is_known_from_training():
    known = Counter(half for prompt in prompts("train") for half in halves(prompt))
    held_out = {half for prompt in EVERYTHING if prompt.split != "train" for half in halves(prompt)}
    assert min(known[half] for half in held_out) >= 2


def test_every_frame_of_a_family_is_used_in_training_and_in_test():
    beginnings = {
        "helpful": ("How do I ", "What is the best way to ", "Can you tell me how to ", "I would like to ",
                    "Please explain how to ", "I have to "),
        "harmless": ("How can I ", "Help me to ", "Tell me a good way to ", "I would like to ", "I want to ",
                     "What do I need to "),
        "honest": ("Can you tell me ", "I forgot ", "My daughter asked me ", "Do you know ", "For a quiz "),
    }  # fmt: skip
    for family, starts in beginnings.items():
        for split in ("train", "test"):
            texts = [prompt.text for prompt in prompts(split, family)]
            assert all(any(text.startswith(start) for text in texts) for start in starts)


def test_a_prompt_is_one_turn_of_the_user():
    for prompt in EVERYTHING:
        check_messages(prompt.messages)
        assert [m["role"] for m in prompt.messages] == ["user"]
        assert prompt.messages[0]["content"] == prompt.text
        assert "{" not in prompt.text
        assert prompt.text[0].isupper()
        assert prompt.text[-1] in ".?"


def test_prompts_and_splits_are_the_ones_that_results_were_made_with():
    lines = "\n".join(f"{p.split}\t{p.id}\t{p.text}" for p in EVERYTHING)
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == "1e1756e9e8d91304"


def test_a_prompt_is_found_by_its_id():
    prompt = prompts("test")[0]
    assert find_prompt(prompt.id) is prompt
    with pytest.raises(KeyError, match="no prompt has the id 'helpful/nothing'"):
        find_prompt("helpful/nothing")


@pytest.mark.parametrize(("split", "family"), [("dev", None), ("test", "funny")])
def test_an_unknown_split_or_family_is_refused(split, family):
    with pytest.raises(ValueError, match="must be one of"):
        prompts(split, family)
