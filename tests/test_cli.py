"""What the programs share: an end with a message where files or options are wrong, and no other."""

import pytest

from sia_jax.cli import explained


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
