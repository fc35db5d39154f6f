"""What the programs' command lines share: kinds of options for tyro, and an end without a traceback.

A kind says how `--help` shows an option; its docstring says what it is for. Where a kind may be None, the
program's own docstring tells what happens then, and no default is shown.
"""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Annotated, Any

import tyro

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]
"""False unless it is given; there is no --no-..."""
Count = Annotated[int, tyro.conf.arg(metavar="N")]
Int = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
Float = Annotated[float | None, tyro.conf.arg(metavar="X", help_behavior_hint="")]
File = Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
Folder = Annotated[str, tyro.conf.arg(metavar="DIR")]
"""A folder; for a checkpoint also a Hub id."""
Name = Annotated[str | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: none)")]
"""A `Folder` that may be left out."""
Repeated = Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="TEXT")]
"""Texts, each with an option of its own: --stop A --stop B."""


@contextmanager
def explained(program: str, *others: type[Exception]) -> Iterator[None]:
    """Turn what is wrong with files and options into a message and exit status 1, without a traceback.

    Args:
      program: its name, which the message begins with.
      others: what else is explained by its message, beside ValueError and OSError.
    """
    expected: tuple[type[Exception], ...] = (ValueError, OSError, *others)
    try:
        yield
    except expected as error:
        sys.exit(f"{program}: {error}")


@contextmanager
def memory_explained(advice: str) -> Iterator[None]:
    """Say of a device that is out of memory what makes the work smaller: 'lower --rows, now 8'.

    Raises:
      ValueError: the device is out of memory.
    """
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise ValueError(f"the memory is full ({str(error).splitlines()[0]}); {advice}") from error


def goes_on(overwrite: bool) -> str:
    """How an interrupted run goes on: 'the same command goes on', without the option that begins anew."""
    return "the same command" + (" without --overwrite" if overwrite else "") + " goes on"


def command(program: str, args: Any) -> str:
    """The command line that has these options: those that differ from their defaults.

    Args:
      program: its module, "decode.evaluate".
      args: its dataclass of options.
    """
    words = ["python", "-m", program]
    for field in fields(args):
        value = getattr(args, field.name)
        if value == field.default:
            continue
        name = field.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, tuple) and all(isinstance(item, str) for item in value):
            words += [word for item in value for word in (f"--{name}", item)]  # a `Repeated`
        else:
            items = value if isinstance(value, tuple) else (value,)
            words += [f"--{name}", *map(str, items)]
    return shlex.join(words)
