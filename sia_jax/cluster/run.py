"""What a program does with Ray in place of its own loop."""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from sia_jax.cluster.connection import connected
from sia_jax.cluster.options import RayArgs
from sia_jax.cluster.pool import Recipe, streamed
from sia_jax.runs.console import Terminal


@contextmanager
def shared_out(
    recipe: Recipe, units: Iterable[Any], args: RayArgs, console: Terminal
) -> Iterator[Iterator[list[Any]]]:
    """The results of all units, block by block, made by actors of Ray; see `streamed` and `connected`.

    Args:
      recipe: of the actors' workers.
      units: any number.
      args: which Ray, and how many actors.
      console: told that models are being loaded.

    Raises:
      ValueError, MissingExtraError: what the two raise.
    """
    with connected(args) as ray:
        actors = "an actor" if args.ray_actors == 1 else f"{args.ray_actors} actors"
        console.say(f"loading the models in {actors} of Ray", "dim")
        with closing(streamed(ray, recipe, units, args)) as results:
            yield results
