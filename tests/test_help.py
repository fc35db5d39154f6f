"""What every program's --help says."""

import ast
import importlib
import io
import re
import shlex
import sys
from contextlib import redirect_stdout
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import tyro

from sia_jax.runs.cli import read_options
from sia_jax.runs.programs import find_programs, running_program
from tests.support.page_commands import PAGES, commands, options_of, program_of

ROOT = Path(__file__).parents[1]


def programs() -> list[str]:
    found = []
    for folder in ("decode", "train"):
        for path in sorted((ROOT / folder).glob("*.py")):
            if "read_options(Args" in path.read_text(encoding="utf-8"):
                found.append(f"{folder}.{path.stem}")
    return found


def described(program: str) -> dict[str, str]:
    """What stands between an option and the next one in --help, without the default."""
    shown = io.StringIO()
    with redirect_stdout(shown), pytest.raises(SystemExit):
        tyro.cli(importlib.import_module(program).Args, args=["--help"], config=(), prog=program)
    text = re.sub(r"[│╭╮╰╯─]+", " ", shown.getvalue().split("options", 1)[1])
    # The name, perhaps others, and what it takes: a word in capitals, or choices in braces.
    rows = re.split(r"\n +(--[a-z][-a-z]*)(?:, --[-a-z]+)*", text)[1:]
    taken = r"^(?: +(?:N|X|[A-Z]{2,}|\{[^}]*\}\S*|\[.*\])(?=\s))*|\((?:default|required)[^)]*\)"
    return {name: re.sub(taken, "", rest).strip() for name, rest in zip(rows[::2], rows[1::2], strict=True)}


def test_there_are_programs():
    assert len(programs()) >= 15


@pytest.mark.parametrize("program", programs())
def test_every_option_of_every_program_says_what_it_is_for(program):
    silent = [name for name, text in described(program).items() if not text.strip()]
    assert silent == []


@pytest.mark.parametrize(
    ("program", "new", "old"),
    [
        ("decode.generate", "--out", "--output"),
        ("decode.trace", "--out", "--output"),
        ("train.label", "--reward", "--reward-model"),
        ("train.value_model", "--batch", "--batch-size"),
    ],
)
def test_one_thing_has_one_name_in_all_programs_and_its_old_one_still_works(program, new, old):
    args = importlib.import_module(program).Args
    needed = {
        "decode.generate": ["--policy", "p"],
        "decode.trace": ["r.jsonl"],
        "train.label": ["--input", "i", "--out", "o"],
        "train.value_model": ["--data", "d", "--base", "b", "--out", "o"],
    }[program]
    parsed = [tyro.cli(args, args=[*needed, name, "7"]) for name in (new, old)]
    assert parsed[0] == parsed[1]


@pytest.mark.parametrize("words", [["--help"], ["--frobnicate"]])
@pytest.mark.parametrize("program", [one.module for one in find_programs()])
def test_help_and_errors_name_a_command_that_can_be_run(program, words, monkeypatch, capsys):
    """As `python -m` starts it, which makes the program's own module `__main__`."""
    module = importlib.import_module(program)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", ModuleSpec(program, None))
    monkeypatch.setattr(sys, "argv", [module.__file__])
    with pytest.raises(SystemExit):
        read_options(module.Args, words)
    said = " ".join(re.sub(r"[│╭╮╰╯─]+", " ", "".join(capsys.readouterr())).split())
    assert f"python -m {program} " in said
    assert "/" + program.replace(".", "/") not in said


def test_what_is_none_of_the_programs_has_no_command(monkeypatch):
    for spec in (None, ModuleSpec("pytest.__main__", None), ModuleSpec("decode.__main__", None)):
        monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
        assert running_program() is None


def shown_commands() -> list[list[str]]:
    """The words of all commands in the pages and in the programs' own help."""
    shown = [words for page in PAGES for words in commands(page)]
    command = re.compile(r"(?:^|\| )\s*((?:sia|python -m (?:decode|train|configs)\.\w+) .*)$", re.MULTILINE)
    for one in find_programs():
        code = (ROOT / one.module.replace(".", "/")).with_suffix(".py").read_text()
        text = ast.get_docstring(ast.parse(code)) or ""
        lines = command.findall(text.replace("\\\n", " "))
        shown += [
            shlex.split(line, comments=True) for line in lines if "->" not in line and " ..." not in line
        ]
    return shown


def test_every_command_that_is_shown_is_one_that_its_program_takes():
    taken = set()
    for words in shown_commands():
        called = program_of(words)
        if called is None:
            assert words[0] != "sia", words
            assert words[:2] != ["python", "-m"] or words[2] in ("pytest", "tests.fuzz"), words
            continue
        program, options = called
        # Of the paper's many runs those that differ in values alone, all of which are texts, are read once.
        flags = (program.module, *(option for option in options if option.startswith("--")))
        if options == ["--help"] or (program.folder == "configs" and flags in taken):
            continue
        taken.add(flags)
        try:
            options_of(program, options)
        except SystemExit:
            pytest.fail(f"no such command: {shlex.join(words)}")
    assert len(taken) > 60
