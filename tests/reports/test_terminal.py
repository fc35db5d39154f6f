"""What a reply looks like in a terminal: styles, counts, and nothing that commands it."""

from collections.abc import Sequence

import numpy as np
import pytest
from rich.console import Console
from rich.text import Text

from sia_jax.decoding.state import FinishReason
from sia_jax.engine.reply import Reply, Usage, json_numbers
from sia_jax.files.shown import shown
from sia_jax.reports.terminal import (
    JUNCTION,
    SHIFTED,
    ReplyStream,
    Tally,
    candidates_table,
    reply_text,
    side_by_side,
    summary,
)
from sia_jax.runs.progress import rate
from sia_jax.steering.types import CandidateRecord, TokenRecord
from tests.support.engines import make_engine, random_requests, tokenizer


def make_reply(
    pieces: Sequence[str],
    junction: Sequence[bool],
    shifted: Sequence[bool] | None = None,
    candidates: CandidateRecord | None = None,
) -> Reply:
    """A reply of these pieces, whose numbers are zero."""
    t = len(pieces)
    numbers = np.zeros(t, np.float32)
    shifted = np.array([False] * t if shifted is None else shifted)
    record = TokenRecord(
        tokens=np.arange(t),
        junction=np.array(junction),
        shifted=shifted,
        entropy=numbers,
        policy_logprob=numbers,
        logprob=numbers,
        value=np.where(junction, numbers, np.nan),
        contenders=10 * np.array(junction),
        values_read=10 * np.array(junction),
        candidates=candidates,
    )
    usage = Usage(3, t, sum(junction), int(shifted.sum()), 9, 0, 10 * sum(junction), sum(junction))
    reply = Reply("".join(pieces), FinishReason.LENGTH, record, usage)
    vars(reply)["pieces"] = list(pieces)  # of a tokenizer that is not there
    return reply


def test_styles() -> None:
    reply = make_reply(["An ", "[bold]egg[/bold]", ".\x1b[2J"], [False, True, True], [False, False, True])
    text = reply_text(reply)
    assert text.plain == "An [bold]egg[/bold].␛[2J"
    assert [(text.plain[s.start : s.end], s.style) for s in text.spans] == [
        ("[bold]egg[/bold]", JUNCTION),
        (".␛[2J", SHIFTED),
    ]


def test_a_reply_that_is_being_written_looks_as_when_it_is_whole() -> None:
    requests = random_requests(48)
    early = split = cut = 0
    with make_engine(steps=3) as engine:
        for request in requests:
            stream, shown = ReplyStream(tokenizer()), Text()
            for piece in engine.stream(request):
                part = stream.push(piece)
                early += piece.reply is None and bool(part.plain)
                split += piece.reply is None and "\ufffd" in part.plain
                shown.append(part)
            reply = piece.reply
            assert reply is not None
            cut += reply.stop_string is not None
            assert styled(shown) == styled(reply_text(reply))
    assert early > 48
    assert cut > 8
    assert split


def styled(text: Text) -> list[tuple[str, str]]:
    """Each character with its style."""
    styles = [""] * len(text.plain)
    for span in text.spans:
        styles[span.start : span.end] = [str(span.style)] * (span.end - span.start)
    return list(zip(text.plain, styles, strict=True))


def test_control_characters_become_pictures() -> None:
    assert shown("a\tb\nc") == "a\tb\nc"
    assert shown("\x1b]0;title\x07\r\x7f\x9b") == "␛]0;title␇␍␡\\x9b"


def test_counts() -> None:
    reply = make_reply(["a", "b", "c", "d"], [True, False, True, False], [True, False, False, False])
    assert summary(reply, 0.5) == "4 tokens, 50% steered, 1 shifted, 8.0 tok/s, length"
    assert summary(reply, steered=False) == "4 tokens, length"
    assert summary(make_reply([], [])) == "0 tokens, 0% steered, 0 shifted, length"
    tally = Tally()
    assert tally.describe() == "0 tokens, 0% steered, 0 shifted"
    tally.add([reply, reply], 2.0)
    tally.add([reply], 1.0)
    assert tally.describe() == "12 tokens, 50% steered, 3 shifted, 4.0 tok/s"
    assert [rate(x) for x in (0.123, 1.26, 12.6, 12345.6)] == ["0.12", "1.3", "13", "12,346"]


def test_json_numbers() -> None:
    array = np.array([[0.1, np.nan], [-np.inf, 2]], np.float32)
    assert json_numbers(array) == [[0.1, None], [None, 2.0]]
    assert json_numbers(np.array([True, False])) == [True, False]


def test_candidates() -> None:
    record = CandidateRecord(
        ids=np.array([[0, 5, 6, 7], [8, 9, 1, 5]]),
        logits=np.log(np.array([[0.5, 0.25, 0.125, 0.125]] * 2)),
        values=np.array([[0.5, -1, 0, 2], [np.nan] * 4]),
        policy_logprobs=np.log(np.array([[0.4, 0.2, 0.1, 0.1]] * 2)),
        logprobs=np.log(np.array([[0.2, 0.1, 0.1, 0.6]] * 2)),
        policy_choice=np.array([7, 1]),
        kl=np.zeros(2),
    )
    reply = make_reply(["a", "b"], [True, False], [True, False], record)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(candidates_table(reply, lambda token: f" <{token}>", most=1))
    shown = capture.get()
    assert "␣<0>·50%·+0.50   ␣<7>·13%·+2.00" in shown  # the chosen one and the policy's own are always there
    assert "<6>" not in shown
    assert "<9>" not in shown
    with pytest.raises(ValueError, match="were not recorded"):
        candidates_table(make_reply(["a"], [True]), str)


def test_side_by_side() -> None:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(
            side_by_side(make_reply(["x"], [False]), make_reply(["y"], [True]), ("base", "steered"))
        )
    shown = capture.get()
    assert "1 token, length" in shown
    assert "1 token, 100% steered, 0 shifted, length" in shown
