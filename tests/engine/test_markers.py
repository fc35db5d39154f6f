"""Markers of gates in the prompts of a run, and as the ids of its policy."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sia_jax
from sia_jax.engine.job import make_job
from sia_jax.engine.markers import is_read, marker_in_prompt, with_markers
from sia_jax.runs import runner
from sia_jax.runs.options import SamplingArgs
from sia_jax.steering.gates import After, Budget, Entropy, Position
from sia_jax.text.tokenizer import exact_ids
from tests.support.checkpoints import tiny_config
from tests.support.engines import STEERING, make_engine
from tests.support.replying import generation_args, save_models
from tests.support.tokenizers import save_qwen3_tokenizer

ARGS = SamplingArgs(policy="P", value="V", max_new_tokens=8)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> sia_jax.Policy:
    tokenizer = save_qwen3_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return sia_jax.Policy(replace(tiny_config(), vocab_size=352), {}, tokenizer, "P")


@pytest.mark.parametrize(
    ("ids", "marker", "has"),
    [
        ([1, 7, 2], (7,), True),
        ([1, 7, 2], (8,), False),
        ([7, *[1] * 16], (7,), True),
        ([7, *[1] * 17], (7,), False),
        ([7, 8, *[1] * 16], (7, 8), True),
        ([7, 8, *[1] * 17], (7, 8), False),
        ([1, 7], (7, 8), False),
        ([7, 7, 8], (7, 8), True),
        ([7], (7, 8), False),
        ([], (7,), False),
        (np.array([1, 7, 8], np.int32), (7, 8), True),
    ],
)
def test_a_prompt_has_the_marker_near_its_end(ids: Any, marker: tuple[int, ...], has: bool) -> None:
    assert marker_in_prompt(ids, marker) is has


def test_every_after_of_a_gate_is_told_which_prompts_have_its_marker() -> None:
    gate = (Entropy() & ~After((7,))) | (After((7, 8)) & Budget(0.2))
    found = with_markers(gate, [[1], [7, 1], [7, 8]])
    assert isinstance(found, type(gate))
    np.testing.assert_array_equal(found.left.right.inner.started, [0, 1, 1])
    np.testing.assert_array_equal(found.right.left.started, [0, 0, 1])
    np.testing.assert_array_equal(with_markers(After((7,), started=1), [[1], [7]]).started, [1, 1])
    for other in (Entropy(), Entropy() & ~Position(3)):
        assert with_markers(other, [[1], [7]]) == other


@pytest.mark.parametrize("thinking", [False, True])
def test_a_template_without_thinking_brings_the_marker(policy: sia_jax.Policy, thinking: bool) -> None:
    messages = [{"role": "user", "content": "Think of </think> for a while."}]
    ids = policy.prompt_ids(messages, "chat", enable_thinking=thinking)
    (end,) = exact_ids(policy.tokenizer, "</think>")
    assert end in ids
    assert marker_in_prompt(ids[ids.index(policy.tokenizer.eos_token_id) :], (end,)) is not thinking


def test_a_marker_in_words_is_read_by_the_policys_tokenizer(policy: sia_jax.Policy) -> None:
    args = replace(ARGS, gate='entropy & after("</think>\\n")')
    gate = runner.steering(args, policy).gate
    assert gate == Entropy() & After(tuple(exact_ids(policy.tokenizer, "</think>\n")))
    assert is_read(gate)


def test_before_there_is_a_tokenizer_all_else_is_checked_and_nothing_can_be_run(
    policy: sia_jax.Policy,
) -> None:
    args = replace(ARGS, gate='entropy & after("</think>")')
    runner.check_options(args)
    unread = runner.steering(args)
    assert not is_read(unread.gate)
    with pytest.raises(ValueError, match=r"the ids of After must lie in 0 \.\. 351"):
        sia_jax.SamplerConfig(policy=policy.config, steering=unread)
    for gate, said in (
        ('entropi & after("a")', "called entropi"),
        ('entropy & after("a)', "at column 17"),
        ("after(-1)", "--gate: .*got -1"),
    ):
        with pytest.raises(ValueError, match=said):
            runner.check_options(replace(args, gate=gate))
    with pytest.raises(ValueError, match=r"--threshold 1 is for .*, got --gate 'after\(\"a\"\)'"):
        runner.check_options(replace(args, gate='after("a")', threshold=1.0))


def test_what_the_policy_cannot_say_is_refused_with_the_remedy(policy: sia_jax.Policy) -> None:
    args = replace(ARGS, gate='after("</think>")')
    with pytest.raises(ValueError, match=r"--gate: .* ids, as in after\(151668\): there is no tokenizer"):
        runner.check_numbers(args, replace(policy, tokenizer=None))
    with pytest.raises(ValueError, match=r"the ids of After must lie in 0 .. 351 .*, got \(352,\)"):
        runner.check_numbers(replace(args, gate="after(352)"), policy)
    runner.check_numbers(replace(args, gate="after(351)"), replace(policy, tokenizer=None))


def test_a_marker_is_a_setting_of_the_run_in_ids(tmp_path: Path) -> None:
    save_models(tmp_path)
    args = replace(generation_args(tmp_path), gate='entropy&after( "</think>" )')
    written = runner.run_identity(args)["gate"]
    assert written == f"entropy & after({runner.prepare(args).tokenizer.convert_tokens_to_ids('</think>')})"
    assert runner.run_identity(replace(args, gate=written))["gate"] == written


def test_an_engine_knows_of_each_request_whether_its_prompt_has_the_marker() -> None:
    steering = replace(STEERING, gate=Entropy() & After((7, 8)))
    with make_engine(steering=steering) as engine:
        started = [
            float(make_job(sia_jax.Request(prompt_ids=ids), engine._terms).numbers.gate.right.started[0])
            for ids in ([1, 7, 8, 2], [1, 7, 2], [7, 8, *[1] * 20])
        ]
    assert started == [1, 0, 0]
