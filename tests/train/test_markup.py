"""A value model on a Llama network with ChatML's tokenizer is prepared, trained, and steers its base."""

import json
from pathlib import Path

import pytest

import sia_jax
from decode import generate
from sia_jax.data.records import read_records
from sia_jax.text.chat import value_prompt
from sia_jax.text.markup import CHATML
from tests.support.checkpoints import save_tiny_policy
from tests.support.tokenizers import save_qwen3_tokenizer
from train import prepare, value_model

QUESTIONS = ("Is it late?", "Where is the key?", "Who is it?", "Which train?")


@pytest.mark.long
def test_a_llama_network_with_chatml_is_trained_and_steered_in_chatml(tmp_path: Path) -> None:
    tokenizer = save_qwen3_tokenizer(tmp_path / "tokenizer")
    end = tokenizer.eos_token_id
    options = {"num_layers": 1, "vocab_size": 352, "eos_token_ids": (end,), "bos_token_id": None}
    save_tiny_policy(tmp_path / "base", "llama", tokenizer=tokenizer, **options)
    rows = [{"prompt": q, "response": "No idea.", "reward": float(i)} for i, q in enumerate(QUESTIONS)]
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare.main(
        prepare.Args(
            format="jsonl",
            input=str(tmp_path / "raw.jsonl"),
            tokenizer=str(tmp_path / "base"),
            out=str(tmp_path / "data"),
        )
    )
    data = read_records(tmp_path / "data")
    assert data.meta["markup"] == CHATML.to_json()
    value_model.main(
        value_model.Args(
            data=tmp_path / "data",
            base=str(tmp_path / "base"),
            out=tmp_path / "vm",
            epochs=1,
            batch_size=4,
            row_length=128,
            rank=4,
            held_out=0.0,
        )
    )
    policy = sia_jax.load_policy(tmp_path / "base")
    value = sia_jax.load_value_model(tmp_path / "vm" / "last", policy)
    assert value.markup == CHATML
    turns = data[0].messages[:-1]
    assert value.prompt_ids(turns) == data[0].prompt_ids.tolist() == value_prompt(tokenizer, turns, CHATML)
    generate.main(
        generate.Args(
            policy=str(tmp_path / "base"),
            value=str(tmp_path / "vm" / "last"),
            threshold=-float("inf"),
            prompt=QUESTIONS[:2],
            max_new_tokens=4,
            output=str(tmp_path / "replies.jsonl"),
        )
    )
    replies = [json.loads(line) for line in (tmp_path / "replies.jsonl").read_text().splitlines()]
    assert [all(reply["junction"]) for reply in replies] == [True, True]
