"""The records of a comparison under way: what is missing, and which gate a method has."""

from typing import Any

import pytest

from sia_jax.data.prompts import parse_prompts
from sia_jax.evaluation.gate_numbers import GateNumbers
from sia_jax.evaluation.methods import Method, plan_methods
from sia_jax.evaluation.records import Records, prompt_key

METHODS = plan_methods([0.2], best_of=[4])
PROMPTS = [("a", "digest of a"), ("b", "digest of b")]
GATES = {"entropy": {0.2: GateNumbers(1.5)}}


def records() -> Records:
    return Records(METHODS, range(3, 5), PROMPTS, GATES, gold=False)


def record(method: Method, index: int, **changes: Any) -> dict[str, Any]:
    threshold = {"entropy": 1.5, "dense": "-inf"}.get(method.kind, "inf")
    made = {"method": method.key, "seed": 3, "index": index, "id": "ab"[index], "threshold": threshold}
    made |= {"rate": 0.0, "finish_reason": "stop", "commit": "c", "machine": "m", "proxy": None}
    made |= {"length": 10, "sampled_tokens": 10, "sampled_junctions": 1 + 2 * index, "seconds": 0.5}
    return made | {"flops": {"policy": 1.0, "value": 0.0, "reward": 0.0}} | changes


def test_what_is_missing_is_by_method_and_seed() -> None:
    found, base = records(), METHODS[0]
    assert found.total == len(METHODS) * 2 * 2
    found.take(record(base, 1))
    assert found.missing((base, 3)) == [0]
    assert found.missing((base, 4)) == [0, 1]
    found.take(record(base, 0))
    assert [one["index"] for one in found.of(base, [3])] == [0, 1]


def test_a_random_gate_has_the_share_of_the_entropy_gate_under_its_seed() -> None:
    found = records()
    entropy, random = (next(m for m in METHODS if m.kind == kind) for kind in ("entropy", "random"))
    assert found.gate((entropy, 3)) == GateNumbers(1.5)
    for index in range(2):
        found.take(record(entropy, index))
    assert found.gate((random, 3)) == GateNumbers(rate=4 / 20)


def test_a_random_gate_is_ready_when_all_replies_of_its_entropy_gate_are_there() -> None:
    found = records()
    entropy, random = (next(m for m in METHODS if m.kind == kind) for kind in ("entropy", "random"))
    assert [unit for unit in found.units if not found.is_ready(unit)] == [(random, 3), (random, 4)]
    assert found.rival((random, 4)) == (entropy, 4)
    found.take(record(entropy, 1))
    assert not found.is_ready((random, 3))
    found.take(record(entropy, 0))
    assert [unit for unit in found.units if not found.is_ready(unit)] == [(random, 4)]
    alone = Records([random], [3], PROMPTS, GATES, gold=False)
    assert (alone.is_ready((random, 3)), alone.rival((random, 3))) == (True, None)


def test_a_reply_may_be_there_twice_if_it_is_the_same() -> None:
    found, base = records(), METHODS[0]
    found.take(record(base, 0))
    found.take(record(base, 0))
    with pytest.raises(ValueError, match="prompt 'a' has two replies of base under seed 3, which differ"):
        found.take(record(base, 0, seconds=0.6))


def test_records_of_another_gate_or_prompt_are_refused() -> None:
    found, dense = records(), next(m for m in METHODS if m.kind == "dense")
    found.take(record(dense, 0, threshold=2.0))
    assert found.gate((dense, 4)) == GateNumbers(float("-inf"))
    with pytest.raises(ValueError, match=r"dense under seed 3 was made with .*2.0.*now .*-inf"):
        found.gate((dense, 3))
    for changes in ({"id": "b"}, {"index": 2}):
        with pytest.raises(ValueError, match="is not the input's prompt at place"):
            found.take(record(dense, 0) | changes)


def test_a_gold_reward_that_is_missing_needs_a_reason() -> None:
    found = Records(METHODS, range(3, 5), PROMPTS, GATES, gold=True)
    base = METHODS[0]
    found.take(record(base, 0, gold=0.5))
    found.take(record(base, 1, gold=None, gold_unscored="the reward is nan"))
    for changes in ({"gold": None}, {"gold": None, "gold_unscored": 3}, {"gold": "1", "gold_unscored": "no"}):
        with pytest.raises(ValueError, match="gold must be a number"):
            found.take(record(base, 0, **changes))


def test_a_log_probability_is_a_number_up_to_0_or_is_not_known() -> None:
    found, base = records(), METHODS[0]
    for logprob in (0, -3.5, None):
        records().take(record(base, 0, policy_logprob=logprob))
    for wrong in (0.1, "-1", [-1.0], float("nan"), float("-inf")):
        with pytest.raises(ValueError, match="policy_logprob must be a number up to 0"):
            found.take(record(base, 0, policy_logprob=wrong))


def test_a_text_of_another_kind_is_refused_and_one_that_is_missing_is_not() -> None:
    found, base = records(), METHODS[0]
    found.take(record(base, 0))
    found.take(record(base, 1, text="Tea."))
    for text in (5, None, ["Tea."]):
        with pytest.raises(ValueError, match="text must be a text, got"):
            found.take(record(base, 0, text=text))


def test_prompts_may_be_put_behind_those_that_have_replies() -> None:
    base = METHODS[0]
    made = record(base, 0, prompt_sha256="digest of a", settings={"prompts_sha256": "of two"})
    grown = Records(
        METHODS, [3], [*PROMPTS, ("c", "digest of c")], GATES, gold=False, prompts_sha256="of three"
    )
    grown.take(made)
    assert grown.missing((base, 3)) == [1, 2]


def test_a_prompt_that_has_replies_and_is_another_now_is_refused_by_its_name() -> None:
    made = record(METHODS[0], 1, prompt_sha256="digest of b", settings={"prompts_sha256": "of two"})
    for prompts, told in (
        ([PROMPTS[0], ("b", "other words")], r"prompt 'b' has replies, and was worded otherwise"),
        (
            [PROMPTS[0], ("c", "digest of b")],
            r"prompt 'b' is not the input's prompt at place 1, and has replies",
        ),
        ([PROMPTS[1], PROMPTS[0]], r"prompt 'b' is not the input's prompt at place 1"),
        ([PROMPTS[0]], r"prompt 'b' is not the input's prompt at place 1"),
    ):
        found = Records(METHODS, [3], prompts, GATES, gold=False, prompts_sha256="of two")
        with pytest.raises(ValueError, match=told):
            found.take(made)


def test_records_of_an_earlier_release_go_on_with_the_same_file_alone() -> None:
    made = record(METHODS[0], 0, settings={"prompts_sha256": "of two"})
    for name in ("of two", "of three"):
        found = Records(METHODS, [3], PROMPTS, GATES, gold=False, prompts_sha256=name)
        if name == "of two":
            found.take(made)
            continue
        with pytest.raises(ValueError, match=r"prompt 'a' has replies of an earlier release, .* same file"):
            found.take(made)


def test_a_random_gate_that_has_replies_keeps_the_share_that_it_began_with() -> None:
    """That of the first two prompts, 4 of 20; with the third it would be 9 of 30."""
    prompts = [*PROMPTS, ("c", "digest of c")]
    entropy, random = (next(m for m in METHODS if m.kind == kind) for kind in ("entropy", "random"))

    def grown(rate: float | None) -> Records:
        found = Records(METHODS, [3], prompts, GATES, gold=False)
        for index in range(3):
            found.take(
                record(entropy, 0) | {"index": index, "id": "abc"[index], "sampled_junctions": 1 + 2 * index}
            )
        for index in range(2) if rate is not None else ():
            found.take(record(random, index, rate=rate))
        return found

    assert grown(None).gate((random, 3)).rate == 9 / 30
    assert grown(4 / 20).gate((random, 3)).rate == 4 / 20
    with pytest.raises(ValueError, match=r"was made with .*0.25.*now .*0.3"):
        grown(0.25).gate((random, 3))


def test_a_digest_is_of_the_words_and_not_of_the_form_of_the_file() -> None:
    (one,), (same,), (other,) = (
        parse_prompts(content, "file")
        for content in (
            b'{"id": "a", "prompt": "Hello?"}\n',
            b'[{"messages": [{"role": "user", "content": "Hello?"}], "id": "a"}]',
            b'{"id": "a", "prompt": "Hello!"}\n',
        )
    )
    assert prompt_key(one) == prompt_key(same)
    assert prompt_key(one)[0] == prompt_key(other)[0]
    assert prompt_key(one)[1] != prompt_key(other)[1]


def test_what_a_second_model_has_no_number_for_needs_a_reason() -> None:
    found = Records(METHODS, range(3, 5), PROMPTS, GATES, gold=False, fluency=True)
    base = METHODS[0]
    found.take(record(base, 0, fluency_logprob=-3.5, fluency_tokens=4))
    found.take(record(base, 1, fluency_logprob=None, fluency_tokens=4, fluency_unscored="too long"))
    with pytest.raises(KeyError, match="fluency_tokens"):
        found.take(record(base, 0))
    for changes, told in (
        ({"fluency_logprob": None}, "a fluency_logprob of null needs a text"),
        ({"fluency_logprob": 0.5}, "fluency_logprob must be a number up to 0"),
        ({"fluency_tokens": -1}, "fluency_tokens must be a number"),
        ({"logprob": 0.5}, "logprob must be a number up to 0"),
    ):
        with pytest.raises(ValueError, match=told):
            found.take(record(base, 0, fluency_logprob=-1.0, fluency_tokens=4) | changes)
