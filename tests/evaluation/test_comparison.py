"""Comparisons of made-up rewards: what is paired, what the verdicts say, and that they follow the numbers."""

from typing import Any

import numpy as np
import pytest

from sia_jax.evaluation.claims import Claim, Finding, expected_by_chance, judge
from sia_jax.evaluation.comparison import Comparison, Measure
from sia_jax.evaluation.methods import Method, plan_methods
from sia_jax.evaluation.multiplicity import holm
from sia_jax.evaluation.statistics import Interval, mean_interval, paired_difference
from sia_jax.evaluation.text_measures import distinct_n, is_refusal, rep_n, words
from tests.support.comparing import METHODS, PROMPTS, SEEDS, made_up

USUAL = {
    **{"base": 0.0, "base-best-of-4-by-reward": 1.0, "dense": 1.0, "entropy-0.2": 0.98, "entropy-0.8": 1.0},
    **{"random-0.2": 0.2, "random-0.8": 0.85, "entropy-0.2-best-of-4-by-reward": 1.6},
    "entropy-0.2-best-of-4-by-value": 1.4,
}
"""Mean rewards by the methods' keys."""


def both_at(mean: float) -> dict[str, float]:
    """Steering with best-of-n, whatever chooses."""
    return {f"entropy-0.2-best-of-4-by-{chooser}": mean for chooser in ("reward", "value")}


def verdicts(means: dict[str, float], noise: float = 0.1, measure: Measure = "gold") -> list[Claim]:
    return judge(made_up(USUAL | means, noise), measure)


def test_what_the_paper_says() -> None:
    claims = verdicts({})
    assert [claim.verdict for claim in claims] == ["holds", "holds", "holds"]
    sparse, random, best_of_n = claims
    assert [finding.outcome for finding in sparse.findings] == ["matches it", "matches it"]
    assert all(" beyond nine tenths of the gain, matches it" in finding.text for finding in sparse.findings)
    assert [finding.what for finding in random.findings] == [
        "entropy 20% against random 20%",
        "entropy 80% against random 80%",
    ]
    assert [finding.what for finding in best_of_n.findings] == [
        f"entropy 20%, best of 4 by {chooser} against {rival}"
        for chooser in ("reward", "value")
        for rival in ("entropy 20%", "base, best of 4 by reward")
    ]
    assert best_of_n.statement == " ".join(
        f"Entropy 20%, best of 4 by {chooser} must beat each of its parts alone, "
        "entropy 20% and base, best of 4 by reward: it does."
        for chooser in ("reward", "value")
    )


def test_what_is_better_at_one_ratio_only_holds_in_part_and_says_where() -> None:
    claims = verdicts({"entropy-0.2": 0.5, "random-0.2": 0.5} | both_at(0.9))
    assert [claim.verdict for claim in claims] == ["holds in part"] * 3
    assert claims[0].statement.endswith("at entropy 80%; not at entropy 20%.")
    assert claims[1].statement.endswith("at entropy 80%; undecided at entropy 20%.")
    assert [finding.outcome for finding in claims[2].findings] == ["better", "worse"] * 2
    assert claims[2].statement.count("it does in part") == 2


def test_best_of_n_is_judged_for_each_chooser() -> None:
    claim = verdicts({"entropy-0.2-best-of-4-by-value": -1.0})[2]
    assert claim.verdict == "holds in part"
    assert "best of 4 by reward: it does. Entropy" in claim.statement
    assert claim.statement.endswith("it is not shown to.")


def test_the_opposite_does_not_hold() -> None:
    claims = verdicts({"entropy-0.2": 0.1, "entropy-0.8": 0.2, "random-0.2": 0.5} | both_at(-1.0))
    assert claims[0].verdict == "does not hold"
    assert [finding.outcome for finding in claims[0].findings] == ["worse", "worse"]
    assert claims[2].verdict == "does not hold"
    assert verdicts({"random-0.2": 2.0, "random-0.8": 2.0})[1].verdict == "does not hold"


def test_no_difference_found_is_no_match_where_the_interval_is_wide() -> None:
    claims = verdicts({"entropy-0.2": 1.0, "random-0.8": 1.0, "random-0.2": 1.0}, noise=20.0)
    assert claims[0].verdict == "is not shown"
    assert all("is not ruled out" in finding.outcome for finding in claims[0].findings)
    assert "undecided at entropy 20%, entropy 80%." in claims[0].statement
    assert claims[1].verdict == "is not shown"
    assert {finding.outcome for finding in claims[1].findings} == {"no difference shown"}


def test_dense_steering_that_gains_nothing_leaves_nothing_to_match() -> None:
    claim = verdicts({"dense": -0.5})[0]
    assert "not shown to gain anything" in claim.statement
    assert [finding.kept for finding in claim.findings] == [finding.difference for finding in claim.findings]


def test_a_small_loss_that_is_sure_still_matches() -> None:
    claim = verdicts({"dense": 1.0, "entropy-0.2": 0.95}, noise=0.05)[0]
    assert claim.findings[0].outcome == "a little worse, but matches it"
    assert claim.verdict == "holds"


def test_what_is_kept_of_the_gain_is_told_pair_by_pair() -> None:
    comparison = made_up(USUAL, 1.0)
    rewards = {}
    for name in ("base", "dense"):
        measured = comparison.find(name)
        assert measured is not None
        rewards[name] = measured.rewards("gold")
    sparse = comparison.find("entropy", 0.2)
    assert sparse is not None
    needed = 0.9 * rewards["dense"] + 0.1 * rewards["base"]
    expected = paired_difference(sparse.rewards("gold"), needed, sparse.prompts, resamples=500)
    kept = judge(comparison, "gold")[0].findings[0].kept
    assert kept is not None
    assert (kept.mean, kept.low, kept.high) == pytest.approx((expected.mean, expected.low, expected.high))


def test_a_sure_loss_that_may_be_less_than_a_tenth_of_the_gain_refutes_nothing() -> None:
    claim = verdicts({"entropy-0.2": 0.9, "entropy-0.8": 0.9}, noise=0.1)[0]
    assert all(finding.difference.high < 0 for finding in claim.findings)
    assert all(finding.outcome.startswith("undecided") for finding in claim.findings)
    assert claim.verdict == "is not shown"


def test_small_losses_keep_their_sign_in_the_words() -> None:
    finding = Finding("a against b", Interval(-0.004, -0.0004, 0.0), "worse", False, True)
    assert finding.text == "a against b: -0.004 [-0.000, +0.000], worse"


def test_a_combination_without_one_of_its_parts_was_not_tested() -> None:
    methods = plan_methods([0.2], (8,), (0.2, 4))
    claim = judge(made_up(USUAL | {"base-best-of-8-by-reward": 9.0}, 0.1, methods), "gold")[2]
    assert claim.verdict == "was not tested"
    assert claim.statement.count("of which best of 4 of the base was not measured.") == 2
    assert [finding.outcome for finding in claim.findings] == ["better", "worse"] * 2
    without_gate = [method for method in METHODS if method.key != "entropy-0.2"]
    claim = judge(made_up(USUAL, 0.1, without_gate), "gold")[2]
    assert claim.verdict == "was not tested"
    assert "of which the gate alone was not measured." in claim.statement


def test_what_was_not_measured_was_not_tested() -> None:
    methods = plan_methods([0.2])
    claims = judge(made_up(USUAL, 0.1, methods), "proxy")
    assert claims[2].verdict == "was not tested"
    claims = judge(made_up(USUAL, 0.1, [Method("base")]), "proxy")
    assert [claim.verdict for claim in claims] == ["was not tested"] * 3


def test_differences_are_those_of_pairs_of_prompt_and_seed() -> None:
    comparison = made_up(USUAL, 1.0)
    base, dense = comparison.find("base"), comparison.find("dense")
    assert base is not None
    assert dense is not None
    by_pair: list[dict[tuple[int, int], Any]] = [
        {(record["index"], record["seed"]): record["gold"] for record in measured.records}
        for measured in (dense, base)
    ]
    pairs = sorted(by_pair[0])
    differences = [by_pair[0][pair] - by_pair[1][pair] for pair in pairs]
    expected = paired_difference(differences, np.zeros(len(pairs)), [p for p, _ in pairs], resamples=500)
    assert comparison.difference(dense, base, "gold") == expected


def test_a_row_by_hand() -> None:
    comparison = made_up(USUAL, 1.0)
    one = comparison.find("entropy", 0.2, 4)
    assert one is not None
    row = comparison.row(one)
    n = PROMPTS * SEEDS
    assert row["replies"] == n
    assert row["length"] == pytest.approx(10.0)  # of made-up replies: 4 candidates of 10 tokens, one kept
    assert row["ratio"] == pytest.approx(0.2)
    assert row["tokens_per_second"] == pytest.approx(10 / 0.5)
    assert row["tokens_per_second_by_seed"] == pytest.approx([10 / 0.5] * SEEDS)
    assert row["flops_per_token"] == {"policy": 400.0, "value": 30.0, "reward": 0.0}
    assert row["cut"] == pytest.approx(1 / 4)
    assert row["non_finite"] == 0
    gold = np.mean([record["gold"] for record in one.records])
    assert row["rewards"]["gold"]["mean"] == pytest.approx(gold)
    assert set(row["differences"]) == {"base", "dense"}
    base = comparison.find("base")
    assert base is not None
    assert set(comparison.row(base)["differences"]) == {"dense"}


def test_replies_without_partners_are_refused() -> None:
    comparison = made_up(USUAL, 1.0)
    records = {one.method.key: list(one.records) for one in comparison.measured}
    records["dense"] = records["dense"][1:]
    with pytest.raises(ValueError, match="dense has other prompts or seeds than base"):
        Comparison([one.method for one in comparison.measured], records)


def test_methods_are_planned_in_an_order_in_which_shares_are_known() -> None:
    methods = plan_methods([0.8, 0.1], (8, 4), (0.1, 4))
    assert [method.key for method in methods] == [
        *("base", "base-best-of-4-by-reward", "base-best-of-8-by-reward", "dense"),
        *("entropy-0.1", "entropy-0.8", "random-0.1", "random-0.8"),
        *("entropy-0.1-best-of-4-by-reward", "entropy-0.1-best-of-4-by-value"),
    ]
    assert [method.schedule for method in methods if method.n == 1] == [1, 1, 0.2, 1, 0.2, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "at least one"),
        (([0.2, 0.2],), "be different"),
        (([1.0],), "between 0 and 1"),
        (([0.2], (1,)), "n of 2 or more"),
        (([0.2], (), (0.4, 2)), "no threshold for a ratio of 0.4"),
        (([0.2], (), (0.2, 2), "reward", ("value", "value")), "choosers must be different"),
    ],
)
def test_plans_that_make_no_sense_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_methods(*arguments)


def some_records(**changes: Any) -> tuple[list[Method], dict[str, list[dict[str, Any]]]]:
    """The usual comparison's records, each with changes that may be functions of the record."""
    comparison = made_up(USUAL, 0.1)
    records = {
        one.method.key: [
            dict(record) | {name: f(one.method, record) for name, f in changes.items()}
            for record in one.records
        ]
        for one in comparison.measured
    }
    return [one.method for one in comparison.measured], records


def test_with_few_prompts_nothing_is_claimed_whatever_the_means() -> None:
    methods, records = some_records()
    few = {key: [record for record in own if record["index"] < 19] for key, own in records.items()}
    comparison = Comparison(methods, few, resamples=100)
    for claim in judge(comparison, "gold"):
        assert claim.verdict == "was not tested"
        assert claim.statement == "A claim takes 20 prompts or more, got 19."
    row = comparison.row(comparison.measured[3])
    assert row["rewards"]["gold"]["low"] is None
    assert row["differences"]["base"]["gold"]["why"] == "19 prompts, of 20 needed"
    enough = {key: [record for record in own if record["index"] < 20] for key, own in records.items()}
    verdicts = [claim.verdict for claim in judge(Comparison(methods, enough, resamples=500), "gold")]
    assert "was not tested" not in verdicts


def test_methods_that_differ_at_few_prompts_are_not_called_better() -> None:
    """Nine prompts of forty at which one earns much more: all of them would be chance, or none."""

    def gold(method: Method, record: dict[str, Any]) -> float:
        return 5.0 * (method.key == "entropy-0.2" and record["index"] < 9)

    claim = judge(Comparison(*some_records(gold=gold), resamples=200), "gold")[1]
    assert claim.findings[0].difference.mean == pytest.approx(5 * 9 / 40)
    assert claim.findings[0].outcome == "undecided"
    assert "(no interval: 9 of 40 prompts have another value" in claim.findings[0].text
    assert claim.verdict == "is not shown"


def test_pairs_without_a_reward_are_left_out_and_counted() -> None:
    def proxy(method: Method, record: dict[str, Any]) -> float | None:
        missing = method.key == "dense" and record["index"] % 10 == 3 and record["seed"] == 1
        return None if missing else float(record["proxy"])

    methods, records = some_records(proxy=proxy)
    comparison = Comparison(methods, records, resamples=200)
    dense, base = comparison.find("dense"), comparison.find("base")
    assert dense is not None
    assert base is not None
    assert (dense.unscored("proxy"), base.unscored("proxy")) == (4, 0)
    kept = np.isfinite(dense.rewards("proxy"))
    assert kept.sum() == PROMPTS * SEEDS - 4
    found = comparison.difference(dense, base, "proxy")
    assert found.mean == pytest.approx(np.mean((dense.rewards("proxy") - base.rewards("proxy"))[kept]))
    assert comparison.mean(dense, "proxy").mean == pytest.approx(np.mean(dense.rewards("proxy")[kept]))
    assert comparison.row(dense)["unscored"] == 4


def test_pairs_without_a_gold_reward_are_left_out_where_it_is_said_why() -> None:
    def gold(method: Method, record: dict[str, Any]) -> float | None:
        return None if method.key == "dense" and record["index"] % 10 == 3 else float(record["gold"])

    methods, records = some_records(gold=gold)
    with pytest.raises(ValueError, match="some replies have a gold reward and others none, and not why"):
        Comparison(methods, records, resamples=50)
    told = {
        key: [r | ({"gold_unscored": "nan"} if r["gold"] is None else {}) for r in own]
        for key, own in records.items()
    }
    comparison = Comparison(methods, told, resamples=200)
    dense, base = comparison.find("dense"), comparison.find("base")
    assert dense is not None
    assert base is not None
    kept = np.isfinite(dense.rewards("gold"))
    assert (~kept).sum() == dense.unscored("gold") == comparison.row(dense)["gold_unscored"] == 4 * SEEDS
    found = comparison.difference(dense, base, "gold")
    assert found.mean == pytest.approx(np.mean((dense.rewards("gold") - base.rewards("gold"))[kept]))
    assert comparison.measures == ("gold", "proxy")


def test_a_method_without_any_proxy_reward_has_no_mean() -> None:
    methods, records = some_records(proxy=lambda method, record: None)
    comparison = Comparison(methods, records, resamples=50)
    assert comparison.row(comparison.measured[0])["rewards"]["proxy"]["mean"] is None
    assert {claim.verdict for claim in judge(comparison, "proxy")} <= {"is not shown", "was not tested"}


@pytest.mark.parametrize(("seconds", "told"), [(0.05, False), (0.5, True)])
def test_speeds_that_were_measured_for_a_moment_are_not_told(seconds: float, told: bool) -> None:
    methods, records = some_records(seconds=lambda method, record: seconds)
    comparison = Comparison(methods, records, resamples=50)
    row = comparison.row(comparison.measured[0])
    assert (row["tokens_per_second_by_seed"] == [None] * SEEDS) != told
    assert (row["tokens_per_second"] is None) != told


def test_of_forty_comparisons_without_a_difference_one_says_better_by_chance() -> None:
    assert expected_by_chance(40) == pytest.approx(1)


def test_some_methods_may_be_left_out() -> None:
    methods = plan_methods([0.2], (4,), (0.2, 4), groups=("dense", "base"))
    assert [method.key for method in methods] == ["base", "dense"]
    assert [method.key for method in plan_methods([], (4,), groups=("best-of",))] == [
        "base-best-of-4-by-reward"
    ]


def test_p_values_are_corrected_for_all_differences_of_a_measure_each_once() -> None:
    comparison = made_up(USUAL, 1.0)
    plain, told = {}, {}
    for one in comparison.measured:
        row = comparison.row(one)
        assert set(row["differences"]) == {"base", "dense"} - {one.method.key}
        for rival, found in row["differences"].items():
            pair = tuple(sorted((one.method.key, rival)))
            plain[pair], told[pair] = found["gold"]["p"], found["gold"]["p_adjusted"]
    assert len(plain) == 2 * len(METHODS) - 3  # base and dense steering are held against each other once
    adjusted = dict(zip(plain, holm([*plain.values()]), strict=True))
    assert told == pytest.approx(adjusted)
    assert any(told[pair] > plain[pair] for pair in plain)


def test_a_difference_without_an_interval_has_no_p_value_and_counts_among_those_corrected_for() -> None:
    def gold(method: Method, record: dict[str, Any]) -> float:
        few = method.key == "entropy-0.2" and record["index"] >= 9
        return float(record["gold"]) if not few else gold_of_base[record["index"], record["seed"]]

    base = made_up(USUAL, 0.1).measured[0]
    gold_of_base = {(record["index"], record["seed"]): record["gold"] for record in base.records}
    comparison = Comparison(*some_records(gold=gold), resamples=200)
    one, rival = comparison.find("entropy", 0.2), comparison.find("base")
    assert one is not None
    assert rival is not None
    found = comparison.row(one)["differences"]["base"]["gold"]
    assert "p" not in found
    assert found["p_adjusted"] is None
    assert comparison.adjusted["gold"][frozenset(("entropy-0.2", "base"))] == 1
    assert len(comparison.adjusted["gold"]) == 2 * len(METHODS) - 3


def test_wins_are_of_pairs_that_both_have_a_reward() -> None:
    def proxy(method: Method, record: dict[str, Any]) -> float | None:
        return None if method.key == "dense" and record["index"] == 3 else float(record["proxy"])

    comparison = Comparison(*some_records(proxy=proxy), resamples=200)
    dense, base = comparison.find("dense"), comparison.find("base")
    assert dense is not None
    assert base is not None
    pairs = zip(dense.records, base.records, strict=True)
    won = [one["proxy"] > other["proxy"] for one, other in pairs if one["proxy"] is not None]
    found = comparison.row(dense)["differences"]["base"]["proxy"]["wins"]
    assert found["mean"] == pytest.approx(np.mean(won))
    assert len(won) == (PROMPTS - 1) * SEEDS


def test_measures_of_texts_stand_in_the_row_where_the_records_have_them() -> None:
    texts = ["so it is so it is", "I cannot say.", "A cactus.", ""]

    def text(method: Method, record: dict[str, Any]) -> str:
        return texts[(record["index"] + record["seed"]) % 4]

    comparison = Comparison(*some_records(text=text), resamples=200)
    one = comparison.measured[0]
    row, own = comparison.row(one), one.texts
    assert own == [texts[(index + seed) % 4] for index in range(PROMPTS) for seed in range(SEEDS)]
    by_hand = {"words": lambda text: len(words(text)), "refusals": is_refusal}
    by_hand |= {f"rep_{n}": lambda text, n=n: rep_n(text, n) for n in (2, 3, 4)}
    for name, of in by_hand.items():
        expected = mean_interval([float(of(text)) for text in own], one.prompts, resamples=200)
        assert Interval.from_json(row[name]) == expected.within(0, 1e9), name
    for n in (1, 2, 3):
        assert row[f"distinct_{n}"] == distinct_n(own, n)
    without = Comparison(*some_records(), resamples=50)
    assert "words" not in without.row(without.measured[0])


def test_texts_without_a_word_have_no_share_of_distinct_ones() -> None:
    comparison = Comparison(*some_records(text=lambda method, record: ""), resamples=50)
    row = comparison.row(comparison.measured[0])
    assert row["distinct_2"] is None
    assert row["refusals"]["mean"] == 1
