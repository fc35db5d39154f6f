"""train.label on tiny reward models: what it writes, and what it refuses."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sia_jax
from sia_jax.checkpoints.fingerprint import fingerprint_of_reward_model
from tests.support.checkpoints import assert_close, tiny_reward_model
from tests.support.labelling import (
    BAD,
    LINES,
    lines_of,
    report_of,
    write_lines,
)
from tests.support.tokenizers import save_qwen3_tokenizer
from train import label
from train.label import Args

ROOT = Path(__file__).parents[2]


def test_the_output_is_the_input_with_rewards_in_its_order(args: Args, finished: Path) -> None:
    lines = lines_of(finished)
    rewards = [line.pop("reward") for line in lines]
    assert lines == LINES
    model = sia_jax.load_reward_model(args.reward_model[0])
    for line, reward in zip(LINES, rewards, strict=True):
        turns = line.get("messages") or [
            {"role": "user", "content": line["prompt"]},
            {"role": "assistant", "content": line["response"]},
        ]
        ids = model.conversation_ids(turns)
        assert_close(reward, float(model.score([ids], [len(ids)])[0]))
    assert [path.name for path in sorted(finished.parent.iterdir())] == [
        "labelled.jsonl",
        "labelled.jsonl.report.json",
    ]


def test_the_report_lists_what_was_left_out_and_where(args: Args, finished: Path) -> None:
    report = report_of(finished)
    assert (report["conversations"], report["labelled"]) == (14, 7)
    where = {reason: [row["line"] for row in rows] for reason, rows in report["left_out"].items()}
    assert where == {"no reply": [2, 4, 7], "not a conversation": [9, 11, 13], "too long": [15]}
    assert re.fullmatch(r"\d{3} tokens, at most 200", report["left_out"]["too long"][0]["why"])
    assert report["left_out"]["no reply"][0]["why"] == "the reply is empty"
    rewards = [line["reward"] for line in lines_of(finished)]
    assert report["rewards"]["mean"] == pytest.approx(np.mean(rewards))
    assert report["rewards"]["sd"] == pytest.approx(np.std(rewards, ddof=1))
    assert report["rewards"]["quantiles"]["0.5"] == pytest.approx(np.median(rewards))
    assert report["settings"] == {
        "reward_model": "reward",
        "reward_model_fingerprint": report["settings"]["reward_model_fingerprint"],
        "dtype": "float32",
        "max_tokens": 200,
        "date_string": None,
    }


def test_the_summary_says_what_became_of_the_lines(
    args: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    label.main(replace(args, out=str(tmp_path / "out.jsonl")))
    shown = capsys.readouterr().err
    assert re.search(r"labelled +7 +50.0%", shown)
    assert re.search(r"no reply +3 +21.4% +lines 2, 4, 7: the reply is empty", shown)
    assert re.search(r"too long +1 +7.1% +line 15: ", shown)
    assert re.search(r"14 scored, .* conversations/s, .* tok/s", shown)
    assert re.search(r"rewards: mean \S+, sd \S+, quantiles: 0% \S+, 5%", shown)


def test_rewards_that_are_not_finite_are_left_out(args: Args, folder: Path, tmp_path: Path) -> None:
    model = sia_jax.load_reward_model(args.reward_model[0])
    (token,) = model.tokenizer.encode("卵")[:1]
    embedding = model.params["model"]["embed_tokens"]["weight"].at[token].set(np.nan)
    broken = {**model.params["model"], "embed_tokens": {"weight": embedding}}
    sia_jax.save_reward_model(replace(model, params={**model.params, "model": broken}), tmp_path / "broken")
    path = tmp_path / "out.jsonl"
    label.main(replace(args, reward_model=(str(tmp_path / "broken"),), out=str(path)))
    assert [line.get("id") for line in lines_of(path)] == [0, 1, 2, 3, None, None]
    assert report_of(path)["left_out"]["not finite"] == [{"line": 10, "why": "the reward is nan"}]


def test_the_batch_and_the_mesh_change_float32_noise_only(args: Args, finished: Path, tmp_path: Path) -> None:
    expected = [line["reward"] for line in lines_of(finished)]
    for name, changes in {"one": {"batch_tokens": 1}, "mesh": {"mesh": (2, 2, 2)}}.items():
        path = tmp_path / f"{name}.jsonl"
        label.main(replace(args, out=str(path), **changes))
        assert_close([line["reward"] for line in lines_of(path)], expected)


def test_relabelling_replaces_the_reward(args: Args, finished: Path, tmp_path: Path) -> None:
    expected = lines_of(finished)
    old = [line | {"reward": reward} for line, reward in zip(LINES[:3], (99, None, 0.5), strict=True)]
    path = tmp_path / "out.jsonl"
    label.main(
        replace(args, input=write_lines(tmp_path / "old.jsonl", *old), out=str(path), relabel=True, limit=2)
    )
    assert lines_of(path) == expected[:2]
    assert report_of(path)["limit"] == 2


def test_the_date_of_the_template_must_be_given(args: Args, folder: Path, tmp_path: Path) -> None:
    llama = replace(args, reward_model=(str(folder / "llama"),), limit=1, max_tokens=400)
    with pytest.raises(
        SystemExit, match=r"writes today's date into every conversation.*fix it with --date-string"
    ):
        label.main(replace(llama, out=str(tmp_path / "none.jsonl")))
    rewards = []
    for date in ("26 Jul 2024", "01 Jan 2030"):
        path = tmp_path / f"{date}.jsonl"
        label.main(replace(llama, out=str(path), date_string=date))
        assert report_of(path)["settings"]["date_string"] == date
        rewards.append(lines_of(path)[0]["reward"])
    assert rewards[0] != rewards[1]


def test_the_fingerprint_sees_backbone_head_and_template(folder: Path, tmp_path: Path) -> None:
    model = sia_jax.load_reward_model(folder / "reward")
    score = {"weight": model.params["score"]["weight"] * 2}
    layers = sia_jax.load_reward_model(folder / "other").params["model"]
    changed = {
        "same": model.params,
        "again": model.params,
        "head": {**model.params, "score": score},
        "backbone": {**model.params, "model": layers},
        "template": model.params,
    }
    found = {}
    for name, params in changed.items():
        sia_jax.save_reward_model(replace(model, params=params), tmp_path / name)
        if name == "template":
            path = tmp_path / name / "chat_template.jinja"
            path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
        found[name] = fingerprint_of_reward_model(tmp_path / name)
    assert found["same"] == found["again"]
    assert len(set(found.values())) == 4


def test_nothing_labelled_is_a_failure_with_a_report(args: Args, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    options = {"input": write_lines(tmp_path / "bad.jsonl", *BAD["no reply"]), "out": str(path)}
    with pytest.raises(
        SystemExit, match=r"no conversation could be labelled; .*out.jsonl.report.json says why"
    ):
        label.main(replace(args, **options))
    assert not path.exists()
    assert [row["line"] for row in report_of(path)["left_out"]["no reply"]] == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": "/nowhere/input.jsonl"}, "/nowhere/input.jsonl: no such file of conversations"),
        ({"reward_model": ("/nowhere/reward",)}, "/nowhere/reward: no such folder"),
        ({"out": "/"}, "--out must be a file, / is a folder"),
        ({"max_tokens": 0}, "--max-tokens must be 1 or more, got 0"),
        ({"batch_tokens": 0}, "--batch-tokens must be 1 or more, got 0"),
        ({"limit": 0}, "--limit must be 1 or more, got 0"),
        ({"mesh": (-2, -4, 1)}, "sizes of a mesh must be 1 or more, got"),
        ({"mesh": (3, 1, 1)}, "needs 3 devices, got 8"),
        ({"plot": "rewards.pdf"}, "--plot must be a .png file, got rewards.pdf"),
        ({"date_string": "26 Jul 2024"}, r"the chat template has no variables \['date_string'\]; drop them"),
    ],
)
def test_errors_come_before_the_weights(
    args: Args, tmp_path: Path, no_loading: None, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SystemExit, match=f"train.label: .*{message}"):
        label.main(replace(args, **{"out": str(tmp_path / "out.jsonl"), **changes}))
    assert list(tmp_path.iterdir()) == []


def test_the_output_must_not_be_the_input(args: Args, no_loading: None) -> None:
    with pytest.raises(SystemExit, match=r"--out and --input are both .*; name another place to write to"):
        label.main(replace(args, out=args.input))


def test_models_that_cannot_label_are_refused(
    args: Args, folder: Path, tmp_path: Path, no_loading: None
) -> None:
    model = tiny_reward_model(vocab_size=352)
    sia_jax.save_reward_model(model, tmp_path / "wordless")
    small = replace(tiny_reward_model(), tokenizer=save_qwen3_tokenizer(tmp_path / "tokenizer"))
    sia_jax.save_reward_model(small, tmp_path / "small")
    small.tokenizer.chat_template = None
    sia_jax.save_reward_model(replace(model, tokenizer=small.tokenizer), tmp_path / "formless")
    policy = sia_jax.Policy(
        model.config, {"model": model.params["model"], "lm_head": {"weight": np.ones((352, 24), np.float32)}}
    )
    sia_jax.save_policy(policy, tmp_path / "policy")
    for name, message in {
        "wordless": "has no tokenizer; copy it from the original checkpoint",
        "small": "use the reward model's own tokenizer",
        "formless": "has no chat template",
        "policy": "is a Qwen3ForCausalLM, a reward model is a ForSequenceClassification",
    }.items():
        with pytest.raises(SystemExit, match=message):
            label.main(replace(args, reward_model=(str(tmp_path / name),), out=str(tmp_path / "out.jsonl")))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{]", r"column 2: not JSON \(expecting property name"),
        (b'{"prompt": "a", "response": "b", "id": "\\ud83d"}', "column 40: .*half a surrogate pair"),
        (b"plain text", r"column 1: not JSON \(expecting value\)"),
        (b"[]", "expected an object like .*, got a list of 0"),
        (b'"text"', "expected an object"),
        (b'{"prompt": "a"}', "there is a 'prompt' but no 'response'"),
        (b'{"text": "a"}', r"got \['text'\]"),
        (b'{"messages": [], "response": "a"}', "'response' and the reply in 'messages' differ"),
        (b'{"messages": "a"}', "'messages' must be a list like .*, got a text"),
        (b'{"prompt": 3, "response": "a"}', "'prompt' must be a text, null or messages, got a number"),
        (b'{"prompt": "a", "response": ["b"]}', "'response' must be a list like .* with a text in it"),
        (
            b'{"prompt": "a", "response": "b", "response": "c"}',
            "the fields 'response' stand there twice",
        ),
        (b'{"prompt": "a", "response": "b", "score": NaN}', "NaN is not a finite number; write null"),
        (b'{"prompt": "a", "response": "b", "score": 1e999}', "1e999 is not a finite number"),
        (b'{"prompt": "\xff", "response": "b"}', "column 13: not UTF-8"),
        (b'{"messages": ' + b"[" * 100_000, "nested more than 100 deep"),
        (b'{"prompt": "a", "response": "b", "reward": 0.5}', "it has a reward, 0.5; pass --relabel"),
    ],
)
def test_a_file_that_is_not_what_it_claims_stops_with_its_name_and_line(
    args: Args, tmp_path: Path, no_loading: None, line: bytes, message: str
) -> None:
    path = tmp_path / "input.jsonl"
    path.write_bytes(b'{"prompt": "a", "response": "b"}\n\n' + line + b"\n")
    with pytest.raises(SystemExit, match=rf"^train.label: .*input.jsonl, line 3[:,] .*{message}"):
        label.main(replace(args, input=str(path), out=str(tmp_path / "out.jsonl")))
    assert [path.name for path in tmp_path.iterdir()] == ["input.jsonl"]


def test_help(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "train.label", "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.count("python -m train.label") == 5  # the usage, and four examples
    for name in Args.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in shown.stdout
    missing = subprocess.run(command[:-1], cwd=ROOT, capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert "--input" in missing.stderr + missing.stdout
