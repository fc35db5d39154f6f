"""How long a conversation may become."""

import pytest

from sia_jax.runs.options import SamplingArgs
from sia_jax.runs.partner import longest_conversation


@pytest.mark.parametrize(
    ("new_tokens", "max_length", "held", "longest"),
    [
        (128, None, 40960, 4096),
        (128, None, 1024, 1024),
        (8000, None, 40960, 16000),
        (8000, None, 8192, 8192),
        (128, 129, 1024, 129),
        (128, 1024, 1024, 1024),
    ],
)
def test_a_conversation_is_as_long_as_was_asked_for_and_else_has_room_for_replies(
    new_tokens: int, max_length: int | None, held: int, longest: int
) -> None:
    args = SamplingArgs(policy="none", max_new_tokens=new_tokens)
    assert longest_conversation(args, max_length, held) == longest


@pytest.mark.parametrize("max_length", [-1, 0, 128, 1025])
def test_a_length_without_room_or_beyond_the_models_is_refused(max_length: int) -> None:
    with pytest.raises(ValueError, match=r"--max-length must lie in 129 \.\. 1024"):
        longest_conversation(SamplingArgs(policy="none", max_new_tokens=128), max_length, 1024)
