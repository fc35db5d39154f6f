"""decode.chat with its turns and commands piped in."""

import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from decode import chat
from decode.chat import Args
from sia_jax import Engine, Policy, Request
from sia_jax.data.prompts import PromptLine
from sia_jax.engine.handle import EngineClosed, Piece
from sia_jax.engine.reply import Reply
from sia_jax.reports.terminal import ReplyStream
from sia_jax.runs import prompting, runner
from sia_jax.runs.console import Terminal
from sia_jax.text.forms import Prompting
from tests.reports.test_terminal import make_reply
from tests.support.checkpoints import save_tiny_policy
from tests.support.pairs import save_tiny_pair

Talk = Callable[..., str]
SUMMARY = re.compile(r"(\d+) tokens?, (\d+)% steered, (\d+) shifted, [\d.,]+ tok/s, (\w+)")


@pytest.fixture(scope="module")
def args(tmp_path_factory: pytest.TempPathFactory) -> Args:
    folder = tmp_path_factory.mktemp("models")
    save_tiny_pair(folder, max_position_embeddings=128)
    return Args(
        policy=str(folder / "policy"), value=str(folder / "value"), threshold=2.1, max_new_tokens=12, seed=3
    )


@pytest.fixture
def talk(args: Args, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Talk:
    """Say lines to the program; what it shows."""
    monkeypatch.setenv("COLUMNS", "140")

    def talk(*lines: str, **changes: object) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
        chat.main(replace(args, **changes))
        return capsys.readouterr().out

    return talk


class Said:
    """The handle of a request that was replied to at once.

    Args:
      error: what comes after the beginning of the reply; None: its end.
    """

    def __init__(self, error: BaseException | None = None):
        self.reply = make_reply(["An ", "egg."], junction=[True, False])
        self.error, self.cancelled = error, False

    def __iter__(self) -> Iterator[Piece]:
        if self.error is not None:
            raise self.error
        yield Piece("An egg.", 0, self.reply.record, self.reply)

    def result(self) -> Reply:
        return self.reply

    def cancel(self) -> None:
        self.cancelled = True


def replies(shown: str) -> list[tuple[str, ...]]:
    """(what stands above the summary, tokens, % steered, shifted, end) of each reply."""
    lines = shown.splitlines()
    found = [
        (lines[i - 1], match) for i, line in enumerate(lines) if (match := SUMMARY.fullmatch(line.strip()))
    ]
    return [(text, *match.groups()) for text, match in found]


def test_a_conversation_and_its_commands(talk: Talk) -> None:
    shown = talk(
        "/compare",
        "/candidates",
        "Hello",
        "/candidates",
        "/compare",
        "/reset",
        "/threshold inf",
        "Hello",
        "/candidates",
        "/reset",
        "/threshold 2.1",
        "Hello",
        "/seed 4",
        "/reset",
        "Hello",
        "/quit",
        "never said",
    )
    assert shown.count("there is no reply yet") == 2
    assert "never said" not in shown
    first, unsteered, again, other_seed = replies(shown)
    assert first == again
    assert int(first[1]) == 12
    assert int(first[2]) > 0
    assert unsteered[2:4] == ("0", "0")
    assert other_seed[0] != first[0]
    assert "candidates: token·policy·value" in shown
    assert "the last reply has no junctions" in shown
    assert "threshold inf" in shown
    # /compare shows the reply again, beside the one that is unsteered from the same random numbers
    table = shown[shown.index("steered, threshold 2.1, beta 1") :]
    assert unsteered[0].split()[0] in table
    assert f"{first[1]} tokens, {first[2]}% steered, {first[3]} shifted, {first[4]}" in table


def test_a_comparison_shows_the_last_reply_whatever_was_changed_since(talk: Talk) -> None:
    shown = talk("Hello", "/threshold inf", "/seed 9", "/compare", "/candidates", "/quit")
    ((_, count, steered, shifted, end),) = replies(shown)
    assert "steered, threshold 2.1, beta 1" in shown
    assert f"{count} tokens, {steered}% steered, {shifted} shifted, {end}" in shown[shown.index("beta 1") :]
    assert "candidates: token·policy·value" in shown


def test_a_turn_that_begins_with_a_slash_is_typed_with_two(talk: Talk) -> None:
    shown = talk("//etc", "/reset", "/etc", "/quit")
    assert len(replies(shown)) == 1
    assert "there is no /etc" in shown
    assert "is typed with two: //etc" in " ".join(shown.split())


def test_two_slashes_send_one(args: Args, monkeypatch: pytest.MonkeyPatch) -> None:
    talker = chat.Chat(args, runner.load_models(args), Terminal(quiet=True))
    talker.take("//etc")
    assert talker.messages[0] == {"role": "user", "content": "/etc"}


def test_ctrl_c_clears_the_line_and_the_conversation_goes_on(
    args: Args, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = iter([KeyboardInterrupt(), "/beta 2", KeyboardInterrupt(), EOFError()])

    def typed(*_: object) -> str:
        line = next(lines)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr(Terminal, "input", typed)
    chat.main(args)
    assert "beta 2" in capsys.readouterr().out
    assert next(lines, None) is None


def test_ctrl_c_drops_the_reply_that_is_being_written(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = talk("Hello", "/quit", max_new_tokens=64)
    push, calls = ReplyStream.push, 0

    def interrupted(self: ReplyStream, piece: Piece) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return push(self, piece)

    monkeypatch.setattr(ReplyStream, "push", interrupted)
    shown = talk("Hello", "/candidates", "Hello", "/quit", max_new_tokens=64)
    assert calls > 3
    beginning, rest = shown.split("dropped\n")
    assert "there is no reply yet" in rest
    ((whole, *counts),) = replies(shown)
    assert replies(plain) == [(whole, *counts)]
    assert whole.startswith(beginning.splitlines()[-1])
    assert beginning.endswith("\n")


def test_what_is_dropped_is_cancelled(args: Args, monkeypatch: pytest.MonkeyPatch) -> None:
    talker = chat.Chat(args, runner.load_models(args), Terminal(quiet=True))
    said = Said(KeyboardInterrupt())
    monkeypatch.setattr(Engine, "warmup", lambda *_, **__: None)
    monkeypatch.setattr(Engine, "submit", lambda *_: said)
    with pytest.raises(KeyboardInterrupt):
        talker.take("Hello")
    assert said.cancelled
    assert not talker.messages


def test_an_engine_that_failed_is_not_asked_again(args: Args, monkeypatch: pytest.MonkeyPatch) -> None:
    talker = chat.Chat(args, runner.load_models(args), Terminal(quiet=True))
    asked = []

    def submit(self: Engine, _: Request) -> Said:
        asked.append(self)
        failed = EngineClosed("it failed")
        failed.__cause__ = ZeroDivisionError("here")
        return Said(failed if len(asked) == 1 else None)

    monkeypatch.setattr(Engine, "warmup", lambda *_, **__: None)
    monkeypatch.setattr(Engine, "submit", submit)
    with pytest.raises(ZeroDivisionError, match="here"):
        talker.take("Hello")
    talker.take("Hello")
    assert asked[0] is not asked[1]


def test_numbers_compile_nothing_but_what_the_policy_reads_alone(
    args: Args, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed = []
    warmup = Engine.warmup

    def counted(self: Engine, requests: Sequence[Request], *, now: bool) -> None:
        warmed.append(requests)
        warmup(self, requests, now=now)

    monkeypatch.setattr(Engine, "warmup", counted)
    talker = chat.Chat(replace(args, stop=("e",)), runner.load_models(args), Terminal(quiet=True))
    for line in ("Hello", "/temperature 0", "/beta 2", "/seed 8", "/threshold 1", "/reset", "Hello"):
        talker.take(line)
    assert len(warmed) == 1
    for line in ("/compare", "/reset", "/threshold inf", "Hello", "/compare"):
        talker.take(line)
    assert len(warmed) == 2
    talker.take("Hello " * 6)  # a longer turn does
    assert len(warmed) == 3


def test_commands_that_need_no_reply(talk: Talk) -> None:
    shown = talk(
        "/nonsense",
        "/beta much",
        "/beta nan",
        "/temperature -1",
        "/temperature 0.5",
        "/seed 1.5",
        "",
        "/help",
    )
    assert "there is no /nonsense; /help lists the commands" in shown
    assert "/beta takes a number, got 'much'" in shown
    assert "beta must be a finite number, got nan" in shown
    assert "temperature must be 0 (greedy), or a finite number from 1e-30 on, got -1.0" in shown
    assert "/seed takes a number, got '1.5'" in shown
    assert "(now 0.5)" in shown
    assert "(now 2.1)" in shown
    assert "(now 3)" in shown
    assert not replies(shown)


def test_a_conversation_that_has_become_too_long(talk: Talk) -> None:
    shown = talk("Hello. " * 40, "/reset")
    assert "leave room for 116" in shown
    assert "/reset begins anew" in shown
    assert not replies(shown)
    shown = talk("Hello. " * 10, max_length=48)
    assert "--max-length 48 less --max-new-tokens 12 leaves room for 36; /reset begins anew" in " ".join(
        shown.split()
    )


def test_turns_are_kept(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    original = prompting.policy_ids

    def policy_ids(policy: Policy, prompt: PromptLine, args: Args, found: Prompting) -> Sequence[int]:
        seen.append([message["content"] for message in prompt.messages or ()])
        return original(policy, prompt, args, found)

    monkeypatch.setattr(prompting, "policy_ids", policy_ids)
    monkeypatch.setattr(Engine, "warmup", lambda *_, **__: None)
    monkeypatch.setattr(Engine, "submit", lambda *_: Said())
    shown = talk("Hello", "x" * 200, "And?", "/compare", "/reset", "Hello", system="Be brief.")
    assert seen[0] == ["Be brief.", "Hello"]
    assert seen[1] == [*seen[0], "An egg.", "x" * 200]  # too long: the turn is dropped
    assert seen[2] == [*seen[0], "An egg.", "And?"]
    assert seen[3:] == [seen[2], seen[0]]
    assert replies(shown) == [("An egg.", "2", "50", "0", "length")] * 3


def test_without_a_value_model(talk: Talk) -> None:
    shown = talk("/compare", "/threshold 1", value=None, threshold=None)
    assert "without a value model there is nothing to compare" in shown
    assert "needs a value model: give --value DIR" in shown
    assert "not steered" in shown


def test_a_comparison_is_with_the_policy_alone_whatever_the_gate(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = []

    def submit(self: Engine, _: Request) -> Said:
        alone.append(self.value is None)
        return Said()

    monkeypatch.setattr(Engine, "warmup", lambda *_, **__: None)
    monkeypatch.setattr(Engine, "submit", submit)
    shown = talk("/threshold 1", "Hello", "/compare", gate="~bernoulli(0)", threshold=None)
    assert alone == [False, True]
    assert "--threshold 1 is for a gate with entropy or budget in it" in " ".join(shown.split())
    assert "steered, gate ~bernoulli(0), beta 1" in shown


def test_errors_come_before_the_weights(args: Args, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = save_tiny_policy(tmp_path / "mute")
    assert policy.tokenizer is None
    for changes, message in (
        ({"policy": str(tmp_path / "mute"), "value": None, "threshold": None}, "has no tokenizer"),
        ({"policy": "/nowhere/policy"}, "no such folder"),
        ({"threshold": float("nan")}, "must not be NaN"),
        ({"gate": "entropy &"}, "--gate: the gate cannot be read at column 10"),
        ({"max_length": 12}, r"--max-length must lie in 13 \.\. 128"),
        ({"stop": ("a<|im_end|>",)}, "holds more than the special token"),
    ):
        with pytest.raises(SystemExit, match=f"decode.chat: .*{message}"):
            chat.main(replace(args, **changes))
