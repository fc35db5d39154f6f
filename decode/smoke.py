"""Whether an installation works: on the embedded models, within two minutes, a line for each thing that does.

    sia smoke

It loads the embedded models, samples unsteered and steered replies and holds them against what whole passes
over the finished text say, in float64; trains a value model for three steps, through a checkpoint that is
written, read and gone on from, to the same numbers; saves it and loads it again. Nothing is left behind.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import jax
import numpy as np

from sia_jax.extras import MissingExtraError
from sia_jax.runs.cli import Count, program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.progress import waiting
from sia_jax.world.checks import (
    WrongError,
    check_dense,
    check_saving,
    check_training,
    check_unsteered,
    load_pair,
    sample,
)


@dataclass(frozen=True, kw_only=True)
class Args:
    """Check an installation."""

    tokens: Count = 24
    """Of each reply, of which there are four."""


def main(args: Args) -> None:
    """Run the checks; exits with 1 at the first that fails."""
    console = Terminal()
    with program("decode.smoke", WrongError):
        if args.tokens < 1:
            raise ValueError(f"--tokens must be 1 or more, got {args.tokens}")
        with _step(console, f"JAX {jax.__version__} computes on {jax.devices()[0].device_kind}"):
            jax.block_until_ready(jax.numpy.ones(8).sum())
        with _step(console, "the embedded models load"):
            loaded = load_pair()
        with _step(console, "unsteered replies are the policy's own choice"):
            samples = sample(loaded, args.tokens, np.inf)
            check_unsteered(loaded, samples)
        with _step(console, "steered replies are argmax of logit + value over the candidates"):
            check_dense(loaded, sample(loaded, args.tokens, -np.inf))
        try:
            with TemporaryDirectory() as folder:
                with _step(console, "training goes on from its checkpoint to the same numbers"):
                    trained = check_training(loaded, samples, Path(folder))
                with _step(console, "a value model that was saved is the one that is loaded"):
                    check_saving(loaded, trained, Path(folder) / "value")
        except MissingExtraError as error:
            console.say(f"--    not checked: training ({error})")
        console.say("all is well")


@contextmanager
def _step(console: Terminal, what: str) -> Iterator[None]:
    """Say what is checked, then that it was right, and how long it took."""
    began = time.perf_counter()
    with waiting(console, what):
        yield
    console.say(f"ok    {what} ({time.perf_counter() - began:.1f} s)")


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
