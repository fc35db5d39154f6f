"""Counts of tokens by place and entropy, and the shares that they come to."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sia_jax.evaluation.comparison import Comparison
from sia_jax.evaluation.methods import Method
from sia_jax.evaluation.token_counts import BIN, check_counts, token_counts
from sia_jax.evaluation.token_figures import token_figures

TOKENS = st.lists(
    st.tuples(st.booleans(), st.floats(0, 12, width=32) | st.just(math.nan), st.booleans()), max_size=60
)


@given(TOKENS)
def test_every_token_is_counted_once_in_its_tenth_and_in_its_bin(
    tokens: list[tuple[bool, float, bool]],
) -> None:
    junction, entropy, shifted = ([token[i] for token in tokens] for i in range(3))
    counts = token_counts(np.array(junction, bool), np.array(entropy, np.float32), np.array(shifted, bool))
    for tenth in range(10):
        # Place t of T lies in the tenth [k/10, (k+1)/10).
        there = [j for t, j in enumerate(junction) if tenth <= Fraction(10 * t, len(tokens)) < tenth + 1]
        assert counts["junctions"][tenth] == sum(there)
    for name, wanted in (("shifted", True), ("unshifted", False)):
        own = [h for h, s in zip(entropy, shifted, strict=True) if s == wanted and not math.isnan(h)]
        assert sum(counts[name]) == len(own)
        for k, count in enumerate(counts[name]):
            inside = [h for h in own if BIN * k - 2e-6 <= h < BIN * (k + 1) + 2e-6]
            clear = [h for h in inside if BIN * k + 2e-6 <= h < BIN * (k + 1) - 2e-6]
            assert len(clear) <= count <= len(inside)
        assert not counts[name] or counts[name][-1] > 0
    check_counts(counts, len(tokens))


def test_an_entropy_at_the_edge_of_a_bin_begins_it() -> None:
    entropy = np.array([0.0, 0.1, 0.3, 0.7, -1e-8], np.float32)
    flags = np.zeros(5, bool)
    assert token_counts(flags, entropy, flags)["unshifted"] == [2, 1, 0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"junctions": [1] * 9}, "junctions of counts must be 10 numbers, got 9"),
        ({"junctions": [2] * 10}, "must be of the reply's 12 tokens, got more"),
        ({"shifted": [13]}, "must be of the reply's 12 tokens"),
        ({"shifted": [1.0]}, "shifted of counts must be whole numbers"),
        ({"unshifted": [-1]}, "unshifted of counts must be whole numbers"),
        ({"unshifted": [True]}, "unshifted of counts must be whole numbers"),
        ({"unshifted": [0] * 201}, "unshifted of counts must be at most 200 numbers"),
        ({"shifted": None}, "shifted of counts must be whole numbers"),
        ({"more": []}, "counts must be an object with junctions, shifted, unshifted"),
    ],
)
def test_counts_of_another_form_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_counts({"junctions": [1] * 10, "shifted": [4], "unshifted": [8]} | changes, 12)


def test_counts_that_are_no_object_are_refused() -> None:
    with pytest.raises(ValueError, match="counts must be an object"):
        check_counts([], 12)


def comparison(prompts: int, counted: bool = True) -> Comparison:
    """Dense steering, and a gate with i % 3 junctions in the first tenth of reply i, and one in the last."""
    methods = [Method("base"), Method("dense"), Method("entropy", 0.2)]
    records = {}
    for method in methods:
        own = []
        for index in range(prompts):
            first, last = {"base": (0, 0), "dense": (2, 2), "entropy": (index % 3, 1)}[method.kind]
            counts = {
                "junctions": [first, *[2 * (method.kind == "dense")] * 8, last],
                "shifted": [0, index % 4],
                "unshifted": [10, 0, 1],
            }
            own.append(
                {
                    **{"index": index, "seed": 0, "gold": None, "proxy": 0.0, "length": 20},
                    **{"sampled_tokens": 20, "sampled_junctions": 0, "finish_reason": "stop"},
                    **({"counts": counts} if counted or method.kind != "entropy" else {}),
                }
            )
        records[method.key] = own
    return Comparison(methods, records, resamples=10)


def test_shares_are_those_of_all_replies_together() -> None:
    found = token_figures(comparison(30))
    dense, gate = found["junctions"]
    assert [one["key"] for one in found["junctions"]] == ["dense", "entropy-0.2"]
    assert [part["junctions"] for part in gate["tenths"]] == [30, *[0] * 8, 30]
    assert [part["share"]["mean"] for part in gate["tenths"]] == [0.5, *[0.0] * 8, 0.5]
    assert {part["tokens"] for part in gate["tenths"]} == {60}
    assert {part["share"]["mean"] for part in dense["tenths"]} == {0.1}
    entropy = found["entropy"]
    shifted = sum(index % 4 for index in range(30))
    assert (entropy["shifted"], entropy["unshifted"]) == (shifted, 330)
    assert [part["shifted_share"]["mean"] for part in entropy["bins"]] == [0, 1, 0]
    assert [part["unshifted_share"]["mean"] for part in entropy["bins"]] == [300 / 330, 0, 30 / 330]
    assert [part["unshifted_up_to"]["mean"] for part in entropy["bins"]] == [300 / 330, 300 / 330, 1]
    assert [part["low"] for part in entropy["bins"]] == [0, 0.1, 0.2]
    assert gate["tenths"][0]["share"]["low"] is None  # of so few prompts


def test_intervals_are_those_of_a_bootstrap_over_prompts() -> None:
    prompts = 120
    share = token_figures(comparison(prompts))["junctions"][1]["tenths"][0]["share"]
    rng, drawn = np.random.default_rng(7), []
    first = np.arange(prompts) % 3
    for _ in range(4000):
        own = first[rng.integers(prompts, size=prompts)]
        drawn.append(own.sum() / (own.sum() + prompts))
    low, high = np.quantile(drawn, (0.025, 0.975))
    assert share["low"] == pytest.approx(low, abs=0.006)
    assert share["high"] == pytest.approx(high, abs=0.006)
    assert high - low > 0.06


def test_a_method_with_a_reply_of_an_earlier_release_is_left_out() -> None:
    found = token_figures(comparison(30, counted=False))
    assert [one["key"] for one in found["junctions"]] == ["dense"]


def test_where_nothing_was_steered_shares_are_not_known() -> None:
    found = comparison(3)
    records = {
        one.method.key: [
            {**record, "counts": {"junctions": [0] * 10, "shifted": [], "unshifted": [20]}}
            for record in one.records
        ]
        for one in found.measured
    }
    told = token_figures(Comparison([one.method for one in found.measured], records, resamples=10))
    assert {part["share"]["mean"] for one in told["junctions"] for part in one["tenths"]} == {None}
    assert {part["shifted_share"]["mean"] for part in told["entropy"]["bins"]} == {None}
