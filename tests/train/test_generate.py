"""train.prepare --generate on a tiny policy: what is sampled, what the records hold, what is refused."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tyro

import sia_jax
from sia_jax.data.records import read_records
from sia_jax.text.chat import value_prompt
from sia_jax.text.markup import CHATML
from tests.support.checkpoints import save_tiny_policy, tiny_policy
from tests.support.generating import (
    LENGTH,
    QUESTIONS,
    STOPS,
    N,
    plain,
    replies,
    report_of,
    save_policies_and_prompts,
    usual_args,
    vary,
    write_lines,
)
from tests.support.tokenizers import LLAMA3_TEMPLATE, save_llama3_tokenizer
from train import prepare
from train.generation import GenerationArgs
from train.prepare import Args


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save_policies_and_prompts(folder)
    return folder


@pytest.fixture(scope="module")
def args(folder: Path) -> Args:
    return usual_args(folder)


@pytest.fixture(scope="module")
def finished(args: Args, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an uninterrupted run has written."""
    out = tmp_path_factory.mktemp("finished") / "set"
    prepare.main(vary(args, out))
    return out


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads weights fails."""

    def load(*args: Any, **options: Any) -> None:
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr(sia_jax, "load_policy", load)


def stopped(args: Args) -> str:
    """The message that the program ends with."""
    with pytest.raises(SystemExit) as exit_:
        prepare.main(args)
    assert isinstance(exit_.value.code, str)
    return exit_.value.code


# What is sampled


def test_the_ids_are_those_of_sampling_each_prompt_alone_with_its_key(args: Args, finished: Path) -> None:
    policy = sia_jax.load_policy(args.sampling.policy or "")
    config = sia_jax.SamplerConfig(policy=policy.config, max_new_tokens=LENGTH)
    seen = 0
    for question, found in replies(finished).items():
        ids = policy.prompt_ids([{"role": "user", "content": question}])
        digest = hashlib.sha256(np.array(ids, "<i4").tobytes()).digest()
        key = jax.random.key(5, impl="threefry2x32")
        for word in (digest[:4], digest[4:8]):
            key = jax.random.fold_in(key, np.uint32(int.from_bytes(word, "big")))
        for branch, tokens in enumerate(found):
            samples = sia_jax.sample(
                sia_jax.SteeringParams(policy.params),
                sia_jax.Prompt.pack([ids]),
                math.inf,
                rng_key=jax.random.fold_in(key, branch)[None],
                config=config,
            )
            assert tokens == samples.tokens[0, : samples.lengths[0]].tolist()
            seen += 1
    assert seen == N * len(QUESTIONS)


def test_the_replies_to_a_prompt_are_draws_of_their_own(finished: Path) -> None:
    found = replies(finished)
    assert list(found) == list(QUESTIONS)
    assert len({tuple(ids) for draws in found.values() for ids in draws}) == N * len(QUESTIONS)


def test_neither_the_batch_nor_the_order_nor_the_neighbours_change_a_reply(
    args: Args, folder: Path, finished: Path, tmp_path: Path
) -> None:
    reverse = write_lines(tmp_path / "reverse.jsonl", [{"prompt": q} for q in reversed(QUESTIONS[1:])])
    prepare.main(vary(args, tmp_path / "reverse", input=reverse))
    prepare.main(vary(args, tmp_path / "alone", batch=1))
    prepare.main(vary(args, tmp_path / "once", batch=1, generate=1))
    whole = replies(finished)
    found = replies(tmp_path / "reverse")
    assert list(found) == list(reversed(QUESTIONS[1:]))
    assert found == {question: whole[question] for question in QUESTIONS[1:]}
    assert replies(tmp_path / "alone") == whole
    assert replies(tmp_path / "once") == {question: draws[:1] for question, draws in whole.items()}


def test_another_seed_and_temperature_make_other_replies(args: Args, finished: Path, tmp_path: Path) -> None:
    whole = replies(finished)
    for name, changes in {"seed": {"seed": 6}, "temperature": {"temperature": 0.3}}.items():
        prepare.main(vary(args, tmp_path / name, **changes))
        found = replies(tmp_path / name)
        assert sum(found[q][j] != whole[q][j] for q in QUESTIONS for j in range(N)) > 10
    prepare.main(vary(args, tmp_path / "greedy", temperature=0.0))
    assert all(draws == draws[:1] * N for draws in replies(tmp_path / "greedy").values())


# What the records hold


def test_a_record_has_the_prompt_and_the_reply_as_text_and_ids(args: Args, finished: Path) -> None:
    policy = sia_jax.load_policy(args.sampling.policy or "")
    records = list(read_records(finished))
    assert [record.id for record in records] == [
        f"{name}:{j}" for name in ("egg", *(f"prompts.jsonl:{n}" for n in (2, 3, 7, 10))) for j in (1, 2, 3)
    ]
    assert len({record.group for record in records}) == len(QUESTIONS)
    assert {record.group for record in records[9:12]} == {"dates"}
    for record in records:
        *prompt, reply = record.messages
        assert record.prompt_ids.tolist() == policy.prompt_ids(prompt)
        assert reply["content"] == policy.tokenizer.decode(record.reply_ids, skip_special_tokens=True)
        assert record.reward is None


def test_a_reply_that_was_cut_has_no_stop_token_and_is_counted(
    args: Args, finished: Path, tmp_path: Path
) -> None:
    records = list(read_records(finished))
    cut = [not np.isin(record.reply_ids, STOPS).any() for record in records]
    assert 0 < sum(cut) < len(cut)
    for record, is_cut in zip(records, cut, strict=True):
        assert not np.isin(record.reply_ids[:-1], STOPS).any()
        assert len(record.reply_ids) == LENGTH or not is_cut
    assert report_of(finished)["cut"] == sum(cut)
    exported = tmp_path / "replies.jsonl"
    prepare.main(vary(args, tmp_path / "set", export_conversations=str(exported)))
    lines = [json.loads(line) for line in exported.read_text().splitlines()]
    assert [line["complete"] for line in lines] == [not is_cut for is_cut in cut]


def test_records_for_steering_have_the_value_models_prompts(
    args: Args, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare.main(vary(args, tmp_path / "policy"))
    said = plain(capsys.readouterr().err)
    assert "to steer there leave out --record-prompt policy" in said
    assert said.count("prompt form: chat, the checkpoint's template (the checkpoint has one)") == 1
    assert report_of(tmp_path / "policy")["generation"]["prompt_form"] == "chat"
    exported = tmp_path / "official.json"
    prepare.main(vary(args, tmp_path / "value", record_prompt="value", export_official=str(exported)))
    assert "--record-prompt" not in capsys.readouterr().err
    tokenizer = sia_jax.load_policy(args.sampling.policy or "").tokenizer
    for ours, theirs in zip(read_records(finished), read_records(tmp_path / "value"), strict=True):
        assert theirs.prompt_ids.tolist() == value_prompt(tokenizer, ours.messages[:-1], CHATML)
        assert theirs.reply_ids.tolist() == ours.reply_ids.tolist()
    rows = json.loads(exported.read_text())
    assert [row["rm_prompt"] for row in rows] == [
        tokenizer.decode(record.prompt_ids) for record in read_records(tmp_path / "value")
    ]


def test_the_report_counts_prompts_and_says_what_was_left_out(finished: Path) -> None:
    report = report_of(finished)
    assert report["prompts"] == {"found": 9, "repeated": 2, "kept": 5}
    assert (report["kept"], report["groups"], report["with_reward"]) == (15, 5, 0)
    assert report["rejected"] == {
        "empty prompt": {"count": 1, "first": ["prompts.jsonl, line 5"]},
        "not a conversation": {"count": 1, "first": report["rejected"]["not a conversation"]["first"]},
        "prompt of more than 88 tokens, which leaves no room for a reply": {
            "count": 1,
            "first": ["prompts.jsonl, line 6"],
        },
        "prompt of more than 244 tokens, which leaves no room for a reply": {
            "count": 1,
            "first": ["prompts.jsonl, line 11"],
        },
    }
    assert report["rejected"]["not a conversation"]["first"][0].startswith("prompts.jsonl, line 8 (")
    made = report["generation"]
    assert (made["policy"], made["replies"], made["seed"], made["max_new_tokens"]) == ("policy", N, 5, LENGTH)
    assert made["stop_ids"] == list(STOPS)
    assert (report["tokenizer"], report["record_prompt"]) == ("policy", "policy")
    assert read_records(finished).meta["generation"] == made


def test_the_summary_counts_prompts_and_cut_replies(
    args: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare.main(vary(args, tmp_path / "set", limit=2))
    shown = capsys.readouterr()
    out = plain(shown.out)
    assert "kept 6 replies to 2 prompts, where --limit stopped" in out
    assert "prompts in the input 2, 0 of them repetitions" in out
    assert f"replies cut by length {report_of(tmp_path / 'set')['cut']}, " in out
    assert "6 sampled, " in shown.err
    assert " replies/s, " in shown.err


def test_a_policy_whose_logits_are_not_finite_says_so(args: Args, folder: Path, tmp_path: Path) -> None:
    policy = sia_jax.load_policy(folder / "policy")
    own, *others = (
        set(policy.prompt_ids([{"role": "user", "content": question}])) for question in reversed(QUESTIONS)
    )
    token = min(own.difference(*others))
    embedding = policy.params["model"]["embed_tokens"]["weight"].at[token].set(np.nan)
    model = {**policy.params["model"], "embed_tokens": {"weight": embedding}}
    broken = replace(policy, params={**policy.params, "model": model})
    sia_jax.save_policy(broken, tmp_path / "broken")
    prepare.main(vary(args, tmp_path / "set", policy=str(tmp_path / "broken")))
    found = report_of(tmp_path / "set")["rejected"]["the policy's logits are not finite"]
    assert found["count"] >= N
    assert QUESTIONS[4] not in replies(tmp_path / "set")


# What is refused


def test_prompts_that_the_chat_template_refuses_are_left_out(args: Args, tmp_path: Path) -> None:
    policy = sia_jax.load_policy(args.sampling.policy or "")
    refusal = "{%- if messages[0].role == 'system' %}{{ raise_exception('no system messages') }}{%- endif %}"
    policy.tokenizer.chat_template = refusal + policy.tokenizer.chat_template
    sia_jax.save_policy(policy, tmp_path / "strict")
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTIONS[0]}]
    path = write_lines(tmp_path / "prompts.jsonl", [{"messages": turns}, {"messages": turns[1:]}])
    prepare.main(
        vary(args, tmp_path / "set", input=path, policy=str(tmp_path / "strict"), generate=1, batch=1)
    )
    report = report_of(tmp_path / "set")
    assert report["rejected"] == {
        "the chat template refuses it": {
            "count": 1,
            "first": ["prompts.jsonl, line 1 (line 1: no system messages)"],
        }
    }
    assert (report["prompts"]["found"], report["kept"]) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generate": 0}, "--generate must be 1 or more, got 0"),
        ({"batch": 0}, "--batch must be 1 or more, got 0"),
        ({"policy": None}, "--generate needs a policy to sample from: give --policy DIR"),
        ({"policy": "/nowhere/policy"}, "/nowhere/policy: no such folder"),
        ({"tokenizer": "policy"}, "with --generate the tokenizer is the policy's; leave --tokenizer out"),
        ({"generate": None}, "--policy is for --generate N"),
        ({"max_new_tokens": 100}, "--max-new-tokens 100 leaves no room for a prompt in --max-length 100"),
        ({"max_new_tokens": 0}, "--max-new-tokens must be 1 or more, got 0"),
        ({"max_length": 20}, "no prompt could be kept: prompt of more than 8 tokens"),
        ({"temperature": -1.0}, "--temperature must be 0 (greedy)"),
        ({"mesh": (3, 1, 1)}, "needs 3 devices, got 8"),
        ({"top_p": 0.0}, "--top-p must be in (0, 1], got 0.0"),
        ({"seed": -1}, "--seed must be an integer in 0"),
        ({"format": "official"}, "format official holds ids, and prompts are needed as text"),
        ({"export_official": "a.json"}, "leave out --record-prompt policy"),
        ({"prompt_form": "raw", "thinking": True}, "form 'raw' has no template"),
        ({"policy": "llama"}, "the chat template writes today's date into every conversation"),
        ({"policy": "wordless"}, "has no tokenizer; --generate needs the policy's own"),
    ],
)
def test_errors_come_before_the_weights(
    args: Args, folder: Path, tmp_path: Path, no_loading: None, changes: dict[str, Any], message: str
) -> None:
    name = changes.get("policy")
    if name == "llama":
        tokenizer = save_llama3_tokenizer(tmp_path / "tokenizer")
        now = "default(strftime_now('%d %b %Y'))"
        tokenizer.chat_template = LLAMA3_TEMPLATE.replace("default('26 Jul 2024')", now)
        policy = replace(tiny_policy("llama", vocab_size=352), tokenizer=tokenizer)
        sia_jax.save_policy(policy, tmp_path / "Llama-Instruct")
        changes = {"policy": str(tmp_path / "Llama-Instruct")}
    if name == "wordless":
        save_tiny_policy(tmp_path / "wordless")
        changes = {"policy": str(tmp_path / "wordless")}
    assert message in stopped(vary(args, tmp_path / "set", **changes))
    assert not (tmp_path / "set").exists()


def test_options_are_read_from_the_command_line(args: Args) -> None:
    line = ["--format", "jsonl", "--input", "a.jsonl", "--out", "o", "--generate", "4", "--policy", "P"]
    parsed = tyro.cli(Args, args=[*line, "--top-p", "0.9", "--batch", "8", "--thinking"])
    sampling = GenerationArgs(generate=4, policy="P", top_p=0.9, batch=8, thinking=True)
    assert parsed == Args(format="jsonl", input="a.jsonl", out="o", sampling=sampling)
