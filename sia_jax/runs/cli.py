"""What the programs' command lines share: kinds of options for tyro, the ways out of a program.

A kind says how `--help` shows an option; its docstring says what it is for. Where a kind may be None, the
program's own docstring tells what happens then, and no default is shown.
"""

import atexit
import io
import logging
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import PurePath
from typing import Annotated, Any, NoReturn, TypeVar, get_args, get_type_hints

import tyro

from sia_jax.extras import MissingExtraError
from sia_jax.files.pipes import reader_may_leave
from sia_jax.files.shown import shown
from sia_jax.files.strict_json import check_text
from sia_jax.runs.console import Terminal
from sia_jax.runs.interruption import interruptions_heard
from sia_jax.runs.programs import invocation, is_program, running_program

Options = TypeVar("Options")

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
Names = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: none)"),
]
"""Any number of a `Folder`, each with an option of its own."""
Repeated = Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="TEXT")]
"""Texts, each with an option of its own: --stop A --stop B."""


@dataclass(frozen=True, kw_only=True)
class PromptFileArgs:
    """How a file of prompts is read."""

    column: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """The column or field of the file that holds the prompt; by its number, from 1, in a table without a
    header. Without: prompt, goal, or the one that published sets use."""


def read_options(kind: type[Options], words: Sequence[str] | None = None, **more: Any) -> Options:
    """`tyro.cli`, whose errors repeat words of the command line: here as a terminal may be given them.

    Args:
      kind: the dataclass of a program's options.
      words: of the command line; None: those of this process.
      **more: for `tyro.cli`; `prog`, what help calls the program, is else how this process was started.
    """
    more = {"prog": running_program()} | more
    given = list(sys.argv[1:] if words is None else words)
    visible = [shown(word) for word in given]
    with reader_may_leave():
        if visible != given:
            try:
                with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                    return tyro.cli(kind, args=given, **more)
            except (SystemExit, UnicodeEncodeError):  # the latter of half a surrogate pair
                tyro.cli(kind, args=visible, **more)
                sys.exit(2)  # should other words be right, they are not those that were given
        return tyro.cli(kind, args=given, **more)


def check_texts(args: Any) -> None:
    """Every text of a command line can be written as UTF-8.

    Args:
      args: a dataclass of options.

    Raises:
      ValueError: one that cannot, with its option: bytes that were no UTF-8.
    """
    for field in fields(args):
        value = getattr(args, field.name)
        if is_dataclass(value):
            check_texts(value)
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str | PurePath):
                check_text(str(text), option_of(field.name))


def option_of(field: str, value: Any = None) -> str:
    """What gives a field of a program's options: "--batch-size"; of one that is False, "--no-check-base".

    Args:
      field: its name.
      value: what it is given; told apart are only true and false.
    """
    return f"--{'no-' if value is False else ''}{field.replace('_', '-')}"


def check_used(args: Any, names: Collection[str], mode: str) -> None:
    """No option was given that the run would not look at.

    Args:
      args: a dataclass of options.
      names: of the fields that belong to a mode which was not chosen.
      mode: what chooses it: "--prompts FILE".

    Raises:
      ValueError: one of them is not at its default.
    """
    for field in fields(args):
        value = getattr(args, field.name)
        if field.name in names and value != field.default:
            raise ValueError(f"{option_of(field.name, value)} is for {mode}; without that leave it out")


@contextmanager
def named_as_options(args: Any, **others: str) -> Iterator[None]:
    """An error of the library that begins with the name of a field begins with the option that gives it.

    Args:
      args: a dataclass of options.
      **others: fields that the library calls otherwise: target_modules="targets".

    Raises:
      ValueError: the library's, so named.
    """
    try:
        yield
    except ValueError as error:
        name, _, rest = str(error).partition(" ")
        own = others.get(name, name)
        if own not in {field.name for field in fields(args)}:
            raise
        raise ValueError(f"{option_of(own)} {rest}") from error


@contextmanager
def program(
    name: str,
    *others: type[Exception],
    interrupted: Callable[[], str] = lambda: "interrupted",
    smaller: str | None = None,
    keeps_compiled: bool = True,
) -> Iterator[Terminal]:
    """Around a whole program: its ways out, and the terminal for its messages.

    What is wrong with files and options is a message and exit status 1, Ctrl-C a message and 130; warnings
    and what libraries log come as messages too. What is compiled is kept for the next process, if this one is
    a program and no test of one; see `sia_jax.runs.compilation_cache`.

    Args:
      name: which messages begin with, "decode.generate".
      others: what else is explained by its message, beside ValueError and OSError.
      interrupted: what is said after Ctrl-C: what was kept, and how to go on.
      smaller: what makes the work smaller where the memory is full; see `memory_explained`.
      keeps_compiled: False: everything is compiled anew, for the time that it takes.
    """
    console = Terminal(stderr=True)
    try:
        memory = nullcontext() if smaller is None else memory_explained(smaller)
        with interruptions_heard(), reader_may_leave(), explained(name, *others), memory:
            if keeps_compiled and is_program() and "jax" in sys.modules:
                from sia_jax.runs.compilation_cache import keep_compiled

                keep_compiled()
            yield console
    except KeyboardInterrupt:
        console.say(f"\n{interrupted()}")
        stop()


def stop(status: int = 128 + signal.SIGINT) -> NoReturn:
    """End after Ctrl-C, once all is said and closed, with the status that shells expect.

    Ctrl-C leaves a compilation, whose threads go on in XLA: an interpreter that is taken apart beside them
    crashes. So this process ends without that, if it is a program and no test of one.

    Args:
      status: of the process.

    Raises:
      SystemExit: of that status.
    """
    if is_program():
        atexit.register(_end, status)  # before what JAX has registered
    sys.exit(status)


def _end(status: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):  # nobody reads it, or it was closed from the first
            stream.flush()
    os._exit(status)


@contextmanager
def explained(program: str, *others: type[Exception]) -> Iterator[None]:
    """Turn what is wrong with files and options into a message and exit status 1, without a traceback.

    Args:
      program: its name, which the message begins with.
      others: what else is explained by its message, beside ValueError, OSError, and a package of an extra
        that is not installed.
    """
    expected: tuple[type[Exception], ...] = (ValueError, OSError, MissingExtraError, *others)
    try:
        with _warnings_shown(program), _log_shown(program), _records_shown():
            yield
    except expected as error:
        sys.exit(shown(f"{program}: {error}"))


@contextmanager
def _warnings_shown(program: str) -> Iterator[None]:
    """Warnings name files and tensors of others: a line each, as of `explained`."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: shown(f"{program}: warning: {message}") + "\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


@contextmanager
def _log_shown(program: str) -> Iterator[None]:
    """What the library logs, as messages of the program."""
    log, handler = logging.getLogger("sia_jax"), logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter(f"{program}: %(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


@contextmanager
def _records_shown() -> Iterator[None]:
    """What anybody logs, by whichever handler: records are cleaned where they are made."""
    make, plain = logging.getLogRecordFactory(), logging.Formatter()

    def made(*args: Any, **options: Any) -> logging.LogRecord:
        record = make(*args, **options)
        try:
            message = record.getMessage()
        except Exception:  # arguments that do not fit the text, of which logging tells itself
            return record
        if shown(message) != message:
            record.msg, record.args = shown(message), ()
        if record.exc_info:
            record.exc_text = shown(plain.formatException(record.exc_info))
        return record

    logging.setLogRecordFactory(made)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make)


@contextmanager
def memory_explained(advice: str) -> Iterator[None]:
    """Say of memory that is full, or too small from the first, what makes the work smaller: 'lower --rows'.

    Raises:
      ValueError: it is.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # JAX's among the latter
        cause = error.__cause__ or error  # of an engine that has failed
        if not isinstance(cause, MemoryError) and "RESOURCE_EXHAUSTED" not in str(cause):
            raise
        first = str(cause).partition("\n")[0]
        raise ValueError(f"the memory is full ({first or 'of this process'}); {advice}") from error


def goes_on(overwrite: bool) -> str:
    """How an interrupted run goes on: 'the same command goes on', without the option that begins anew."""
    return "the same command" + (" without --overwrite" if overwrite else "") + " goes on"


def command(program: str, args: Any) -> str:
    """The command line that has these options: those that differ from their defaults.

    Args:
      program: its module, "decode.evaluate".
      args: its dataclass of options.
    """
    return shlex.join([*invocation(program).split(), *_options(args)])


def _options(args: Any) -> list[str]:
    words: list[str] = []
    placed: list[str] = []
    kinds = get_type_hints(type(args), include_extras=True)
    for field in fields(args):
        value = getattr(args, field.name)
        if value == field.default:
            continue
        if is_dataclass(value):  # whose options have no prefix
            words += _options(value)
            continue
        if isinstance(value, bool):
            words.append(option_of(field.name, value))
            continue
        items = value if isinstance(value, tuple) else (value,)
        if tyro.conf.Positional in get_args(kinds[field.name]):
            placed += map(str, items)
            continue
        # Of another tuple than a `Repeated` the last option would be all that is read.
        repeated = tyro.conf.UseAppendAction in get_args(kinds[field.name])
        for together in [(item,) for item in items] if repeated else [items]:
            words += _given(option_of(field.name), together)
    if any(text.startswith("-") for text in placed):
        return [*words, "--", *placed]
    return [*placed, *words]


def _given(name: str, items: Sequence[Any]) -> list[str]:
    """An option and what it takes; a text with a dash in front is joined to it, or it would be an option."""
    texts = [str(item) for item in items]
    if items and isinstance(items[0], str | PurePath) and texts[0].startswith("-"):
        return [f"{name}={texts[0]}", *texts[1:]]
    return [name, *texts]
