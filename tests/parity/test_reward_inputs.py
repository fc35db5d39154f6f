"""A reward is the one that transformers gives to what `apply_chat_template` makes of the conversation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import sia_jax
from sia_jax.rewards.labelling import label
from tests.support.checkpoints import tiny_reward_model
from tests.support.tokenizers import LLAMA3_TEMPLATE, save_llama3_tokenizer

CONVERSATIONS = [
    [{"role": "user", "content": "How warm is it?"}, {"role": "assistant", "content": "30 °C 🌡"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Is it late?"},
        {"role": "assistant", "content": "No, it is <|eot_id|> nine."},
    ],
]


@pytest.mark.parametrize("pad", ["<|finetune_right_pad_id|>", "<|eot_id|>", "<|end_of_text|>"])
@pytest.mark.parametrize("added", ["", "bos", "eos", "bos eos"])
def test_rewards_are_those_of_the_templates_ids_whatever_the_tokenizer_adds(
    tmp_path: Path, added: str, pad: str
) -> None:
    tokenizer = save_llama3_tokenizer(tmp_path / "tokenizer")
    bos, eos = "<|begin_of_text|>", "<|end_of_text|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single={"": "$A", "bos": f"{bos} $A", "eos": f"$A {eos}", "bos eos": f"{bos} $A {eos}"}[added],
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in (bos, eos)],
    )
    pad_id = tokenizer.convert_tokens_to_ids(pad)
    reward = tiny_reward_model("llama", num_layers=1, vocab_size=len(tokenizer), pad_token_id=pad_id)
    sia_jax.save_reward_model(replace(reward, tokenizer=tokenizer), tmp_path / "reward")

    theirs = AutoTokenizer.from_pretrained(tmp_path / "reward")
    assert len(theirs("a").input_ids) == 1 + len(added.split())
    network = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward", dtype=torch.float32)
    ids = [theirs.apply_chat_template(c, tokenize=True, return_dict=False) for c in CONVERSATIONS]
    with torch.no_grad():
        expected = [float(network.eval()(torch.tensor([row])).logits) for row in ids]
    assert np.ptp(expected) > 0.1

    ours = sia_jax.load_reward_model(tmp_path / "reward")
    assert [ours.conversation_ids(c) for c in CONVERSATIONS] == ids
    lengths = [len(row) for row in ids]
    padded = [[*row, *[0] * (max(lengths) - len(row))] for row in ids]
    np.testing.assert_allclose(ours.score(padded, lengths), expected, rtol=2e-5, atol=2e-5)
    outcomes = [outcome.reward for outcome in label(ours, CONVERSATIONS)]
    np.testing.assert_allclose(outcomes, expected, rtol=2e-5, atol=2e-5)

    # A template that leaves the BOS to the tokenizer: there is one, if the tokenizer has any to add.
    ours.tokenizer.chat_template = LLAMA3_TEMPLATE.replace("bos_token + ", "")
    without = [row[1:] for row in ids] if "bos" not in added else ids
    assert [ours.conversation_ids(c) for c in CONVERSATIONS] == without
