"""The process in which chat templates run: `python template_worker.py FOLDER_OF_JINJA2`.

A template is a program that came with a checkpoint. Jinja's sandbox keeps it from files and modules, not from
running for ever or from filling the memory, and no check inside the process that renders can: one multiplied
string, one sort, one comparison is a single step of the interpreter. So it runs here, under limits that the
operating system keeps, and a process that is killed takes nothing with it. `sia_jax.text.templates` starts
it, and is the only one that talks to it.

This file is run by its path and imports nothing of the project, so that it starts in a tenth of a second.
Requests and answers are JSON behind their length, four bytes, big-endian.
"""

import json
import resource
import signal
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any, BinaryIO, NoReturn

SECONDS = 1.0
"""Of the processor that a template may take; real ones take milliseconds."""

_GRACE = 0.5  # seconds until a step of the interpreter that does not end is killed with its process
_MEMORY = 384 << 20  # bytes, beside what the interpreter takes
_LONGEST_WHY = 400  # characters of an error


class _Endless(Exception):
    """The time is up."""


def main() -> None:
    """Answer requests until there are no more."""
    sys.path.append(sys.argv[1])
    _environment()  # what the interpreter and Jinja take is not counted
    _limit_memory()
    signal.signal(signal.SIGVTALRM, _stop)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while (request := _read(requests)) is not None:
        answer = json.dumps(_timed(request)).encode()
        answers.write(struct.pack(">I", len(answer)) + answer)
        answers.flush()


def _read(stream: BinaryIO) -> dict[str, Any] | None:
    head = stream.read(4)
    if len(head) < 4:
        return None
    found: dict[str, Any] = json.loads(stream.read(struct.unpack(">I", head)[0]))
    return found


def too_slow() -> str:
    """What is said of a template that does not end."""
    return f"it takes more than {SECONDS:g} s of processor time"


def _stop(*_: object) -> NoReturn:
    raise _Endless


def _limit_memory() -> None:
    # Not every system has such a limit, or keeps it; the limit on time holds there too.
    with suppress(ValueError, OSError):
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + _MEMORY, taken + _MEMORY))


def _timed(request: dict[str, Any]) -> dict[str, Any]:
    """An answer, {"text"} or {"names"}; else {"error": kind, "why", "line"}."""
    from jinja2 import TemplateError, TemplateSyntaxError

    def failed(kind: str, error: BaseException, why: str) -> dict[str, Any]:
        line = error.lineno if isinstance(error, TemplateSyntaxError) else _line(error)
        return {"error": kind, "why": why[:_LONGEST_WHY], "line": line}

    # Processor time: a machine that is busy otherwise does not make a template late.
    signal.setitimer(signal.ITIMER_PROF, SECONDS + _GRACE)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        if request["ask"] == "names":
            return {"names": _names(request["template"])}
        return {"text": _rendered(request)}
    except TemplateSyntaxError as error:
        return failed("broken", error, error.message or "")
    except SyntaxError as error:  # Jinja's own Python of it, nested more deeply than Python takes
        return {"error": "broken", "why": error.msg, "line": None}
    except _Endless as error:
        return failed("limit", error, too_slow())
    except MemoryError as error:
        return failed("limit", error, f"it takes more than {_MEMORY >> 20} MB of memory")
    except _TooLong as error:
        return failed("limit", error, str(error))
    except RecursionError as error:
        return failed("limit", error, "it is nested too deeply, or calls itself without end")
    except TemplateError as error:
        return failed("refused", error, str(error.message) if error.message else type(error).__name__)
    except Exception as error:  # whatever an expression of the template raises
        return failed("refused", error, f"{type(error).__name__}: {error}")
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)


class _TooLong(Exception):
    """The text is longer than it may be."""


def _rendered(request: dict[str, Any]) -> str:
    limit = request["limit"]
    pieces, length = [], 0
    for piece in _compiled(request["template"]).generate(**request["variables"]):
        length += len(piece)
        if length > limit:
            raise _TooLong(f"it writes more than {limit:,} characters")
        pieces.append(piece)
    return "".join(pieces)


def _line(error: BaseException) -> int | None:
    """Of the template, where the error arose; Jinja has put the template's own lines into the traceback."""
    line, frame = None, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == "<template>":
            line = frame.tb_lineno
        frame = frame.tb_next
    return line


@lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    return _environment().from_string(template)


@lru_cache(maxsize=16)
def _names(template: str) -> list[str]:
    """The names that a template looks up: variables, functions, what it sets itself."""
    from jinja2 import nodes

    parsed = _environment().parse(template)
    return sorted({node.name for node in parsed.find_all(nodes.Name) if node.ctx == "load"})


@lru_cache(maxsize=1)
def _environment() -> Any:
    """The environment that transformers gives to chat templates, in what they can see of it."""
    from jinja2 import FunctionLoader
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import CallBlock
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """{% generation %} marks what the assistant wrote, for training; here it is text like any other."""

        tags = {"generation"}  # noqa: RUF012  (as Jinja declares it)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return CallBlock(self.call_method("written"), [], [], body).set_lineno(line)

        def written(self, caller: Callable[[], str]) -> str:
            return caller()

    class TemplateNamespace(Namespace):
        def __init__(*args: Any, **kwargs: Any) -> None:  # so that namespace(self=1) is one too
            self, *rest = args
            fields = dict(*rest, **kwargs)
            for name in fields:
                TemplateNamespace.check(name)
            Namespace.__init__(self, fields)

        def __setitem__(self, name: str, value: Any) -> None:
            TemplateNamespace.check(name)
            Namespace.__setitem__(self, name, value)

        @staticmethod
        def check(name: Any) -> None:
            if isinstance(name, str) and name.startswith("_"):
                raise SecurityError(f"a namespace takes no names that begin with _, got {name!r}")

    class TemplateDict:
        """`dict`, without the attributes of the type."""

        def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
            return dict(*args, **kwargs)

        def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
            return dict.fromkeys(*args, **kwargs)

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def tojson(
        x: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    def strftime_now(form: str) -> str:
        return datetime.now().strftime(form)

    def no_other(name: str) -> NoReturn:
        raise TemplateError(f"it wants another template, {name!r}, and a chat template stands alone")

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, loopcontrols],
        loader=FunctionLoader(no_other),
    )
    environment.filters["tojson"] = tojson
    environment.globals.update(
        raise_exception=raise_exception,
        strftime_now=strftime_now,
        dict=TemplateDict(),
        namespace=TemplateNamespace,
    )
    return environment


if __name__ == "__main__":
    main()
