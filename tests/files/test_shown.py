"""Whatever is in a foreign text, printed it is text."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sia_jax.files.shown import shown, shown_line

COMMANDS = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))} - {"\t", "\n"}
TURNS = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
texts = st.text(st.characters(exclude_categories=())) | st.text(st.sampled_from(sorted(COMMANDS | TURNS)))


@given(texts)
def test_nothing_that_is_shown_commands_the_terminal_or_turns_its_direction(text: str) -> None:
    assert not set(shown(text)) & (COMMANDS | TURNS)
    shown(text).encode()  # half a surrogate pair would raise


@given(texts)
def test_what_is_shown_once_stays_as_it_is(text: str) -> None:
    assert shown(shown(text)) == shown(text)


@given(st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp"))))
def test_a_text_without_commands_is_shown_as_it_is(text: str) -> None:
    assert shown(text + "\t\n") == text + "\t\n"


@given(texts, st.integers(1, 30))
def test_a_line_has_no_ends_of_lines_and_no_more_than_its_room(text: str, most: int) -> None:
    line = shown_line(text, most)
    assert len(line) <= most
    assert line == " ".join(line.split())
    assert len(line.splitlines()) <= 1


@pytest.mark.parametrize(
    ("text", "picture"),
    [
        ("\x1b[2J", "␛[2J"),
        ("a\rb", "a␍b"),
        ("\x7f", "␡"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\udc80", "\\udc80"),
        ("זה\u200f 👩\u200d🚀", "זה\u200f 👩\u200d🚀"),
    ],
)
def test_each_kind_of_command_has_a_picture(text: str, picture: str) -> None:
    assert shown(text) == picture


def test_every_control_character_of_unicode_is_a_command() -> None:
    everything = map(chr, range(0x110000))
    controls = {char for char in everything if unicodedata.category(char) == "Cc"} - {"\t", "\n"}
    assert controls == COMMANDS
