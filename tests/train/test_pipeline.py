"""From raw replies to a value model, through every program on the way."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sia_jax
from decode import generate
from sia_jax.data.records import read_records
from tests.support.checkpoints import assert_close, tiny_policy, tiny_reward_model
from tests.support.tokenizers import save_qwen3_tokenizer
from train import label, prepare, value_model

pytestmark = pytest.mark.optimised

QUESTIONS = ("How long should I boil an egg?", "Which train is it?", "Where is the key?", "Is it late?")
REPLIES = (
    "Seven minutes.",
    "I do not know.",
    "The one at nine, from the far end.",
    "Under the mat, as ever.",
)


def save_models(folder: Path) -> sia_jax.RewardModel:
    """ "base", and "reward", which is returned."""
    tokenizer = save_qwen3_tokenizer(folder / "tokenizer")
    base = replace(tiny_policy(num_layers=1, vocab_size=352), tokenizer=tokenizer)
    sia_jax.save_policy(base, folder / "base")
    reward = replace(tiny_reward_model(seed=5, num_layers=1, vocab_size=352), tokenizer=tokenizer)
    sia_jax.save_reward_model(reward, folder / "reward")
    return reward


def train(folder: Path) -> sia_jax.ValueModel:
    """The value model of "data", on "base"."""
    value_model.main(
        value_model.Args(
            data=folder / "data",
            base=str(folder / "base"),
            out=folder / "vm",
            epochs=40,
            batch_size=8,
            row_length=256,
            learning_rate=3e-3,
            rank=4,
            dropout=0.0,
            held_out=0.0,
            layout="official",
        )
    )
    return sia_jax.load_value_model(folder / "vm" / "last", str(folder / "base"))


def test_raw_replies_become_labelled_trajectories_and_a_value_model(tmp_path: Path):
    reward = save_models(tmp_path)
    raw = [{"prompt": question, "response": reply} for question in QUESTIONS for reply in REPLIES]
    raw[2]["complete"] = False  # type: ignore[assignment]
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in raw))

    def prepared(source: str, out: str, **options: str) -> None:
        prepare.main(
            prepare.Args(
                format="jsonl",
                input=str(tmp_path / source),
                tokenizer=str(tmp_path / "base"),
                out=str(tmp_path / out),
                **options,  # type: ignore[arg-type]
            )
        )

    prepared("raw.jsonl", "unlabelled", export_conversations=str(tmp_path / "replies.jsonl"))
    label.main(
        label.Args(
            input=str(tmp_path / "replies.jsonl"),
            reward_model=(str(tmp_path / "reward"),),
            out=str(tmp_path / "labelled.jsonl"),
        )
    )
    prepared("labelled.jsonl", "data")

    before, after = read_records(tmp_path / "unlabelled"), read_records(tmp_path / "data")
    assert len(before) == len(after) == len(raw)
    for old, new in zip(before, after, strict=True):
        assert (old.id, old.group, old.messages, old.reward) == (new.id, new.group, new.messages, None)
        np.testing.assert_array_equal(old.reply_ids, new.reply_ids)
        ids = reward.conversation_ids(new.messages)
        assert new.reward is not None
        np.testing.assert_allclose(new.reward, reward.score([ids], [len(ids)])[0], rtol=1e-5)

    trained = train(tmp_path)
    means = []
    for record in after:
        ids = np.concatenate([record.prompt_ids, record.reply_ids])
        values = np.asarray(trained.values(ids[None], [len(ids)]))[0]
        means.append(values[len(record.prompt_ids) :].mean())
    rewards = [record.reward for record in after]
    assert np.corrcoef(means, rewards)[0, 1] > 0.9  # type: ignore[arg-type]


@pytest.mark.long
def test_a_policys_own_replies_become_a_value_model_in_three_commands(tmp_path: Path, capsys):
    reward = save_models(tmp_path)
    rows = [{"prompt": question} for question in QUESTIONS]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare.main(
        prepare.Args(
            format="jsonl",
            input=str(tmp_path / "prompts.jsonl"),
            out=str(tmp_path / "sampled"),
            sampling=prepare.GenerationArgs(
                generate=4, policy=str(tmp_path / "base"), max_new_tokens=12, record_prompt="value"
            ),
        )
    )
    label.main(
        label.Args(
            input=str(tmp_path / "sampled"),
            reward_model=(str(tmp_path / "reward"),),
            out=str(tmp_path / "data"),
        )
    )
    before, after = read_records(tmp_path / "sampled"), read_records(tmp_path / "data")
    assert len(before) == len(after) == 16
    expected = []
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old.reply_ids, new.reply_ids)
        ids = reward.conversation_ids(new.messages)
        expected.append(reward.score([ids], [len(ids)])[0])
    assert_close([record.reward for record in after], expected)

    trained = train(tmp_path)
    assert "16 trajectories to train on" in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "vm" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "step"]
    assert np.mean(losses[-2:]) < 0.5 * np.mean(losses[:2])  # an epoch has two steps
    # The sampler gives a value model the very prompts that it was trained on.
    turns = after[0].messages[:-1]
    tokenizer = sia_jax.load_policy(tmp_path / "base").tokenizer
    assert after[0].prompt_ids.tolist() == replace(trained, tokenizer=tokenizer).prompt_ids(turns)


def test_what_generate_writes_is_labelled_as_it_is_and_prepared(tmp_path: Path):
    reward = save_models(tmp_path)
    generate.main(
        generate.Args(
            policy=str(tmp_path / "base"),
            prompt=QUESTIONS[:2],
            samples=2,
            max_new_tokens=8,
            output=str(tmp_path / "replies.jsonl"),
        )
    )
    label.main(
        label.Args(
            input=str(tmp_path / "replies.jsonl"),
            reward_model=(str(tmp_path / "reward"),),
            out=str(tmp_path / "labelled.jsonl"),
        )
    )
    replies, labelled = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("replies.jsonl", "labelled.jsonl")
    )
    assert [{k: x for k, x in line.items() if k != "reward"} for line in labelled] == replies
    for line in labelled:
        turns = [
            {"role": "user", "content": QUESTIONS[line["index"]]},
            {"role": "assistant", "content": line["text"]},
        ]
        ids = reward.conversation_ids(turns)
        assert_close(np.float32(line["reward"]), reward.score([ids], [len(ids)])[0], 1e-5)

    prepare.main(
        prepare.Args(
            format="jsonl",
            input=str(tmp_path / "labelled.jsonl"),
            tokenizer=str(tmp_path / "base"),
            out=str(tmp_path / "data"),
        )
    )
    records = read_records(tmp_path / "data")
    assert [record.id for record in records] == ["0:base:0", "0:base:1", "1:base:0", "1:base:1"]
    assert [record.reward for record in records] == [line["reward"] for line in labelled]
    assert len({record.group for record in records}) == 2
    assert reward.tokenizer is not None
    stop = reward.tokenizer.convert_tokens_to_ids("<|im_end|>")
    ends = [
        (record.reply_ids[-1] == stop, line["finish_reason"])
        for record, line in zip(records, labelled, strict=True)
    ]
    assert "length" in {end for _, end in ends}
    assert all(stopped == (end == "stop") for stopped, end in ends)
