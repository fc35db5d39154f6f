"""Every row of the table of sampling numbers is where a number has to be, and refuses what is none."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.evaluation.calibration import BINDING, FORMAT, read_calibration
from sia_jax.steering.config import Knobs, SteeringConfig
from sia_jax.steering.numbers import NUMBERS, Number, check_number, names_of, with_absent
from sia_jax.steering.types import RowParams

NAMES = sorted(NUMBERS)
INF, NAN = float("inf"), float("nan")


def wrong(row: Number) -> list[Any]:
    """Values that a row refuses, by its own account."""
    found: list[Any] = [NAN, INF, -INF, 1e39, [row.default, NAN]]
    if row.low > -INF:
        found.append(row.low - 1)
    if row.high < INF:
        found.append(max(row.high + 0.1, row.high * 1.1))
    if row.open_at_zero:
        found.append(0)
    if row.smallest:
        found.append(row.smallest / 10)
    return found + ([1.5, 2**31] if row.whole else [])


def test_the_rows_are_these() -> None:
    filters = ["min_p", "temperature", "top_k", "top_p"]
    penalties = ["frequency_penalty", "presence_penalty", "repetition_penalty"]
    assert sorted(["beta", "min_new_tokens", "read_all", *filters, *penalties]) == NAMES


@pytest.mark.parametrize("kind", [SteeringConfig, Knobs, RowParams])
def test_configuration_knobs_and_rows_have_every_row(kind: type) -> None:
    assert sorted(names_of(kind)) == NAMES
    assert all(f.kw_only for f in fields(kind) if f.name in NUMBERS)


def test_thresholds_are_bound_to_every_number_that_matters_where_nothing_is_steered() -> None:
    assert sorted({*BINDING, "beta", "read_all"} & set(NUMBERS)) == NAMES
    assert not {"beta", "read_all"} & set(BINDING)
    assert "beta" not in BINDING


@pytest.mark.parametrize("name", NAMES)
def test_a_row_says_what_it_is_for_and_allows_its_default(name: str) -> None:
    row = NUMBERS[name]
    assert row.help.endswith(".")
    assert check_number(name, row.default) == row.default
    assert getattr(SteeringConfig(), name) == row.default
    assert getattr(Knobs(), name) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_number_is_refused_with_its_name_what_was_got_and_what_was_expected(name: str) -> None:
    for value in wrong(NUMBERS[name]):
        with pytest.raises(ValueError, match=rf"^{name} must be .*, got ") as caught:
            check_number(name, value)
        assert str(np.asarray(value).tolist()) in str(caught.value)
    with pytest.raises(ValueError, match=rf"^{name} must be numbers, got str 'much'"):
        check_number(name, "much")


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_default_is_refused_where_it_is_given(name: str) -> None:
    for value in wrong(NUMBERS[name]):
        with pytest.raises((TypeError, ValueError), match=f"^{name} must be"):
            SteeringConfig(**{name: value})
    for value in (None, "1", np.ones(2), True):
        with pytest.raises(TypeError, match=f"^{name} must be"):
            SteeringConfig(**{name: value})


def test_a_tracer_and_no_numbers_at_all_pass() -> None:
    assert check_number("top_p", []).size == 0
    assert jax.jit(lambda x: check_number("top_p", x))(7.0) == 7


def test_a_configuration_shows_its_structure_and_what_was_changed() -> None:
    assert repr(SteeringConfig(5, top_k=3)) == (
        "SteeringConfig(num_candidates=5, gate=Entropy(), tilt=Additive(), top_k=3, beta=1.0)"
    )
    assert hash(SteeringConfig(beta=2)) == hash(replace(SteeringConfig(), beta=2.0))


def test_knobs_and_rows_are_pytrees_of_all_their_fields() -> None:
    knobs = jax.tree.map(lambda x: x + 1, Knobs(top_k=2, gate=(1.0,)))
    assert (knobs.top_k, knobs.gate, knobs.beta) == (3, (2.0,), None)
    rows = RowParams(**{f.name: jnp.full(2, i) for i, f in enumerate(fields(RowParams))})
    doubled = jax.jit(lambda x: jax.tree.map(lambda leaf: 2 * leaf, x))(rows)
    for i, f in enumerate(fields(RowParams)):
        assert getattr(doubled, f.name).tolist() == [2 * i, 2 * i]


def test_what_a_record_does_not_name_stands_at_its_default() -> None:
    assert with_absent({"top_k": 3, "seed": 1}) == {
        **{name: row.default for name, row in NUMBERS.items()},
        "top_k": 3,
        "seed": 1,
    }


def test_thresholds_from_before_a_number_are_for_runs_without_it(tmp_path: Path) -> None:
    old = {name: row.default for name, row in NUMBERS.items() if name != "min_p"}
    path = tmp_path / "thresholds.json"
    path.write_text(
        json.dumps({"format": FORMAT, "thresholds": [{"ratio": 0.2, "threshold": 1.0}], "settings": old})
    )
    read_calibration(path).check(old | {"min_p": 0.0})
    with pytest.raises(ValueError, match=r"min_p 0\.0 \(now 0\.1\)"):
        read_calibration(path).check(old | {"min_p": 0.1})
