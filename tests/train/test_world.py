"""A tiny world is made from its seed: real files, value models that have learned, the same again."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

import sia_jax
from sia_jax.data.records import read_records
from sia_jax.data.sources import open_source
from sia_jax.runs.console import Terminal
from sia_jax.types import flatten_names
from sia_jax.world.card import VALUE_MODELS
from sia_jax.world.prompts import prompts
from sia_jax.world.stages import World
from train import diary, world
from train.world import STAGES, diary_of, make

pytestmark = pytest.mark.optimised

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
@pytest.mark.parametrize("name", VALUE_MODELS)
def test_a_value_model_predicts_held_out_rewards_better_than_any_constant(made, name):
    found = best_evaluation(made, name)
    # 0 is what the mean of the held-out rewards themselves would get, which no constant can beat.
    # A head that learns in a hundred steps from a teacher that has learned in as many has learned less.
    margin = 0.0 if name == "value-states-distil" else 0.05
    assert found["r2"] > margin
    assert found["rank_agreement"] > 0.5 + margin


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
    for name in ("value-states", "value-states-token", "value-states-distil"):
        assert not sia_jax.load_value_model(made.models / name, policy).config.runs_passes
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


@pytest.mark.long
def test_a_world_that_is_there_is_left_as_it_is(made, capsys):
    before = {path: path.stat().st_mtime_ns for path in made.models.rglob("*.safetensors")}
    make(World(made.out, 3, "tiny"), QUIET)
    assert before == {path: path.stat().st_mtime_ns for path in made.models.rglob("*.safetensors")}


def test_the_time_of_a_stage_that_was_interrupted_counts(tmp_path, monkeypatch):
    half = World(tmp_path / "half", 3, "tiny")
    clock = iter([0.0, 5.0, 10.0, 17.0])
    monkeypatch.setattr(diary, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
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


@pytest.mark.long
def test_folders_of_something_else_are_refused(made, tmp_path, capsys):
    with pytest.raises(ValueError, match="world of other settings"):
        diary_of(World(made.out, 4, "tiny"))
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
def test_weights_are_finite_and_of_the_size_that_is_said(made):
    policy = sia_jax.load_policy(made.models / "policy")
    leaves = flatten_names(policy.params).values()
    assert sum(math.prod(leaf.shape) for leaf in leaves) == policy.config.num_parameters
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in leaves)
