"""The records of a comparison under way: what is missing, and which gate a method has."""

from typing import Any

import pytest

from sia_jax.evaluation.gate_numbers import GateNumbers
from sia_jax.evaluation.methods import Method, plan_methods
from sia_jax.evaluation.records import Records

METHODS = plan_methods([0.2], best_of=[4])


def records() -> Records:
    return Records(METHODS, range(3, 5), ["a", "b"], {"entropy": {0.2: GateNumbers(1.5)}}, gold=False)


def record(method: Method, index: int, **changes: Any) -> dict[str, Any]:
    threshold = {"entropy": 1.5, "dense": "-inf"}.get(method.kind, "inf")
    made = {"method": method.key, "seed": 3, "index": index, "id": "ab"[index], "threshold": threshold}
    made |= {"rate": 0.0, "finish_reason": "stop", "commit": "c", "machine": "m", "proxy": None}
    made |= {"length": 10, "sampled_tokens": 10, "sampled_junctions": 1 + 2 * index, "seconds": 0.5}
    return made | {"flops": {"policy": 1.0, "value": 0.0, "reward": 0.0}} | changes


def test_what_is_missing_is_by_method_and_seed_and_so_is_the_work() -> None:
    found, base = records(), METHODS[0]
    assert found.total == len(METHODS) * 2 * 2
    before = found.work
    found.take(record(base, 1))
    assert found.missing((base, 3)) == [0]
    assert found.missing((base, 4)) == [0, 1]
    assert found.work == before - 1
    found.take(record(base, 0))
    assert [one["index"] for one in found.of(base, [3])] == [0, 1]


def test_a_random_gate_has_the_share_of_the_entropy_gate_under_its_seed() -> None:
    found = records()
    entropy, random = (next(m for m in METHODS if m.kind == kind) for kind in ("entropy", "random"))
    assert found.gate((entropy, 3)) == GateNumbers(1.5)
    for index in range(2):
        found.take(record(entropy, index))
    assert found.gate((random, 3)) == GateNumbers(rate=4 / 20)


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
    found = Records(METHODS, range(3, 5), ["a", "b"], {"entropy": {0.2: GateNumbers(1.5)}}, gold=True)
    base = METHODS[0]
    found.take(record(base, 0, gold=0.5))
    found.take(record(base, 1, gold=None, gold_unscored="the reward is nan"))
    for changes in ({"gold": None}, {"gold": None, "gold_unscored": 3}, {"gold": "1", "gold_unscored": "no"}):
        with pytest.raises(ValueError, match="gold must be a number"):
            found.take(record(base, 0, **changes))


def test_a_log_probability_is_a_number_up_to_0_or_is_not_known() -> None:
    found, base = records(), METHODS[0]
    for logprob in (0, -3.5, None):
        found.take(record(base, 0, policy_logprob=logprob))
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
