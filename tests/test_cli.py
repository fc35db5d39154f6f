"""What the programs share: an end with a message where files or options are wrong, and no other."""

import shlex

import pytest
import tyro

from decode import evaluate
from sia_jax.cli import command, explained


@pytest.mark.parametrize("error", [ValueError("no such thing"), FileNotFoundError("no such thing")])
def test_what_is_wrong_with_options_and_files_is_a_message_with_the_programs_name(error: Exception) -> None:
    with pytest.raises(SystemExit) as caught, explained("train.label"):
        raise error
    assert caught.value.code == "train.label: no such thing"


def test_what_is_wrong_with_the_program_keeps_its_traceback() -> None:
    with pytest.raises(FloatingPointError), explained("train.label"):
        raise FloatingPointError("the loss is nan")


def test_a_program_may_explain_more() -> None:
    with pytest.raises(SystemExit, match="the loss is nan"), explained("it", FloatingPointError):
        raise FloatingPointError("the loss is nan")


def test_a_command_line_gives_back_the_options_that_it_was_made_from() -> None:
    args = evaluate.Args(
        policy="my policy",
        value="v",
        reward="r",
        prompts="p.jsonl",
        thresholds="t.json",
        out="out",
        stop=("\n\n", "END"),
        best_of=(2, 16),
        check_base=False,
        gold=True,
        combined_ratio=0.4,
        beta=2.5,
    )
    words = shlex.split(command("decode.evaluate", args))
    assert words[:3] == ["python", "-m", "decode.evaluate"]
    assert "--temperature" not in words
    assert tyro.cli(evaluate.Args, args=words[3:]) == args
