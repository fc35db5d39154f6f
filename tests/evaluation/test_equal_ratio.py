"""Gates against the entropy gate of their ratio: what is paired, and what p-values are corrected for."""

import numpy as np
import pytest

from sia_jax.evaluation.claims import judge
from sia_jax.evaluation.comparison import Comparison
from sia_jax.evaluation.equal_ratio import against_entropy
from sia_jax.evaluation.methods import Method, plan_methods
from sia_jax.evaluation.multiplicity import holm
from tests.support.comparing import METHODS, WITH_GATES, made_up

KINDS = ("random", "entropy-ratio", "position", "budget", "learned")
MEANS = {method.key: 0.1 * place for place, method in enumerate(WITH_GATES)}


def test_each_gate_is_paired_with_the_entropy_gate_of_its_ratio_that_reads_all_values() -> None:
    comparison = made_up(MEANS, 0.5, WITH_GATES)
    rows = {row["key"]: row for row in against_entropy(comparison)}
    expected = {f"entropy-{ratio}-bound-1" for ratio in (0.2, 0.8)}
    assert set(rows) == expected | {f"{kind}-{ratio}" for kind in KINDS for ratio in (0.2, 0.8)}
    measured = {one.method.key: one for one in comparison.measured}
    for key, row in rows.items():
        one, rival = measured[key], measured[f"entropy-{row['asked_ratio']:g}"]
        for measure in ("gold", "proxy"):
            difference = row["differences"][measure]
            assert difference["mean"] == pytest.approx(np.mean(one.rewards(measure) - rival.rewards(measure)))
            assert difference["low"] == comparison.difference(one, rival, measure).low
        assert (row["steered"], row["steered_by_entropy"]) == (one.ratio, rival.ratio)


def test_p_values_are_corrected_for_the_differences_of_the_list_alone() -> None:
    comparison = made_up(MEANS, 3.0, WITH_GATES)
    rows = against_entropy(comparison)
    for measure in ("gold", "proxy"):
        plain = [row["differences"][measure]["p"] for row in rows]
        assert [row["differences"][measure]["p_adjusted"] for row in rows] == pytest.approx(holm(plain))


def test_a_gate_whose_entropy_gate_was_not_measured_has_no_rival() -> None:
    methods = [method for method in WITH_GATES if method.key != "entropy-0.2"]
    keys = [row["key"] for row in against_entropy(made_up(MEANS, 0.5, methods))]
    assert keys == ["entropy-0.8-bound-1", *(f"{kind}-0.8" for kind in KINDS)]
    assert against_entropy(made_up(MEANS, 0.5, [Method("base"), Method("dense")])) == []


def test_further_gates_and_bounds_change_no_claim() -> None:
    more = made_up(MEANS, 0.5, WITH_GATES)
    records = {one.method.key: one.records for one in more.measured}
    usual = Comparison(METHODS, {method.key: records[method.key] for method in METHODS}, resamples=500)
    assert judge(more, "gold") == judge(usual, "gold")


def test_methods_stand_by_their_kinds_each_bound_after_what_reads_all_values() -> None:
    groups = ("base", "learned", "dense", "entropy", "position")
    methods = plan_methods([0.8, 0.1], groups=groups, bounds=(2.0, 0.5))  # type: ignore[arg-type]
    assert [method.key for method in methods] == [
        *("base", "dense", "dense-bound-0.5", "dense-bound-2", "entropy-0.1", "entropy-0.8"),
        *("entropy-0.1-bound-0.5", "entropy-0.8-bound-0.5", "entropy-0.1-bound-2", "entropy-0.8-bound-2"),
        *("position-0.1", "position-0.8", "learned-0.1", "learned-0.8"),
    ]
    assert [method.name for method in methods][2] == "dense, contenders at 0.5"
    assert [method.name for method in methods][-1] == "learned 80%"
    assert Method("entropy-ratio", 0.25).name == "entropy ratio 25%"


@pytest.mark.parametrize(
    "method",
    [
        ("learned",),
        ("dense", 0.2),
        ("random", 0.2, 1, None, None, 1.0),
        ("entropy", 0.2, 4, "value", None, 1.0),
    ],
)
def test_methods_that_there_are_not_are_refused(method: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match=r"gates have a ratio|a bound, over 0 and finite, is of plain"):
        Method(*method)  # type: ignore[arg-type]
