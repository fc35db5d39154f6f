"""What a world's models score: what is counted, and what the card says of it."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

import sia_jax
from sia_jax.world.card import _made_by, faithfulness, write_card
from sia_jax.world.files import world_models
from sia_jax.world.grammar import sample_reply
from sia_jax.world.prompts import FAMILIES, prompts
from sia_jax.world.stages import World
from sia_jax.world.streams import stream


@pytest.mark.parametrize("shift", [0, 1])
def test_replies_to_other_requests_are_all_that_the_card_counts(shift, monkeypatch):
    policy = sia_jax.load_policy(world_models() / "policy")
    asked = [prompts("test", family)[0] for family in FAMILIES] * 8
    texts = [sample_reply(prompt, stream(0, "card", i)) for i, prompt in enumerate(asked)]
    rows = [policy.tokenizer.encode(text) for text in texts[shift:] + texts[:shift]]
    tokens = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    sampled = SimpleNamespace(tokens=tokens, lengths=np.array([len(ids) for ids in rows]))
    monkeypatch.setattr(sia_jax, "sample", lambda *args, **options: sampled)
    found = faithfulness(policy, 0, asked, rounds=2)
    assert found["replies"] == 2 * len(asked)
    assert found["words"] == 2 * sum(len(re.findall(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*", t)) for t in texts)
    assert found["about_another"].startswith("100.00 [" if shift else "0.00 [")
    assert found["strange_words"].startswith("0.00 [")


def test_the_card_names_the_software_of_each_stage_where_it_differs():
    one = {"text": "commit `a`, jax 1", "policy": "commit `a`, jax 1"}
    assert _made_by(one) == "commit `a`, jax 1"
    two = one | {"reward": "commit `b`, jax 1"}
    assert _made_by(two) == "commit `a`, jax 1 (text, policy); commit `b`, jax 1 (reward)"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"policy": 3}'])
def test_scores_that_are_damaged_are_refused_by_the_name_of_their_file(text, tmp_path):
    half = World(tmp_path, 3, "tiny")
    half.models.mkdir()
    half.runs.mkdir()
    (half.runs / "scores.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{half.runs / 'scores.json'}")):
        write_card(half, {}, {"text": "commit `a`"})
