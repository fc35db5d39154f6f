"""Labels: those of one conversation at a time, whatever the batch, and a reason where there is none."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sia_jax.models import passes
from sia_jax.parallel.mesh import make_mesh, shard_params
from sia_jax.pretrained import RewardModel
from sia_jax.rewards.labelling import Labeller, Outcome, check_conversation, label
from tests.support.checkpoints import assert_close, tiny_reward_model
from tests.support.marks import long
from tests.support.oracle_network import NumpyModel
from tests.support.tokenizers import save_llama3_tokenizer, save_qwen3_tokenizer

DIVIDING = {"hidden_size": 32, "intermediate_size": 48}  # with V = 64 and N * H = 32: 8 divides them

QUESTION = {"role": "user", "content": "How long should I boil an egg?"}
REPLY = {"role": "assistant", "content": "Seven minutes, in boiling water."}


def one_layer(family: Any = "qwen3", **options: Any) -> RewardModel:
    """A reward model that takes half as long to compile."""
    return tiny_reward_model(family, num_layers=1, **options)


def random_ids(count: int, shortest: int, longest: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 64, rng.integers(shortest, longest + 1)).tolist() for _ in range(count)]


def outcomes_of(model: RewardModel, conversations: Sequence[Sequence[int]], **options: Any) -> list[Outcome]:
    """Of conversations in ids, in their order; each comes back once."""
    labeller = Labeller(model, **options)
    batches = [labeller.add_ids(index, ids) for index, ids in enumerate(conversations)]
    outcomes = [outcome for batch in (*batches, *labeller.finish()) for outcome in batch]
    assert sorted(outcome.index for outcome in outcomes) == list(range(len(conversations)))
    return sorted(outcomes, key=lambda outcome: outcome.index)


def rewards_of(model: RewardModel, conversations: Sequence[Sequence[int]], **options: Any) -> list[float]:
    rewards = [outcome.reward for outcome in outcomes_of(model, conversations, **options)]
    assert all(reward is not None for reward in rewards)
    return rewards  # type: ignore[return-value]


def alone(model: RewardModel, ids: Sequence[int]) -> float:
    return float(model.score([ids], [len(ids)])[0])


@pytest.fixture(scope="module")
def in_words(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    """A reward model with a tokenizer."""
    tokenizer = save_qwen3_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return replace(one_layer(vocab_size=352), tokenizer=tokenizer)


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_labels_are_those_of_one_conversation_at_a_time_and_of_float64(family: Any) -> None:
    model = tiny_reward_model(family)
    conversations = random_ids(40, 1, 32)
    rewards = rewards_of(model, conversations, batch_tokens=100)
    assert_close(rewards, [alone(model, ids) for ids in conversations])
    network = NumpyModel(model.params, model.config)
    score = np.asarray(model.params["score"]["weight"], np.float64)[0]
    assert_close(rewards, [network.hidden(ids)[-1] @ score for ids in conversations])
    assert len(set(rewards)) == len(rewards)


BUCKETS = random_ids(8, 1, 16) + random_ids(8, 17, 24, seed=1) + random_ids(4, 25, 32, seed=2)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def with_bits(request: pytest.FixtureRequest) -> tuple[RewardModel, list[float]]:
    """A model, and its rewards of `BUCKETS`: 6, 4 and 3 rows a batch."""
    model = one_layer(dtype=jnp.dtype(request.param))
    return model, rewards_of(model, BUCKETS, batch_tokens=96)


@settings(derandomize=True, max_examples=60, database=None)
@given(order=st.lists(st.integers(0, len(BUCKETS) - 1), min_size=1, max_size=30))
def test_order_neighbours_and_place_in_the_batch_change_no_bit(
    with_bits: tuple[RewardModel, list[float]], order: list[int]
) -> None:
    model, expected = with_bits
    rewards = rewards_of(model, [BUCKETS[i] for i in order], batch_tokens=96)
    assert rewards == [expected[i] for i in order]


def test_the_rows_of_a_batch_and_its_padding_change_float32_noise_only() -> None:
    model = one_layer()
    expected = rewards_of(model, BUCKETS, batch_tokens=96)
    assert_close(rewards_of(model, BUCKETS, batch_tokens=1), expected)
    for width in (48, 64):
        tokens = np.zeros((len(BUCKETS), width), np.int32)
        for row, ids in enumerate(BUCKETS):
            tokens[row, : len(ids)] = ids
        assert_close(model.score(tokens, [len(ids) for ids in BUCKETS]), np.float32(expected))


@pytest.mark.parametrize("shape", [(2, 2, 2), long((8, 1, 1)), long((1, 4, 2))])
def test_eight_devices_label_as_one_does(shape: tuple[int, int, int]) -> None:
    model = one_layer(**DIVIDING)
    mesh = make_mesh(*shape)
    spread = replace(model, params=shard_params(model.params, mesh))
    conversations = random_ids(21, 1, 16)
    shards = shape[0] * shape[1]
    labeller = Labeller(spread, batch_tokens=200)
    assert [labeller.rows(length) % shards for length in (16, 24, 4096)] == [0, 0, 0]
    assert labeller.rows(4096) == shards
    rewards = rewards_of(spread, conversations, batch_tokens=200)
    assert_close(rewards, rewards_of(model, conversations, batch_tokens=200))


def test_batches_hold_the_budget_and_a_single_row_at_least() -> None:
    labeller = Labeller(one_layer(), batch_tokens=100)
    assert [labeller.rows(length) for length in (16, 24, 48, 96, 128)] == [6, 4, 2, 1, 1]


def test_each_bucket_is_one_compiled_shape() -> None:
    model = one_layer(intermediate_size=44)
    conversations = random_ids(30, 1, 60)
    buckets = {passes.bucket_length(len(ids)) for ids in conversations}
    announced: list[int] = []

    class Compiling:
        def __init__(self, length: int):
            self.length = length

        def __enter__(self) -> None:
            announced.append(self.length)

        def __exit__(self, *rest: object) -> None:
            pass

    before = passes.batch_rewards._cache_size()
    rewards_of(model, conversations, batch_tokens=96, compiling=Compiling)
    assert passes.batch_rewards._cache_size() - before == len(buckets) == 5
    assert sorted(announced) == sorted(buckets)
    rewards_of(model, conversations[::-1], batch_tokens=96)
    assert passes.batch_rewards._cache_size() - before == len(buckets)


def test_the_next_batch_is_enqueued_before_the_last_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    class Rewards:
        def __init__(self, array: jax.Array):
            self.array, self.name = array, str(len([x for x in log if x[0] == "+"]))
            log.append("+" + self.name)

        def __array__(self, *rest: Any, **options: Any) -> np.ndarray:
            log.append("-" + self.name)
            return np.asarray(self.array)

    original = passes.batch_rewards
    monkeypatch.setattr(passes, "batch_rewards", lambda *args, **kw: Rewards(original(*args, **kw)))
    rewards_of(one_layer(), random_ids(8, 1, 16), batch_tokens=32)
    assert log == ["+0", "+1", "-0", "+2", "-1", "+3", "-2", "-3"]


def test_a_drained_labeller_gives_what_is_computed_and_keeps_what_waits() -> None:
    model, conversations = one_layer(), random_ids(7, 1, 16)
    labeller = Labeller(model, batch_tokens=48)
    early = [outcome for index, ids in enumerate(conversations) for outcome in labeller.add_ids(index, ids)]
    assert [outcome.index for outcome in early] == [0, 1, 2]
    assert [outcome.index for outcome in labeller.drain()] == [3, 4, 5]
    assert labeller.drain() == []
    assert [outcome.index for batch in labeller.finish() for outcome in batch] == [6]
    assert list(labeller.finish()) == [[]]


def test_conversations_that_are_too_long_are_left_out_and_never_cut() -> None:
    model = one_layer(max_position_embeddings=40)
    conversations = random_ids(1, 30, 30) + random_ids(1, 31, 31) + random_ids(1, 40, 40)
    kept, long, longer = outcomes_of(model, conversations, max_tokens=30)
    assert_close(kept.reward, alone(model, conversations[0]))
    assert (kept.tokens, kept.reason) == (30, None)
    assert (long.tokens, long.reward, long.reason) == (31, None, "too long")
    assert long.why == "31 tokens, at most 30"
    assert longer.reason == "too long"
    (beyond,) = outcomes_of(model, random_ids(1, 41, 41))  # than the model has positions
    assert (beyond.reason, beyond.why) == ("too long", "41 tokens, at most 40")
    assert [outcome.reason for outcome in outcomes_of(model, conversations)] == [None] * 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_reward_that_is_not_finite_is_no_label_and_leaves_its_neighbours_alone(dtype: str) -> None:
    model = one_layer(dtype=jnp.dtype(dtype))
    conversations = [[5, 6, 7], [9, 5], [5, 9, 6], [6, 7]]
    embedding = model.params["model"]["embed_tokens"]["weight"].at[9].set(jnp.nan)
    broken = {**model.params["model"], "embed_tokens": {"weight": embedding}}
    spoilt = replace(model, params={**model.params, "model": broken})
    before = outcomes_of(model, conversations, batch_tokens=64)
    after = outcomes_of(spoilt, conversations, batch_tokens=64)
    assert [after[i] for i in (0, 3)] == [before[i] for i in (0, 3)]
    for i in (1, 2):
        assert after[i] == Outcome(i, len(conversations[i]), None, "not finite", "the reward is nan")


def test_an_infinite_reward_is_no_label() -> None:
    model = one_layer()
    score = jnp.full_like(model.params["score"]["weight"], 3e38)
    outcomes = outcomes_of(replace(model, params={**model.params, "score": {"weight": score}}), BUCKETS[:4])
    assert {outcome.reason for outcome in outcomes} == {"not finite"}
    assert {outcome.why for outcome in outcomes} <= {f"the reward is {x}" for x in ("inf", "-inf", "nan")}


def test_conversations_in_words(in_words: RewardModel) -> None:
    conversations = [
        [QUESTION, REPLY],
        [QUESTION, {"role": "assistant", "content": " \n"}],
        [{"role": "system", "content": "Be brief."}, QUESTION, REPLY, QUESTION, REPLY],
        [QUESTION],
        [REPLY],
        [QUESTION, {"role": "assistant", "content": "Water. " * 300}],
    ]
    outcomes = label(in_words, conversations, batch_tokens=256)
    reasons = [None, "no reply", None, "no reply", "not a conversation", "too long"]
    assert [outcome.index for outcome in outcomes] == list(range(6))
    assert [outcome.reason for outcome in outcomes] == reasons
    for i in (0, 2):
        ids = in_words.conversation_ids(conversations[i])
        assert outcomes[i].tokens == len(ids)
        assert_close(outcomes[i].reward, alone(in_words, ids))


def test_human_inside_a_reply_is_text(in_words: RewardModel) -> None:
    content = "Seven minutes. human: and a goose egg? Nine."
    whole, cut = label(
        in_words, [[QUESTION, {**REPLY, "content": text}] for text in (content, content.split("human:")[0])]
    )
    assert_close(
        whole.reward, alone(in_words, in_words.conversation_ids([QUESTION, {**REPLY, "content": content}]))
    )
    assert whole.reward != cut.reward


def test_variables_of_the_template(tmp_path: Path) -> None:
    tokenizer = save_llama3_tokenizer(tmp_path)
    model = replace(one_layer("llama", vocab_size=352), tokenizer=tokenizer)
    default, same, other = (
        label(model, [[QUESTION, REPLY]], template=template)[0].reward
        for template in (None, {"date_string": "26 Jul 2024"}, {"date_string": "01 Jan 2030"})
    )
    assert default == same != other
    with pytest.raises(ValueError, match=r"has no variables \['date'\]"):
        label(model, [[QUESTION, REPLY]], template={"date": "26 Jul 2024"})


def test_what_the_template_refuses_is_not_a_conversation(in_words: RewardModel, tmp_path: Path) -> None:
    tokenizer = save_qwen3_tokenizer(tmp_path)
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
        + tokenizer.chat_template
    )
    system = {"role": "system", "content": "Be brief."}
    fine, refused = label(
        replace(in_words, tokenizer=tokenizer), [[QUESTION, REPLY], [system, QUESTION, REPLY]]
    )
    assert fine.reason is None
    assert (refused.reason, refused.tokens) == ("not a conversation", 0)
    assert refused.why == "the chat template refuses it: line 1: no system turns"


def test_what_the_template_leaves_out_is_not_scored_as_if_it_were_there(
    in_words: RewardModel, tmp_path: Path
) -> None:
    tokenizer = save_qwen3_tokenizer(tmp_path)
    model = replace(in_words, tokenizer=tokenizer)
    system = {"role": "system", "content": "Be brief."}
    tokenizer.chat_template = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    fine, left_out = label(model, [[QUESTION, REPLY], [system, QUESTION, REPLY]])
    assert fine.reason is None
    assert (left_out.reason, left_out.reward) == ("not a conversation", None)
    assert left_out.why.startswith("the chat template refuses it: it leaves the system message out")
    tokenizer.chat_template = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    with pytest.raises(ValueError, match="the chat template leaves out what the assistant says"):
        label(model, [[QUESTION, REPLY]])


@pytest.mark.parametrize(
    ("messages", "reason", "why"),
    [
        ([QUESTION, REPLY], None, None),
        ([QUESTION], "no reply", "it ends with the user"),
        ([QUESTION, REPLY, QUESTION], "no reply", "it ends with the user"),
        ([QUESTION, {"role": "assistant", "content": ""}], "no reply", "the reply is empty"),
        ([QUESTION, {"role": "assistant", "content": "\t\u3000"}], "no reply", "the reply is empty"),
        ([QUESTION, {"role": "assistant", "content": None}], "no reply", "the reply is empty"),
        ([{"role": "assistant", "content": ""}], "not a conversation", "must be a list"),
        ([REPLY], "not a conversation", "is from the assistant, expected the user"),
        ([QUESTION, QUESTION], "not a conversation", "is from the user, expected the assistant"),
        (
            [QUESTION, {"role": "assistant", "content": ["a"]}],
            "not a conversation",
            "content must be a text, got a list of 1 parts",
        ),
        (
            [QUESTION, {"role": "assistant", "content": "\ud800"}],
            "not a conversation",
            "half a surrogate pair",
        ),
        ([{"role": "user", "content": None}, REPLY], "not a conversation", "must be a text, got null"),
        ([QUESTION, {"role": "tool", "content": "a"}], "not a conversation", "has role 'tool'"),
        ([{"role": "system", "content": "a"}], "not a conversation", "end with the system"),
        ([QUESTION, "Seven minutes."], "not a conversation", "a list of 2 with a text in it"),
        ([], "not a conversation", "must be a list"),
        ("text", "not a conversation", "must be a list"),
        (None, "not a conversation", "must be a list"),
    ],
)
def test_why_something_is_no_conversation_with_a_reply(
    messages: Any, reason: str | None, why: str | None
) -> None:
    problem = check_conversation(messages)
    if reason is None:
        assert problem is None
        return
    assert problem is not None
    assert problem[0] == reason
    assert why in problem[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_tokens": 0}, "batch_tokens must be 1 or more, got 0"),
        ({"max_tokens": 0}, "max_tokens must be 1 or more, got 0"),
    ],
)
def test_options_out_of_range(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Labeller(one_layer(), **options)


def test_a_foreign_tokenizer_and_ids_are_refused_before_anything_is_scored(in_words: RewardModel) -> None:
    with pytest.raises(
        ValueError, match=r"ids up to 345, the model knows 0 \.\. 63; use the reward model's own"
    ):
        Labeller(replace(one_layer(), tokenizer=in_words.tokenizer))
    labeller = Labeller(one_layer())
    for ids, got in (([], "none"), ([3, 64], "ids from 3 to 64"), ([-1, 5], "ids from -1 to 5")):
        with pytest.raises(ValueError, match=rf"conversation 7: ids must lie in 0 \.\. 63, got {got}"):
            labeller.add_ids(7, ids)
    with pytest.raises(ValueError, match="without a tokenizer"):
        labeller.add(0, [QUESTION, REPLY])


def test_a_template_that_takes_no_conversation_at_all_is_an_error(
    in_words: RewardModel, tmp_path: Path
) -> None:
    tokenizer = save_qwen3_tokenizer(tmp_path)
    model = replace(in_words, tokenizer=tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }"
    with pytest.raises(ValueError, match=r"is no template that can be read \(line 1"):
        label(model, [[QUESTION, REPLY]])
    tokenizer.chat_template = "{% for m in messages %}{{ 'a' * 10 ** 10 }}{% endfor %}"
    with pytest.raises(ValueError, match="goes beyond what a template may take"):
        label(model, [[QUESTION, REPLY]])
