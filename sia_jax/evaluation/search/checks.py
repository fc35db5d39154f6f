"""What searches cannot do: their drafts are prompts to the engine, whose replies begin behind them."""

from collections.abc import Sequence
from typing import Any

from sia_jax.evaluation.methods import Method
from sia_jax.evaluation.search.methods import ChunkBeam
from sia_jax.runs.options import SamplingArgs
from sia_jax.runs.runner import steering
from sia_jax.steering.numbers import NUMBERS
from sia_jax.steering.tilts import Advantage, Clipped

_OF_REPLIES = ("presence_penalty", "frequency_penalty", "min_new_tokens")
"""Numbers that look at the reply so far, or at its length."""
_OF_DRAWS = ("top_k", "top_p", "min_p")
"""Numbers that shape what is drawn: ARGS and Transfer Q* choose among the candidates themselves."""


def check_searches(methods: Sequence[Method], args: SamplingArgs) -> None:
    """The options ask nothing of searches that these would ignore.

    Args:
      methods: of a comparison, searches or not.
      args: its options.

    Raises:
      ValueError: they do, and what to leave out.
    """
    searches = [method for method in methods if method.search is not None]
    if not searches:
        return
    given: list[str] = [name for name in _OF_REPLIES if _is_set(args, name)]
    if args.stop:
        given.append("stop")
    if given:
        raise _refused(given[0], "looks at a reply from its first token on, which a search goes on with anew")
    if any(not isinstance(method.search, ChunkBeam) for method in searches):
        given = [name for name in _OF_DRAWS if _is_set(args, name)]
        if given:
            raise _refused(given[0], "is about what is drawn, and args and transfer_q choose every token")
    if any(method.is_steered for method in searches):
        tilt: Any = steering(args).tilt
        while isinstance(tilt, Clipped):
            tilt = tilt.of
        if isinstance(tilt, Advantage):
            raise _refused("tilt", "steers by V(s), which is not known where a search goes on")


def _is_set(args: SamplingArgs, name: str) -> bool:
    number = getattr(args, name)
    return number is not None and number != NUMBERS[name].default


def _refused(name: str, why: str) -> ValueError:
    option = "--" + name.replace("_", "-")
    return ValueError(f"{option} {why}; leave it out, or --search")
