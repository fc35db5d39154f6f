"""Presets: what a file of them may say, and what it comes to."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sia_jax.serve.presets import Preset, default_presets, described, read_presets, request_fields
from sia_jax.steering.config import SteeringConfig
from sia_jax.steering.gates import Budget, Entropy, Position
from sia_jax.steering.tilts import Advantage, Clipped
from tests.support.refusals import refused

BOUNDED = SteeringConfig(gate=Entropy() & Budget(0.2), tilt=Clipped(2.0, of=Advantage()))


def terms(steering: SteeringConfig | None = None, *, value: bool = True) -> Any:
    config = SimpleNamespace(steering=steering or SteeringConfig())
    return SimpleNamespace(
        value=object() if value else None, config=config, threshold=1.0 if value else math.inf
    )


def test_the_policys_name_is_the_policy_alone_and_the_other_steers_as_the_engine_does() -> None:
    assert default_presets("p", terms()) == {"p": Preset(threshold=math.inf), "p-sia": Preset()}
    assert default_presets("p", terms(value=False)) == {"p": Preset(threshold=math.inf)}


def test_no_name_says_the_policy_alone_where_a_gate_opens_whatever_the_threshold() -> None:
    found = default_presets("p", terms(SteeringConfig(gate=Entropy() | Position(3))))
    assert found == {"p-sia": Preset()}


def test_a_file_gives_names_to_numbers(tmp_path: Path) -> None:
    file = tmp_path / "presets.toml"
    file.write_text('[strong]\nbeta = 2\nthreshold = -inf\n["org/x"]\nbound = 0.5\nbudget = 0.1\n')
    assert read_presets(file, terms(BOUNDED)) == {
        "strong": Preset(beta=2.0, threshold=-math.inf),
        "org/x": Preset(bound=0.5, budget=0.1),
    }


@pytest.mark.parametrize(
    ("content", "telling"),
    [
        ("beta = 2", "table"),
        ("[a]\nbeta = 'x'", "beta"),
        ("[a]\nbeta = true", "beta"),
        ("[a]\nbeta = nan", "beta"),
        ("[a]\nbeta = inf", "beta"),
        ("[a]\nthreshold = nan", "threshold"),
        ("[a]\nbound = 1", "server's is additive"),
        ("[a]\nbudget = 0.1", "server's is entropy"),
        ("[a]\nweight = 1", "weight"),
        ("[a", "TOML"),
        ("[a]\n[a]", "TOML"),
    ],
)
def test_a_file_that_cannot_be_is_refused_with_its_place(tmp_path: Path, content: str, telling: str) -> None:
    file = tmp_path / "presets.toml"
    file.write_text(content)
    with refused(ValueError, file, telling):
        read_presets(file, terms())


def test_numbers_that_are_given_stand_over_those_that_are_not() -> None:
    assert Preset(beta=1.0, threshold=2.0).override(beta=3.0, threshold=None) == Preset(
        beta=3.0, threshold=2.0
    )


def test_zero_is_a_number_and_not_the_absence_of_one() -> None:
    zero = Preset(threshold=0.0, beta=0.0, bound=0.0, budget=0.0)
    found = request_fields(
        Preset(threshold=1.0).override(threshold=0.0, beta=0.0, bound=0.0, budget=0.0), terms(BOUNDED)
    )
    assert found == request_fields(zero, terms(BOUNDED))
    assert found["threshold"] == found["beta"] == found["tilt"].bound == 0.0
    assert found["gate"] == Entropy() & Budget(0.0)


def test_what_a_name_stands_for_is_told_with_the_engines_own_numbers() -> None:
    told = described(Preset(beta=2.0), terms(BOUNDED))
    assert told == {
        **{"threshold": 1.0, "beta": 2.0, "bound": 2.0, "budget": 0.2},
        **{"gate": "entropy & budget(0.2)", "tilt": "clipped(2.0, advantage)"},
    }
    assert described(Preset(threshold=-math.inf, bound=1.0), terms(BOUNDED))["threshold"] == "-inf"
    assert described(Preset(threshold=math.inf), terms(value=False)) == {"threshold": "inf"}
