"""What every program's --help says."""

import importlib
import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import tyro

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
