"""What the programs share: an end with a message where files or options are wrong, and no other."""

import importlib
import io
import logging
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
import tyro

from decode import evaluate, generate, serve, trace
from sia_jax.runs import cli
from sia_jax.runs.cli import check_used, command, explained, named_as_options, read_options
from sia_jax.runs.programs import find_programs
from sia_jax.serve.settings import Settings
from sia_jax.world.files import world_models

pytestmark = pytest.mark.optimised

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize("is_one", [True, False])
def test_after_ctrl_c_a_program_and_no_test_of_one_ends_before_it_is_taken_apart(
    is_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: list[Any] = []
    monkeypatch.setattr(cli, "is_program", lambda: is_one)
    monkeypatch.setattr(cli.atexit, "register", lambda *call: registered.append(call))
    with pytest.raises(SystemExit) as end, cli.program("it"):
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert registered == [(cli._end, 130)] * is_one


@pytest.mark.long
def test_ctrl_c_while_a_program_compiles_is_no_crash(tmp_path: Path) -> None:
    models = world_models()
    options = [
        "--policy",
        models / "policy",
        "--value",
        models / "value-token",
        "--out",
        tmp_path / "r.jsonl",
    ]
    words = ["-m", "decode.generate", *options, "--prompt", "Hello?", "--batch", "1"]
    # As slowly as users' programs, and in the next run of the suite too.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    process = subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env=environment | {"SIA_JAX_COMPILATION_CACHE": "off"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()  # how prompts are made, said when all is imported
        time.sleep(4)  # until it compiles, which takes some ten seconds
        process.send_signal(signal.SIGINT)
        said = line + process.communicate(timeout=120)[1]
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, "0 of 1 replies" in said) == (130, True), said


def test_a_command_line_gives_back_the_options_that_it_was_made_from() -> None:
    args = evaluate.Args(
        policy="my policy",
        value="v",
        reward=("r",),
        prompts="p.jsonl",
        thresholds="t.json",
        out="out",
        stop=("\n\n", "END"),
        best_of=(2, 16),
        methods=("base", "best-of"),
        check_base=False,
        gold_function="sia_jax.world.rewards:gold",
        combined_ratio=0.4,
        beta=2.5,
    )
    words = shlex.split(command("decode.evaluate", args))
    assert words[:3] == ["python", "-m", "decode.evaluate"]
    assert "--temperature" not in words
    assert tyro.cli(evaluate.Args, args=words[3:]) == args


def test_a_command_has_the_options_of_parts_too() -> None:
    limits = Settings(max_n=4, drain_seconds=0.5, log_prompts=True, page_open=False)
    args = serve.Args(port=0, limits=limits)
    words = shlex.split(command("decode.serve", args))[3:]
    assert words[:2] == ["--port", "0"]
    assert sorted(words[2:]) == ["--drain-seconds", "--log-prompts", "--max-n", "--no-page-open", "0.5", "4"]
    assert read_options(serve.Args, words) == args
    assert shlex.split(command("decode.serve", serve.Args()))[3:] == []


def several(kind: Any) -> tuple[Any, ...] | None:
    """More than one value for a field that takes a tuple, not its default; None: it takes no tuple."""
    if get_origin(kind) is Annotated:
        return several(get_args(kind)[0])
    if get_origin(kind) is not tuple:
        return None
    inner, *more = get_args(kind)
    if get_origin(inner) is Literal:
        return get_args(inner)[:2][::-1]
    values: dict[type, tuple[Any, ...]] = {
        str: ("-a b:c", "", 'd "e"'),
        int: (2, 3, 5),
        float: (0.5, -math.inf, -2.5),
        Path: (Path("a"), Path("b c"), Path("d")),
    }
    return values[inner][: 3 if more == [...] else 1 + len(more)]


def needed(kind: Any) -> dict[str, Any]:
    """A value for each option without a default."""
    hints = get_type_hints(kind)
    return {f.name: hints[f.name]("x") for f in fields(kind) if f.default is f.default_factory is MISSING}


@pytest.mark.parametrize("module", [one.module for one in find_programs() if one.folder != "configs"])
def test_options_that_take_several_are_written_as_they_are_read(module: str) -> None:
    kind = importlib.import_module(module).Args
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if (value := several(hint)) is not None:
            args = kind(**needed(kind) | {name: value})
            words = shlex.split(command(module, args))
            assert words[:3] == ["python", "-m", module]
            assert read_options(kind, words[3:]) == args


@pytest.mark.parametrize("text", ["-a", "--", "--seed", "-1", "- a", ""])
def test_a_text_is_no_option_whatever_it_begins_with(text: str) -> None:
    args = generate.Args(policy="p", system=text, stop=(text, text), prompts=text)
    assert read_options(generate.Args, shlex.split(command("decode.generate", args))[3:]) == args


@dataclass(frozen=True, kw_only=True)
class Few:
    """Options."""

    batch_size: int = 2
    column: str | None = None
    check_base: bool = True


def test_an_option_that_a_run_would_not_look_at_is_refused_where_it_was_given() -> None:
    check_used(Few(batch_size=3), ("column", "check_base"), "--prompts FILE")
    with pytest.raises(ValueError, match=r"^--column is for --prompts FILE; without that leave it out$"):
        check_used(Few(column="a"), ("column",), "--prompts FILE")
    with pytest.raises(ValueError, match=r"^--no-check-base is for --value DIR"):
        check_used(Few(check_base=False), ("check_base",), "--value DIR")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("batch_size must be 1 or more", "--batch-size must be 1 or more"),
        ("size must be 1 or more", "--batch-size must be 1 or more"),
        ("rank must be 1 or more", "rank must be 1 or more"),
        ("the batch_size must be 1 or more", "the batch_size must be 1 or more"),
    ],
)
def test_what_the_library_says_of_a_field_is_said_of_its_option(error: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"), named_as_options(Few(), size="batch_size"):
        raise ValueError(error)


@pytest.mark.parametrize(
    "words",
    [
        ["x", "--bogus\x1b]0;title\x07"],
        ["x", "one more \x1b[2J\u202e"],
        ["x", "--prompts", "\x9b31m"],
        ["x", "half a pair \udc80"],
    ],
)
def test_errors_about_options_command_no_terminal(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        read_options(trace.Args, words, description="Make a page.")
    assert ended.value.code == 2
    said = "".join(capsys.readouterr())
    assert "--help" in said
    for foreign in ("\x1b]", "\x1b[2J", "\u202e", "\x9b", "\x07", "\udc80"):
        assert foreign not in said


FOREIGN = "llama\x1b[2J\x1b]0;title\x07\u202e"


@pytest.fixture
def log(request: pytest.FixtureRequest) -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger with a handler of its own, as transformers and huggingface_hub give theirs."""
    found, stream = logging.getLogger(request.param), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("[its own] %(message)s"))
    found.addHandler(handler)
    yield found, stream
    found.removeHandler(handler)


@pytest.mark.parametrize(
    "log", ["transformers.models", "tokenizers", "huggingface_hub.utils", "sia_jax", ""], indirect=True
)
def test_what_any_package_logs_commands_no_terminal(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = log
    with explained("it"):
        logger.warning("no tokenizer of type %s, as %s says", FOREIGN, {"config.json": 100})
        logger.warning(f"100% of {FOREIGN}")
        try:
            raise ValueError(FOREIGN)
        except ValueError:
            logger.warning("it failed", exc_info=True)
        logger.warning("plain %d%%\n\tand more", 5)
    said = stream.getvalue()
    assert not any(foreign in said for foreign in ("\x1b", "\x07", "\u202e"))
    assert "[its own] no tokenizer of type llama␛[2J␛]0;title␇\\u202e, as {'config.json': 100} says\n" in said
    assert "100% of llama␛" in said
    assert "ValueError: llama␛" in said
    assert said.endswith("[its own] plain 5%\n\tand more\n")


@pytest.mark.parametrize("log", ["transformers"], indirect=True)
def test_loggers_are_as_before_when_a_program_has_ended(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = log
    with pytest.raises(SystemExit), explained("it"):
        raise ValueError("no such thing")
    logger.warning("a\x1b")
    assert stream.getvalue() == "[its own] a\x1b\n"


def test_options_are_read_as_they_were_given() -> None:
    assert read_options(trace.Args, ["a\x1b\udc80", "--title", "\u202eb"]) == trace.Args(
        replies=Path("a\x1b\udc80"), title="\u202eb"
    )
