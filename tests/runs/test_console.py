"""Whatever is printed to the terminal of the programs is text, however it comes there."""

import io
import logging
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from sia_jax.runs.cli import program
from sia_jax.runs.console import Terminal

HOSTILE = "\x1b[2J[/b][bold]:smile:\x07\u202e"
SHOWN = "␛[2J[/b][bold]:smile:␇\\u202e"


def printed(how: str, text: str) -> str:
    """What comes of a text that is printed in one of the ways that programs print."""
    file = io.StringIO()
    console = Terminal(file=file, width=500)
    table = Table(title=text, caption=text)
    table.add_column(text)
    table.add_row(text)
    if how == "print":
        console.print(text)
    if how == "say":
        console.say(text)
    if how == "styled":
        console.print(Text(text, "bold"))
    if how == "table":
        console.print(table)
    if how == "rule":
        console.rule(text)
    if how == "status":
        console.print(console.status(text))
    if how == "progress":
        with Progress(TextColumn("{task.description}", markup=False), console=console) as progress:
            progress.add_task(text)
    return file.getvalue()


WAYS = ["print", "say", "styled", "table", "rule", "status", "progress"]


@pytest.mark.parametrize("how", WAYS)
def test_no_way_of_printing_lets_a_command_or_markup_through(how: str) -> None:
    text = printed(how, HOSTILE)
    assert "[/b][bold]:smile" in text
    assert not set("\x1b\x07\u202e") & set(text)


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_can_be_said(text: str) -> None:
    said = printed("say", text)
    said.encode()
    assert not set(map(chr, range(0x20))) - {"\t", "\n"} & set(said)


def test_warnings_and_logs_of_a_program_are_lines_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    before = warnings.formatwarning
    with program("it"):
        line = warnings.formatwarning(HOSTILE, UserWarning, "a file", 1)
        logging.getLogger("sia_jax.files.lock").warning("%s", HOSTILE)
    assert line == f"it: warning: {SHOWN}\n"
    assert capsys.readouterr().err == f"it: {SHOWN}\n"
    assert warnings.formatwarning is before


def test_ctrl_c_is_a_message_and_130(capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> None:
        with program("it", interrupted=lambda: f"kept in {HOSTILE}"):
            raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 130
    assert capsys.readouterr().err == f"\nkept in {SHOWN}\n"


def test_an_error_is_a_message_and_1_with_nothing_that_commands() -> None:
    with pytest.raises(SystemExit) as end, program("it"):
        raise ValueError(HOSTILE)
    assert end.value.code == f"it: {SHOWN}"
