"""Options of sampling programs come from the table of sampling numbers."""

from dataclasses import MISSING, fields

import pytest
import tyro

import sia_jax
from sia_jax.runs import runner
from sia_jax.runs.options import FilterArgs, SamplingArgs
from sia_jax.steering.numbers import NUMBERS, names_of
from tests.support.checkpoints import tiny_config


def test_every_number_is_an_option_that_is_not_given_by_default() -> None:
    found = {f.name: f for f in fields(SamplingArgs)}
    assert set(NUMBERS) <= set(found)
    assert all(found[name].default is None for name in NUMBERS)
    assert found["policy"].default is MISSING
    assert names_of(FilterArgs) == ("temperature", "top_k", "top_p", "min_p")


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_an_option_is_read_as_its_row_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    option, row = f"--{name.replace('_', '-')}", NUMBERS[name]
    value = getattr(tyro.cli(SamplingArgs, args=["--policy", "P", option, "1"]), name)
    assert (value, type(value)) == (1, int if row.whole else float)
    with pytest.raises(SystemExit):
        tyro.cli(SamplingArgs, args=["--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"{option} {'N' if row.whole else 'X'} {row.help} Default {row.default:g}." in said


def test_models_come_before_numbers_and_numbers_before_what_ends_a_reply() -> None:
    names = [f.name for f in fields(SamplingArgs)]
    assert names.index("policy") == 0
    assert names.index("threshold") < names.index("temperature") < names.index("max_new_tokens")


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_a_wrong_option_is_refused_by_its_name(name: str) -> None:
    args = SamplingArgs(policy="P", **{name: float("nan")})
    with pytest.raises(ValueError, match=f"^{name} must be"):
        runner.check_numbers(args, sia_jax.Policy(tiny_config(), {}, None, "P"))
