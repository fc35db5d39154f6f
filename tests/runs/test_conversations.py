"""Conversations go on in the row that holds them, and say what an engine says that reads each turn whole."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import sia_jax
from sia_jax.decoding import window as programs
from sia_jax.decoding.window import keepable
from sia_jax.engine.reply import Reply
from sia_jax.runs import partner as partners
from sia_jax.runs import runner
from sia_jax.runs.options import Models, SamplingArgs
from sia_jax.runs.partner import Partner
from tests.support.engines import assert_same, is_beginning
from tests.support.pairs import save_tiny_pair

SHORT, LENGTH = 256, 512
"""Tokens of the rows that conversations begin in, and of the longest."""
REPLY = 8
FIRST = "Hello. Where do eggs come from, and which came first: the hen, or the egg that it came from?"
"""More than one buffer of what is new holds."""
Messages = list[dict[str, str]]


@pytest.fixture(scope="module")
def args(tmp_path_factory: pytest.TempPathFactory) -> SamplingArgs:
    folder = tmp_path_factory.mktemp("models")
    save_tiny_pair(folder, max_position_embeddings=LENGTH)
    folders: dict[str, Any] = {name: str(folder / name) for name in ("policy", "value")}
    return SamplingArgs(**folders, threshold=2.1, max_new_tokens=REPLY, temperature=0.0, seed=3)


@pytest.fixture(scope="module")
def models(args: SamplingArgs) -> Models:
    return runner.load_models(args)


@pytest.fixture(scope="module")
def plain(models: Models, args: SamplingArgs) -> Iterator[sia_jax.Engine]:
    """An engine without caching, of one program for all prompts."""
    policy, value = models.policy, models.value
    sizes: dict[str, Any] = {"rows": 1, "lengths": (LENGTH,), "max_length": LENGTH, "prompt_lengths": []}
    structure = runner.steering(args, policy)
    with sia_jax.Engine(policy, value, **sizes, steering=structure, record="candidates", steps=4) as engine:
        yield engine


class Talk:
    """A conversation with a partner, each turn of which is held against an engine without caching."""

    def __init__(self, models: Models, args: SamplingArgs, plain: sia_jax.Engine):
        self.partner = Partner(models, args)
        self.args, self.plain = args, plain
        self.messages: Messages = []
        self.compiled = 0
        """Turns that said that they compile."""
        self.held: list[int] = []
        """Ids of the policy's prompt and reply in the row."""

    def say(self, text: str, *, alone: bool = False, **numbers: Any) -> Reply:
        """A turn, and its reply; of the policy alone, it leaves the conversation as it is."""
        turns = [*self.messages, {"role": "user", "content": text}]
        reply = self.ask(turns, alone=alone, **numbers)
        if not alone:
            self.messages = [*turns, {"role": "assistant", "content": reply.text}]
        return reply

    def ask(
        self, turns: Messages, *, alone: bool = False, pieces: int | None = None, **numbers: Any
    ) -> Reply:
        """The reply to a conversation, which is left after so many pieces."""
        request = self.partner.request(turns, replace(self.args, **numbers), alone=alone)
        with self.partner.asked(request, self.compiling, alone=alone) as handle:
            before = compiled_programs()
            if pieces is not None:
                for _piece, _ in zip(handle, range(pieces), strict=False):
                    pass
                handle.cancel()
            reply = handle.result()
        assert compiled_programs() == before  # nothing was compiled that was not said
        whole = self.plain.generate(request)
        if pieces is None:
            assert_same(reply, whole)
        else:
            assert is_beginning(reply, whole)
        self.held = [*(request.prompt_ids or ()), *reply.tokens.tolist()]
        return reply

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        before = compiled_programs()
        yield
        self.compiled += 1
        # One reads the turn, and with the first of a length comes that which writes.
        assert compiled_programs() - before <= 1 + (self.compiled == 1)

    def keeps(self, text: str) -> int:
        """Ids of the next turn's prompt that the row holds."""
        turns = [*self.messages, {"role": "user", "content": text}]
        ids = self.partner.request(turns, self.args).prompt_ids
        assert ids is not None
        return keepable(len(self.held) - 1, self.held, ids)

    @property
    def reused(self) -> int:
        """Ids of prompts that were not read so far."""
        return self.partner.engine().statistics().reused_tokens


@pytest.fixture
def talk(
    models: Models, args: SamplingArgs, plain: sia_jax.Engine, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Talk]:
    monkeypatch.setattr(partners, "_SHORTEST_ROW", SHORT)
    one = Talk(models, args, plain)
    with contextlib.closing(one.partner):
        yield one


def compiled_programs() -> int:
    """Of admissions and windows, in this process."""
    return sum(f._cache_size() for f in (programs._admit, programs._extend, programs._window))


def test_turns_read_only_what_is_new_and_compile_once(talk: Talk) -> None:
    assert talk.say(FIRST).num_junctions
    for text in ("Why?", "And then?", "Since when?"):
        held, before = talk.keeps(text), talk.reused
        assert held >= 64
        talk.say(text)
        assert talk.reused - before == held
    assert talk.compiled == 2  # what reads the first turn whole, and what reads the rest of another


def test_thresholds_change_between_turns_and_comparisons_come_between(talk: Talk) -> None:
    talk.say(FIRST)
    assert not talk.ask(talk.messages[:-1], alone=True).num_junctions
    talk.say("Why?", threshold=math.inf)  # the value model reads neither this turn nor its reply
    assert talk.say("So?", threshold=-math.inf).num_junctions == REPLY
    talk.ask(talk.messages[:-1], alone=True)
    before = talk.reused
    talk.say("Then?", threshold=1.5, temperature=0.7, beta=2.0)
    assert talk.reused - before >= 64


def test_replies_that_are_dropped_are_asked_again_and_turns_are_taken_back(talk: Talk) -> None:
    talk.say(FIRST)
    turns: Messages = [*talk.messages, {"role": "user", "content": "Why?"}]
    for pieces in (0, 1):
        talk.ask(turns, pieces=pieces, max_new_tokens=64)
    before = talk.reused
    talk.ask(turns)
    assert talk.reused - before >= 64
    talk.ask([*turns[:-1], {"role": "user", "content": "Who?"}], pieces=1, max_new_tokens=64)
    talk.messages = []
    talk.say(FIRST.replace("egg that it came from", "egg"))


@pytest.mark.long
def test_a_text_that_ends_a_reply_is_not_of_the_next_turn(talk: Talk) -> None:
    whole = talk.say(FIRST).text
    talk.messages = []
    cut = talk.say(FIRST, stop=(whole[len(whole) // 2],))
    assert cut.stop_string
    before = talk.reused
    talk.say("Why?")
    assert talk.reused - before >= 64


@pytest.mark.long
def test_another_system_prompt_is_read(talk: Talk) -> None:
    for system in ("Be brief, and true.", "Be true, and brief."):
        talk.messages = [{"role": "system", "content": system}, *talk.messages[-2:]]
        talk.say(FIRST)
        talk.say("Why?")


@pytest.mark.long
def test_a_conversation_that_outgrows_its_row_goes_on_in_a_longer_one(talk: Talk) -> None:
    assert talk.partner.engine().lengths == (SHORT, LENGTH)
    talk.say(FIRST)
    reused = []
    while len(talk.held) < SHORT + 64:
        before = talk.reused
        talk.say("Why?")
        reused.append(talk.reused - before)
    assert reused.count(0) == 1  # the first turn in the longer row
    assert reused[-1] > 0
