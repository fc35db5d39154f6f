"""The parts of the server's page that need no page: foreign texts, events out of bytes, numbers."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sia_jax.files.shown import shown as shown_in_a_terminal
from tests.support.page_in_node import LACKING, escaped, hidden, run_page
from tests.support.page_server import HOSTILE_TEXTS

pytestmark = pytest.mark.skipif(LACKING, reason="Node.js is not here")

Run = Callable[[str], Any]


@pytest.fixture
def alone(tmp_path: Path) -> Run:
    return lambda steps: run_page(tmp_path, steps, None)


def test_every_character_that_is_not_seen_is_shown_and_no_other(alone: Run) -> None:
    found = alone(
        """const {shown} = await import("./shown.js");
        const ranges = [];
        for (let code = 0; code < 0x110000; code++) {
          const text = String.fromCodePoint(code);
          if (shown(text) === text) continue;
          if (ranges.length && ranges.at(-1)[1] === code - 1) ranges.at(-1)[1] = code;
          else ranges.push([code, code]);
        }
        return ranges;"""
    )
    changed = {code for low, high in found for code in range(low, high + 1)}
    assert changed == {code for code in range(0x110000) if hidden(code)}
    terminal = {code for code in range(0x110000) if shown_in_a_terminal(chr(code)) != chr(code)}
    assert terminal <= changed


def test_what_is_shown_of_a_text_is_what_an_oracle_says(alone: Run) -> None:
    texts = [*HOSTILE_TEXTS, "a\ud83db", "\udc80"]
    steps = f'const {{shown}} = await import("./shown.js"); return {json.dumps(texts)}.map(shown);'
    assert alone(steps) == [escaped(text) for text in texts]


EVENTS = [
    '{"a": "é😀 שלום"}',
    "two\nlines",
    "",
    "x: y",
    " leading",
    "[DONE]",
]


def stream_of(newline: str) -> bytes:
    frames = ["\ufeff" + f": a comment{newline}event: x{newline}"]
    for data in EVENTS:
        frames.append("".join(f"data: {line}{newline}" for line in data.split("\n")) + newline)
    frames.append(f"retry: 5{newline}{newline}data:no space{newline}{newline}data: without an end{newline}")
    return "".join(frames).encode()


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
def test_events_are_the_same_however_the_bytes_are_cut(alone: Run, newline: str) -> None:
    stream = stream_of(newline)
    found = alone(
        f"""const {{EventReader}} = await import("./events.js");
        const bytes = Uint8Array.from({list(stream)});
        const read = cuts => {{
          const reader = new EventReader();
          const events = [];
          let start = 0;
          for (const end of [...cuts, bytes.length]) {{
            events.push(...reader.push(bytes.slice(start, end)));
            start = end;
          }}
          return JSON.stringify([...events, ...reader.end()]);
        }};
        const whole = read([]);
        const other = [];
        for (let size = 1; size < 40; size++) {{
          const cuts = [];
          for (let at = size; at < bytes.length; at += size) cuts.push(at);
          if (read(cuts) !== whole) other.push(size);
        }}
        for (let at = 0; at <= bytes.length; at++) if (read([at]) !== whole) other.push([at]);
        return [JSON.parse(whole), other];"""
    )
    assert found == [[*EVENTS, "no space"], []]


def test_an_event_without_end_is_refused_before_it_fills_the_memory(alone: Run) -> None:
    assert (
        alone(
            """const {EventReader} = await import("./events.js");
        const big = new TextEncoder().encode("data: " + "x".repeat(1 << 20));
        const said = [];
        for (const line of ["", "\\n"]) {
          const reader = new EventReader();
          const more = new TextEncoder().encode(line);
          try {
            for (let i = 0; i < 10; i++) { reader.push(big); reader.push(more); }
            said.push("nothing");
          } catch (error) { said.push(error.message); }
        }
        return said;"""
        )
        == ["an event has over 4194304 characters"] * 2
    )


def test_who_stops_listening_lets_go_of_the_connection(alone: Run) -> None:
    assert alone(
        """const {eventsOf} = await import("./events.js");
        let gone = false;
        const stream = new ReadableStream({
          pull(to) { to.enqueue(new TextEncoder().encode("data: x\\n\\n")); },
          cancel() { gone = true; },
        });
        for await (const data of eventsOf(stream)) break;
        return gone;"""
    )


def test_the_slider_of_the_threshold_rises_and_reads_back_what_it_wrote(alone: Run) -> None:
    values, back, off, dense = alone(
        """const {NUMBERS} = await import("./settings.js");
        const {scale, read, write} = NUMBERS.threshold;
        const places = [...Array(102).keys()];
        const values = places.map(place => scale.value(place));
        const back = values.map(value => scale.place(read(write(value))));
        return [values, back, scale.place("inf"), scale.place("-inf")];"""
    )
    assert values[0] == 0
    assert values[100] == 4
    assert values[101] == "inf"
    assert all(a < b for a, b in pairwise(values[:101]))
    assert all(v == pytest.approx(4 * (p / 100) ** 3, rel=5e-3) for p, v in enumerate(values[:101]))
    assert back == list(range(102))
    assert (off, dense) == (101, 0)


def test_a_number_that_is_none_is_refused_with_what_goes_there(alone: Run) -> None:
    said = alone(
        """const {NUMBERS} = await import("./settings.js");
        const tried = {threshold: ["-1", "x", "1e400", "0x10", "NaN"], beta: ["", "-2", "1,5", "Infinity"],
          temperature: ["2.1", "-0.1"], tokens: ["0", "1.5", "1000001"], seed: ["-1", "4294967296", "1e3"]};
        const said = [];
        for (const [name, texts] of Object.entries(tried)) for (const text of texts) {
          try { said.push(`${name} took ${text}: ${NUMBERS[name].read(text)}`); }
          catch (error) { said.push(error.message); }
        }
        return said;"""
    )
    assert all(" here" in message for message in said), said
