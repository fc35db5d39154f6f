"""A tiny world is made from its seed: real files, value models that have learned, the same again."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import sia_jax
from sia_jax.checkpoints.vocabulary import load_tokenizer
from sia_jax.data.records import read_records
from sia_jax.data.sources import open_source
from sia_jax.runs.console import Terminal
from sia_jax.types import flatten_names
from sia_jax.world.files import world_models
from sia_jax.world.grammar import sample_reply
from sia_jax.world.prompts import FAMILIES, prompts
from sia_jax.world.streams import stream
from train import world
from train.world import Diary, make
from train.world_card import _made_by, faithfulness, write_card
from train.world_data import Practice, preference_data
from train.world_stages import STAGES, World

QUIET = Terminal(quiet=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> World:
    tiny = World(tmp_path_factory.mktemp("world") / "tiny", 3, "tiny")
    make(tiny, QUIET)
    return tiny


def best_evaluation(made: World, name: str) -> dict[str, float]:
    lines = map(json.loads, (made.runs / name / "metrics.jsonl").read_text().splitlines())
    return min((line for line in lines if line["kind"] == "evaluation"), key=lambda line: line["loss"])


@pytest.mark.long
@pytest.mark.parametrize("name", ["value", "value-token", "value-vocab", "value-small"])
def test_a_value_model_foretells_held_out_rewards_better_than_any_constant(made, name):
    found = best_evaluation(made, name)
    # 0 is what the mean of the held-out rewards themselves would get, which no constant can beat.
    assert found["r2"] > 0.05
    assert found["rank_agreement"] > 0.55


@pytest.mark.long
def test_every_model_loads_and_steers_the_policy(made):
    policy = sia_jax.load_policy(made.models / "policy")
    reward = sia_jax.load_reward_model(made.models / "reward")
    value = sia_jax.load_value_model(made.models / "value", policy)
    vocab = sia_jax.load_value_model(made.models / "value-vocab", policy)
    small = sia_jax.load_value_model(made.models / "value-small", policy=policy)
    assert (value.config.head, vocab.config.head, small.config.head) == ("scalar", "vocab", "scalar")
    assert small.config.backbone.num_layers < policy.config.num_layers
    assert (made.models / "value" / "token_reward_head.pt").exists()  # the official layout
    prompt = prompts("test")[0]
    ids = policy.prompt_ids(prompt.messages)
    # What a policy reads is what a value model reads.
    assert ids == value.prompt_ids(prompt.messages) == small.prompt_ids(prompt.messages)
    conversation = [*prompt.messages, {"role": "assistant", "content": "I do not know."}]
    scored = reward.conversation_ids(conversation)
    assert np.isfinite(np.asarray(reward.score([scored], [len(scored)]))).all()


@pytest.mark.long
def test_the_policy_has_learned_which_tokens_are_likely(made):
    nats = json.loads((made.runs / "scores.json").read_text())["policy"]["nats"]
    assert nats < 0.6 * math.log(made.size.vocab_size)  # of a uniform guess


@pytest.mark.long
def test_replies_were_sampled_to_training_prompts_only(made):
    training = {prompt.text for prompt in prompts("train")}
    assert {record.messages[0]["content"] for record in read_records(made.runs / "labelled")} <= training


@pytest.mark.long
def test_the_same_seed_makes_the_same_tokenizer_prompts_and_weights(made, tmp_path):
    again = World(tmp_path / "again", 3, "tiny")
    again.out.mkdir()
    for name in ("text", "policy"):
        STAGES[name][1](again, QUIET)
    files = [path.relative_to(again.models) for path in again.models.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"tokenizer.json", "model.safetensors", "test.jsonl"}
    for path in files:
        assert (again.models / path).read_bytes() == (made.models / path).read_bytes(), path


def test_a_batch_of_practice_is_the_same_whichever_came_before_it():
    tokenizer = load_tokenizer(world_models() / "policy")
    inorder, jumping = (Practice(tokenizer, 3, dialogues=20, size=6) for _ in range(2))
    batches = [inorder.batch(number) for number in range(3)]
    for number in (2, 0, 1):
        found = jumping.batch(number)
        assert [t.number for t in found] == list(range(6 * number, 6 * number + 6))
        for first, second in zip(found, batches[number], strict=True):
            assert first.group == second.group
            np.testing.assert_array_equal(first.reply_ids, second.reply_ids)


def test_another_seed_makes_other_text():
    first, second = (World(Path("nowhere"), seed, "tiny") for seed in (3, 4))
    keys = [np.asarray(jax.random.key_data(world.key("policy"))) for world in (first, second)]
    assert (keys[0] != keys[1]).any()


@pytest.mark.long
def test_a_world_that_is_there_is_left_as_it_is(made, capsys):
    before = {path: path.stat().st_mtime_ns for path in made.models.rglob("*.safetensors")}
    make(World(made.out, 3, "tiny"), QUIET)
    assert before == {path: path.stat().st_mtime_ns for path in made.models.rglob("*.safetensors")}


def test_the_time_of_a_stage_that_was_interrupted_counts(tmp_path, monkeypatch):
    half = World(tmp_path / "half", 3, "tiny")
    clock = iter([0.0, 5.0, 10.0, 17.0])
    monkeypatch.setattr(world, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    answers = iter([KeyboardInterrupt, None])

    def stage(world: World, console: Terminal) -> None:
        if (error := next(answers)) is not None:
            raise error

    monkeypatch.setattr(world, "STAGES", {"text": ("what is asked", stage)})
    monkeypatch.setattr(world, "write_card", lambda world, seconds, made_by: None)
    with pytest.raises(KeyboardInterrupt):
        make(half, QUIET)
    make(half, QUIET)
    assert json.loads((half.out / "world.json").read_text())["seconds"] == {"begun": 5.0, "text": 7.0}


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


@pytest.mark.long
def test_a_world_that_is_whole_keeps_the_software_that_made_it(made, monkeypatch):
    card = (made.models / "MODEL_CARD.md").read_text()
    monkeypatch.setattr(world, "software", lambda: "commit `another`")
    make(World(made.out, 3, "tiny"), QUIET)
    assert (made.models / "MODEL_CARD.md").read_text() == card


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_is_none_is_refused_before_anything_is_written(seed, tmp_path):
    with pytest.raises(SystemExit, match="--seed must be an integer in 0"):
        world.main(world.Args(out=tmp_path / "out", seed=seed, size="tiny"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"settings": {}, "seconds": [1]}',
        '{"settings": 3, "seconds": {}}',
        '{"settings": {}, "seconds": {"text": "1"}}',
        '{"settings": {}, "seconds": {"text": NaN}}',
        '{"settings": {}, "seconds": {}, "made_by": {"text": 1}}',
        '{"settings": {}, "seconds": {}, "made_by": null}',
        '{"settings": {}, "seconds": {}}',
        "\x00",
        '{"settings"',
    ],
)
def test_a_diary_that_is_damaged_or_another_is_refused_by_its_name(text, tmp_path):
    (tmp_path / "world.json").write_text(text)
    with pytest.raises(SystemExit) as stopped:
        world.main(world.Args(out=tmp_path, size="tiny"))
    assert str(stopped.value).startswith(f"train.world: {tmp_path}")
    assert (tmp_path / "world.json").read_text() == text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"policy": 3}'])
def test_scores_that_are_damaged_are_refused_by_the_name_of_their_file(text, tmp_path):
    half = World(tmp_path, 3, "tiny")
    half.models.mkdir()
    half.runs.mkdir()
    (half.runs / "scores.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{half.runs / 'scores.json'}")):
        write_card(half, {}, {"text": "commit `a`"})


@pytest.mark.long
def test_folders_of_something_else_are_refused(made, tmp_path, capsys):
    with pytest.raises(ValueError, match="world of other settings"):
        Diary.of(World(made.out, 4, "tiny"))
    (tmp_path / "thesis.txt").write_text("…")
    with pytest.raises(SystemExit) as stopped:
        world.main(world.Args(out=tmp_path))
    assert "holds something else than a world" in str(stopped.value)


@pytest.mark.long
def test_the_card_tells_what_the_models_score(made):
    card = (made.models / "MODEL_CARD.md").read_text()
    scores = json.loads((made.runs / "scores.json").read_text())
    assert f"{scores['policy']['nats']:.3f} nats" in card
    assert f"{scores['fidelity']['about_another']} in a hundred" in card
    assert f"{scores['value']['r2']:.3f}" in card
    assert scores["value"]["r2"] == best_evaluation(made, "value")["r2"]
    assert scores["policy"]["nats"] > scores["policy"]["grammar_nats"]  # which nothing can beat on average
    for folder in made.models.iterdir():
        assert f"`{folder.name}/`" in card or folder.name == "MODEL_CARD.md"


@pytest.mark.long
def test_no_file_names_a_folder_of_this_machine(made):
    for path in made.models.rglob("*"):
        if path.is_file():
            assert str(made.out).encode() not in path.read_bytes(), path


@pytest.mark.long
def test_the_prompts_are_files_that_the_programs_read(made):
    for split in ("train", "validation", "test"):
        path = made.models / "prompts" / f"{split}.jsonl"
        source = open_source("jsonl", path, vocab_size=512, system_prompts=True, with_replies=False)
        found = [(entry.id, entry.messages[0]["content"]) for entry in source.entries]
        assert found == [(prompt.id, prompt.text) for prompt in prompts(split)]


@pytest.mark.long
def test_pairs_go_into_batches_whole_and_side_by_side(made):
    pairs = preference_data(made.tokenizer, 3, 40, 0.7)
    tokens, lengths = pairs.batch(np.array([7, 21, 30]))
    assert tokens.shape[0] == len(lengths) == 6
    for row, (side, number) in enumerate([(0, 7), (0, 21), (0, 30), (1, 7), (1, 21), (1, 30)]):
        whole = (pairs.chosen, pairs.rejected)[side][number]
        assert lengths[row] == pairs.lengths[side, number]
        np.testing.assert_array_equal(tokens[row, : lengths[row]], whole[: lengths[row]])
        assert not whole[lengths[row] :].any()
        text = made.tokenizer.decode(tokens[row, : lengths[row]].tolist())
        assert text.startswith("<|im_start|>user\n")
        assert text.endswith("<|im_end|>\n")


@pytest.mark.long
def test_weights_are_finite_and_of_the_size_that_is_said(made):
    policy = sia_jax.load_policy(made.models / "policy")
    leaves = flatten_names(policy.params).values()
    assert sum(math.prod(leaf.shape) for leaf in leaves) == policy.config.num_parameters
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in leaves)
