"""The float64 oracle: its networks against the library's, its rules against numbers worked out by hand."""

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest

from sia_jax.models.lora import ATTENTION_PROJECTIONS, MLP_PROJECTIONS, LoraConfig, merge_lora
from tests.support.checkpoints import assert_close, random_tokens, tiny_policy, tiny_value_model
from tests.support.oracle import MUTATIONS, NumpyModel, Reply, Settings, generate
from tests.support.oracle_parts import (
    PICK,
    REST,
    Features,
    advance,
    drawn_from,
    evaluate,
    expression_of,
    fold_in,
    gumbel,
    initial_state,
    numbered,
    own_choice,
    penalise,
    processed,
    reads_prefix_value,
    steered_choice,
    tilt_of,
    uniform,
    view_of,
)

KEY = (7, 11)
SETTINGS = Settings(key=KEY, threshold=1.0, max_new_tokens=12, num_candidates=3)
FEATURES = Features(
    t=3, threshold=1.0, entropy=1.0, previous_entropy=0.5, uniform=0.25, top_probability=0.5, logit_gap=0.5
)
LORAS = {
    "attention": LoraConfig(rank=4, alpha=8.0),
    "everything, rslora": LoraConfig(
        rank=4, alpha=3.0, target_modules=ATTENTION_PROJECTIONS + MLP_PROJECTIONS, use_rslora=True
    ),
    "patterns": LoraConfig(
        rank=4,
        alpha=8.0,
        rank_pattern=((r"layers\.1\..*", 2), ("q_proj", 5)),
        alpha_pattern=(("v_proj", 1.0), (r"0\.self_attn\.o_proj", 20.0)),
    ),
}

PROMPT, VALUE_PROMPT = [5, 17, 40, 9], [33, 8, 5, 17, 40]


def settings(**changes: Any) -> Settings:
    return dataclasses.replace(SETTINGS, **changes)


@functools.cache
def models(head: str = "scalar") -> tuple[NumpyModel, NumpyModel]:
    policy = tiny_policy()
    value = tiny_value_model(policy, head=head)
    return NumpyModel(policy.params, policy.config), NumpyModel(value.params, value.config, value.base)


def reply_of(head: str = "scalar", **changes: Any) -> Reply:
    return generate(*models(head), PROMPT, VALUE_PROMPT, settings(**changes))


# Networks


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_policy_logits_are_those_of_the_library(family, tied):
    policy = tiny_policy(family, tie_word_embeddings=tied)
    model = NumpyModel(policy.params, policy.config)
    tokens = random_tokens(policy.config, 2, 60)
    lengths = [60, 23]
    ours = np.asarray(policy.logits(tokens, lengths))
    for row, length in enumerate(lengths):
        assert_close(ours[row, length - 1], model.logits(tokens[row, :length]))
        assert_close(ours[row, 4], model.logits(tokens[row, :5]))


@pytest.mark.parametrize("lora", LORAS.values(), ids=LORAS)
@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_values_over_an_adapter_are_those_of_the_library_and_of_the_merged_model(family, lora):
    policy = tiny_policy(family)
    value = tiny_value_model(policy, lora=lora)
    model = NumpyModel(value.params, value.config, value.base)
    tokens = random_tokens(policy.config, 1, 40)
    ours = np.asarray(value.values(tokens, [40]))[0]
    expected = model.hidden(tokens[0]) @ model.head["weight"][0] + model.head["bias"][0]
    assert_close(ours, expected)
    merged = {
        "model": merge_lora(policy.params["model"], value.params["lora"], lora),
        "value_head": value.params["value_head"],
    }
    of_merged = NumpyModel(merged, dataclasses.replace(value.config, lora=None))
    assert_close(of_merged.candidate_values(tokens[0, :20], tokens[0, 20:21]), expected[20:21])


def test_values_of_a_vocab_head_are_those_of_the_library():
    policy = tiny_policy()
    value = tiny_value_model(policy, head="vocab")
    tokens = random_tokens(policy.config, 1, 30)
    model = models("vocab")[1]
    assert_close(np.asarray(value.values(tokens, [30]))[0, -1], model.vocab_values(tokens[0]))
    np.testing.assert_array_equal(
        model.candidate_values(tokens[0], [4, 9]), model.vocab_values(tokens[0])[[4, 9]]
    )


def test_every_candidate_is_evaluated_as_if_it_were_alone():
    model = models()[1]
    together = model.candidate_values(PROMPT, [3, 9, 3])
    alone = [model.candidate_values(PROMPT, [a])[0] for a in (3, 9, 3)]
    np.testing.assert_allclose(together, alone, rtol=1e-13)
    full = model.hidden([*PROMPT, 9])[-1] @ model.head["weight"][0] + model.head["bias"][0]
    np.testing.assert_allclose(alone[1], full, rtol=1e-13)


def test_an_unwritten_token_is_seen_by_itself_alone():
    model = models()[1]
    values = functools.partial(model.candidate_values, candidates=[3, 9], unwritten=[2])
    first, second = values([5, 17, 40, 9]), values([5, 17, 41, 9])
    np.testing.assert_allclose(first, second, rtol=1e-13)
    assert not np.allclose(first, model.candidate_values([5, 17, 40, 9], [3, 9]))
    assert not np.allclose(first, model.candidate_values([5, 17, 9], [3, 9])), "positions must stay"


# Random numbers


@pytest.mark.parametrize("seed", [0, 1, 2**31 + 5])
def test_fold_in_is_that_of_jax(seed):
    key = jax.random.key(seed, impl="threefry2x32")
    words = tuple(int(word) for word in jax.random.key_data(key))
    data = [0, 1, 2, 151_642, 2**31, PICK, REST]
    expected = [jax.random.key_data(jax.random.fold_in(key, np.uint32(a))).tolist() for a in data]
    assert [list(fold_in(words, a)) for a in data] == expected
    assert np.transpose(fold_in(words, np.array(data, np.uint64))).tolist() == expected


def test_threefry_gives_the_published_vectors():
    assert fold_in((0, 0), 0) == (0x6B200159, 0x99BA4EFE)


def test_uniforms_lie_in_the_middle_of_float32_cells():
    ids = np.arange(5000, dtype=np.uint64)
    u = uniform(KEY, ids)
    np.testing.assert_array_equal(u, u.astype(np.float32))
    np.testing.assert_array_equal(
        np.floor(u * 2**23), np.array([fold_in(KEY, a)[0] >> 9 for a in range(5000)])
    )
    assert u.min() > 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 0.02
    np.testing.assert_allclose(gumbel(KEY, ids), -np.log(-np.log(u)))


# Logits and filters


def test_the_repetition_penalty_divides_what_is_positive_and_multiplies_what_is_not():
    s = settings(repetition_penalty=2.0)
    l = np.array([3.0, -3.0, 4.0, -4.0, 5.0])
    np.testing.assert_array_equal(penalise(l, np.arange(5), [0, 1], [2, 2], s), [1.5, -6, 2, -4, 5])


def test_presence_and_frequency_count_the_reply_alone():
    s = settings(presence_penalty=0.5, frequency_penalty=0.25)
    l = np.zeros(4)
    np.testing.assert_array_equal(penalise(l, np.arange(4), [0, 1], [1, 2, 2, 2], s), [0, -0.75, -1.25, 0])


def test_processors_act_in_their_order():
    s = settings(
        bias={0: 2.0}, repetition_penalty=2.0, presence_penalty=1.0, stop_ids=(1, -1), min_new_tokens=2
    )
    m = np.array([-1.0, 9.0, 0.0])
    np.testing.assert_array_equal(processed(m, [0], [], s), [0.5, -np.inf, 0])
    np.testing.assert_array_equal(processed(m, [], [0], s), [-0.5, -np.inf, 0])
    np.testing.assert_array_equal(processed(m, [], [0, 0], s), [-0.5, 9, 0])


PROBABILITIES = np.array([0.1, 0.4, 0.2, 0.3])


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"top_k": 2}, [1, 3]),
        ({"top_k": 9}, [0, 1, 2, 3]),
        ({"top_p": 0.3}, [1]),
        ({"top_p": 0.5}, [1, 3]),
        ({"top_p": 0.75}, [1, 2, 3]),
        ({"top_p": 0.95}, [0, 1, 2, 3]),
        ({"top_p": 0.65, "top_k": 3}, [1, 3]),  # 0.4 / 0.9 and 0.3 / 0.9
        ({"top_p": 0.5, "temperature": 0.5}, [1]),  # 16 / 30
        ({"top_p": 0.5, "top_k": 1, "temperature": 0.0}, [0, 1, 2, 3]),
        ({"min_p": 0.2}, [0, 1, 2, 3]),
        ({"min_p": 0.3}, [1, 2, 3]),
        ({"min_p": 1.0}, [1]),
        ({"min_p": 0.6, "temperature": 0.5}, [1]),  # 9 / 16
        ({"min_p": 0.3, "top_k": 2}, [1, 3]),
        ({"min_p": 0.9, "temperature": 0.0}, [0, 1, 2, 3]),
    ],
)
def test_filters_keep_the_shortest_prefix_of_enough_mass(changes, kept):
    view = view_of(np.log(PROBABILITIES), settings(**changes))
    assert np.flatnonzero(view.keep).tolist() == kept


def test_filters_and_candidates_prefer_the_lower_of_equal_ids():
    view = view_of(np.array([0.0, 1.0, 0.0, 1.0, 0.0]), settings(top_k=3, num_candidates=4))
    assert np.flatnonzero(view.keep).tolist() == [0, 1, 3]
    assert view.candidates.tolist() == [1, 3, 0, 2]
    assert view.members.tolist() == [1, 3, 0]


def test_cuts_report_their_distance_from_a_tie():
    l = np.log(PROBABILITIES)
    distances = view_of(l, settings(top_k=3, top_p=0.65, num_candidates=2)).distances
    assert distances["candidates"] == pytest.approx(l[3] - l[2])
    assert distances["top_k"] == pytest.approx(l[2] - l[0])
    assert distances["top_p"] == pytest.approx(7 / 9 - 0.65)
    distances = view_of(l, settings(min_p=0.7, num_candidates=2)).distances
    assert distances["min_p"] == pytest.approx(math.log(0.75 / 0.7))
    assert view_of(l, settings(min_p=0.7, top_k=1)).distances["min_p"] == math.inf


def test_ids_without_probability_are_candidates_and_never_members():
    view = view_of(np.array([-np.inf, 2.0, -np.inf, 1.0]), settings(num_candidates=3))
    assert view.candidates.tolist() == [1, 3, 0]
    assert view.members.tolist() == [1, 3]
    assert view.distances["candidates"] == math.inf


# Gates and tilts


@pytest.mark.parametrize(
    ("gate", "is_open", "distance"),
    [
        (("Entropy",), True, 0.0),
        (("EntropyRatio", 0.6), True, (math.log(2) - 0.6) * 0.5),
        (("EntropyRatio", 0.7), False, (0.7 - math.log(2)) * 0.5),
        (("Position", 3.0), False, math.inf),
        (("Position", 4.0), True, math.inf),
        (("Bernoulli", 0.25), False, 0.0),
        (("Bernoulli", 0.5), True, 0.25),
        (("TopProbability", 0.5), True, 0.0),
        (("LogitGap", 0.25), False, 0.25),
        # -2.5 + 1 + 2 (0.5) + 0.5 - 4 (0.5) + 3 = 1, at a weight of 8 in all.
        (("Linear", -2.5, 1.0, 2.0, 1.0, -4.0, 1.0), True, 0.125),
        (("Linear", -0.25, 0.0, 0.0, 0.5, 0.0, 0.0), True, 0.0),
        (("Linear", -0.25, 0.1, -0.4, 0.0, 0.0, 0.0), False, 0.35),
        (("Always",), True, math.inf),
        (("Never",), False, math.inf),
        (("Not", ("Bernoulli", 0.5)), False, 0.25),
        (("And", ("Bernoulli", 0.5), ("LogitGap", 0.4)), False, 0.1),
        (("Or", ("Bernoulli", 0.5), ("LogitGap", 0.4)), True, 0.1),
    ],
)
def test_gates_say_what_their_equations_say(gate, is_open, distance):
    verdict = evaluate(gate, FEATURES, iter(()))
    assert verdict.is_open is is_open
    assert verdict.distance == pytest.approx(distance)


def test_an_entropy_ratio_is_shut_at_the_first_token():
    assert not evaluate(("EntropyRatio", -math.inf), dataclasses.replace(FEATURES, t=0), iter(())).is_open


def test_a_sum_has_no_entropy_before_the_first_token_and_a_gap_of_20_at_most():
    first = dataclasses.replace(FEATURES, t=0, previous_entropy=math.nan, logit_gap=math.inf)
    for bias, is_open in ((-20.0, True), (-20.1, False)):
        assert evaluate(("Linear", bias, 0.0, 9.0, 0.0, 1.0, 1.0), first, iter(())).is_open is is_open


def test_a_budget_holds_its_share_to_what_its_threshold_moved():
    rate, steps = 0.3, 400
    entropies = np.random.default_rng(0).gamma(2.0, size=steps)
    gate, q, opened = ("And", ("Never",), ("Budget", rate)), [1.0], 0
    for entropy in entropies:
        f = dataclasses.replace(FEATURES, entropy=float(entropy))
        opened += entropy >= q[0]
        q = advance(gate, f, iter(q), False)
    assert abs(opened / steps - rate) == pytest.approx(abs(q[0] - 1.0) / (0.25 * steps))
    assert abs(opened / steps - rate) < 0.05


def junctions(gate, entropies, **how):
    """The junctions of a row whose entropies are given, by its gate, and the states after each token."""
    state, found, states = initial_state(gate, 1.0), [], []
    for t, entropy in enumerate(entropies):
        f = dataclasses.replace(FEATURES, t=t, entropy=entropy)
        is_junction = evaluate(gate, f, iter(state)).is_open
        state = advance(gate, f, iter(state), is_junction, **how)
        found += [t] * is_junction
        states.append(state)
    return found, states


def test_a_refractory_gate_is_shut_for_so_many_tokens_after_a_junction():
    assert junctions(("Refractory", 2.0), [0.0] * 8)[0] == [0, 3, 6]
    assert junctions(("Refractory", 0.0), [0.0] * 3)[0] == [0, 1, 2]
    assert evaluate(("Refractory", 2.0), FEATURES, iter([1.0])).distance == math.inf


def test_a_refractory_gate_hears_the_verdict_of_the_whole():
    # Position shuts 0; q is 1, 1.2, 1.15, 1.1, 1.3, so the budget alone is open at 0 and 3.
    entropies = [1.0, 1.0, 1.0, 2.0, 1.0]
    gate = ("And", ("And", ("Not", ("Position", 1.0)), ("Refractory", 2.0)), ("Budget", 0.2))
    found, states = junctions(gate, entropies)
    assert found == [3]
    # Position & Refractory are open at 1: taken for a junction, it shuts 3.
    assert junctions(gate, entropies, early=True)[0] == []
    np.testing.assert_allclose([q for _, q in states], [1.2, 1.15, 1.1, 1.3, 1.25])
    assert [last for last, _ in states] == [-1, -1, -1, 3, 3]


@pytest.mark.parametrize(
    ("reply", "matched"),
    [
        *(([], 0), ([2], 0), ([1], 1), ([1, 1], 2), ([1, 1, 1], 2), ([1, 2, 1], 1), ([1, 1, 3], 0)),
        *(([1, 1, 2], 3), ([1, 1, 1, 2], 3), ([1, 1, 2, 5, 1], 3)),
    ],
)
def test_a_marker_is_looked_for_in_the_whole_reply(reply, matched):
    f = dataclasses.replace(FEATURES, reply=tuple(reply))
    for started in (0.0, 1.0):
        gate = ("Or", ("Never",), ("After", [1, 1, 2], started))
        state = initial_state(gate, 1.0)
        assert state == [3 * started]
        assert evaluate(gate, f, iter(state)).is_open == (matched == 3 or started > 0)
        assert advance(gate, f, iter(state), False) == [3 if started else matched]


@dataclass(frozen=True)
class Entropy:
    pass


@dataclass(frozen=True)
class Budget:
    rate: float


@dataclass(frozen=True)
class Position:
    first: int


@dataclass(frozen=True)
class After:
    tokens: tuple[int, ...]
    started: float = 0.0


@dataclass(frozen=True)
class Not:
    inner: Any


@dataclass(frozen=True)
class Or:
    left: Any
    right: Any


def test_objects_are_read_by_their_names_and_their_numbers_replaced_from_the_left():
    gate = Or(Or(Budget(0.2), Not(Position(4))), Or(Entropy(), Budget(0.3)))
    expected = (
        "Or",
        ("Or", ("Budget", 0.2), ("Not", ("Position", 4.0))),
        ("Or", ("Entropy",), ("Budget", 0.3)),
    )
    assert expression_of(gate) == expected
    assert initial_state(expected, 1.5) == [1.5, 1.5]
    assert numbered(gate, [1, 2, 3]) == (
        "Or", ("Or", ("Budget", 1.0), ("Not", ("Position", 2.0))), ("Or", ("Entropy",), ("Budget", 3.0)),
    )  # fmt: skip
    assert numbered(Or(After((7, 8)), Position(4)), [1, 2]) == (
        "Or",
        ("After", [7, 8], 1.0),
        ("Position", 2.0),
    )


def test_tilts_follow_their_equations():
    values = np.array([1.0, 3.0, 5.0])
    np.testing.assert_array_equal(tilt_of(("Additive",), values, 2.0), [2, 6, 10])
    np.testing.assert_array_equal(tilt_of(("Centred",), values, 2.0), [-4, 0, 4])
    np.testing.assert_allclose(tilt_of(("Standardised",), values, 2.0), np.sqrt(6) * np.array([-1, 0, 1]))
    np.testing.assert_array_equal(tilt_of(("Standardised",), np.full(3, 0.1), 2.0), [0, 0, 0])
    np.testing.assert_array_equal(tilt_of(("Clipped", 3.0, ("Centred",)), values, 2.0), [-3, 0, 3])
    np.testing.assert_array_equal(tilt_of(("Advantage",), values, 2.0, 2.0), [-2, 2, 6])
    np.testing.assert_array_equal(tilt_of(("Clipped", 3.0, ("Advantage",)), values, 2.0, 2.0), [-2, 2, 3])
    assert reads_prefix_value(("Clipped", 3.0, ("Advantage",)))
    assert not reads_prefix_value(("Clipped", 3.0, ("Centred",)))


# Choices


def test_the_lowest_of_equal_ids_wins_at_temperature_zero():
    s = settings(temperature=0.0)
    assert own_choice(view_of(np.array([0.0, 2.0, 2.0]), s), KEY, s) == (1, {"own": 0.0})
    assert steered_choice(np.array([1.0, 2.0, 2.0]), np.array([0, 9, 4]), KEY, s) == (4, 0.0)


@pytest.mark.parametrize(
    "changes", [{}, {"temperature": 0.5}, {"top_k": 6}, {"top_p": 0.8}, {"unsteered": "candidates"}], ids=str
)
def test_the_race_draws_from_the_filtered_distribution(changes):
    s = settings(**changes)
    l = np.array([0.3, -0.2, 1.1, 0.9, -1.0, 0.5, 0.0, 0.7])
    view, draws = view_of(l, s), 1000
    p = np.where(view.keep, np.exp(l / s.temperature), 0)
    if s.unsteered == "candidates":
        p[np.setdiff1d(np.arange(8), view.candidates)] = 0
    p = p / p.sum()
    counts = np.bincount([own_choice(view, fold_in(KEY, t), s)[0] for t in range(draws)], minlength=8)
    assert np.all(np.abs(counts / draws - p) < 4 * np.sqrt(p * (1 - p) / draws) + 1e-12)


def test_the_rest_is_picked_in_id_order_by_its_own_uniform():
    l = np.zeros(6)
    s = settings(num_candidates=1)
    view = view_of(l, s)
    picked = 0
    for t in range(50):
        key = fold_in(KEY, t)
        token, distances = own_choice(view, key, s)
        wins = math.log(5) + gumbel(key, REST) > gumbel(key, 0)
        assert ("rest" in distances) == wins
        if wins:
            u = uniform(key, PICK)
            assert token == 1 + math.floor(5 * u)
            assert distances["rest"] == pytest.approx(min(abs(u - i / 5) for i in range(1, 5)))
            picked += 1
    assert 30 < picked < 50


def test_without_a_tilt_the_steered_choice_is_the_policys_own_among_the_candidates():
    s = settings(unsteered="candidates")
    view = view_of(np.random.default_rng(1).normal(size=9), s)
    for t in range(20):
        key = fold_in(KEY, t)
        assert own_choice(view, key, s)[0] == steered_choice(view.l[view.members], view.members, key, s)[0]


def test_the_divergence_is_that_of_the_two_distributions():
    policy, ids, scores = np.log(PROBABILITIES), np.array([1, 3]), np.log([0.5, 0.5])
    logprob, kl = drawn_from(3, ids, scores, policy, settings(temperature=0.7))
    assert logprob == pytest.approx(math.log(0.5))
    assert kl == pytest.approx(0.5 * math.log(0.5 / 0.4) + 0.5 * math.log(0.5 / 0.3))
    assert drawn_from(3, ids, scores, policy, settings(temperature=0.0)) == (
        0.0,
        pytest.approx(-math.log(0.3)),
    )


# Replies


def test_a_reply_records_every_token():
    reply = reply_of(threshold=1.05)
    lists = [name for name, kept in vars(reply).items() if isinstance(kept, list)]
    assert {len(getattr(reply, name)) for name in lists} == {12}
    assert 0 < sum(reply.junction) < 12
    assert any(reply.shifted)
    for t, junction in enumerate(reply.junction):
        assert junction == (reply.entropy[t] >= 1.05)
        assert math.isnan(reply.value[t]) != junction
        if junction:
            chosen = reply.candidate_ids[t].index(reply.tokens[t])
            assert reply.value[t] == reply.candidate_values[t][chosen]
        else:
            assert reply.own_choice[t] == reply.tokens[t]
            assert reply.logprob[t] == pytest.approx(reply.policy_logprob[t])
            assert reply.kl[t] == pytest.approx(0, abs=1e-12)


def test_a_reply_never_leaves_what_it_may_say():
    reply = reply_of(num_tokens=30, banned_ids=range(0, 30, 2), threshold=-math.inf, num_candidates=20)
    assert all(token < 30 and token % 2 for token in reply.tokens)


def test_a_reply_without_a_value_model_has_no_junction():
    reply = generate(models()[0], None, PROMPT, [], settings(threshold=-math.inf))
    assert not any(reply.junction)
    assert reply.value_tokens == 0


def test_a_reply_that_never_asks_counts_the_policy_alone():
    reply = reply_of(threshold=math.inf)
    assert (reply.policy_tokens, reply.value_tokens) == (len(PROMPT) + 11, 0)


@pytest.mark.parametrize(
    ("head", "gate", "value_tokens"),
    [
        ("scalar", ("Always",), 12 * 3),
        ("scalar", ("Position", 4), 4 * 3),
        ("scalar", ("Not", ("Position", 4)), 4 + 8 * 3),
        ("vocab", ("Always",), 11),
        ("vocab", ("Position", 4), 3),
    ],
)
def test_counts_are_of_the_tokens_that_a_cache_would_lack(head, gate, value_tokens):
    assert reply_of(head, gate=gate).value_tokens == len(VALUE_PROMPT) + value_tokens


def test_a_stop_id_ends_the_reply_and_not_before_the_minimum_length():
    free = reply_of()
    stop = free.tokens[5]
    first = free.tokens.index(stop)
    stopped = reply_of(stop_ids=[stop])
    assert (stopped.tokens, stopped.finish_reason) == (free.tokens[: first + 1], "stop")
    assert stopped.policy_tokens == len(PROMPT) + first
    assert stop not in reply_of(stop_ids=[stop], min_new_tokens=12).tokens
    assert free.finish_reason == "length"


def test_logits_that_are_not_finite_end_the_reply_without_a_token():
    free = reply_of(threshold=math.inf)
    length, poison = next((t + 1, a) for t, a in enumerate(free.tokens) if a not in PROMPT)
    broken = NumpyModel(tiny_policy().params, tiny_policy().config)
    broken.weights["embed_tokens.weight"][poison] = np.nan
    reply = generate(broken, None, PROMPT, [], settings())
    assert (reply.finish_reason, reply.tokens) == ("non_finite", free.tokens[:length])
    assert reply.policy_tokens == len(PROMPT) + length
    assert len(reply.margins) == length


def test_a_value_that_is_not_finite_ends_the_reply_and_is_counted():
    free = reply_of()
    tiny = tiny_value_model(tiny_policy())
    broken = NumpyModel(tiny.params, tiny.config, tiny.base)
    broken.weights["embed_tokens.weight"][free.candidate_ids[0][2]] = np.inf
    reply = generate(models()[0], broken, PROMPT, VALUE_PROMPT, settings())
    assert (reply.finish_reason, reply.tokens, len(reply.margins)) == ("non_finite", [], 1)
    assert (reply.policy_tokens, reply.value_tokens) == (len(PROMPT), len(VALUE_PROMPT) + 3)


def test_the_first_small_margin_is_where_float32_may_part():
    reply = reply_of()
    assert reply.first_small_margin(0.0) == 12
    smallest = int(np.argmin(reply.margins))
    assert reply.first_small_margin(reply.margins[smallest] * 1.001) == smallest
    assert reply.comparisons[smallest]["gate"] >= reply.margins[smallest]


BOUNDED = ("Clipped", 0.3, ("Advantage",))
EXPOSING = {
    "candidate_position": {"threshold": -math.inf},
    "policy_prompt": {"threshold": -math.inf},
    "value_prompt": {"head": "states", "threshold": -math.inf},
    "unwritten": {"threshold": -math.inf},
    "step_key": {},
    "late_penalty": {"repetition_penalty": 1.8, "presence_penalty": 1.0},
    "filtered_entropy": {"temperature": 0.5, "top_p": 0.8},
    "waiting_gate": {"gate": ("Budget", 0.5)},
    "early_verdict": {"gate": ("And", ("And", ("Always",), ("Refractory", 2.0)), ("Budget", 0.4))},
    "late_marker": {"gate": ("After", [7], 0.0), "bias": {7: 3.0}},
    "prefix_value_shifted": {"tilt": BOUNDED, "beta": 4.0, "read_all": 1},
    "stale_prefix_value": {"tilt": BOUNDED, "beta": 4.0, "read_all": 1},
    "half_reach": {"tilt": BOUNDED, "threshold": -math.inf},
    "own_where_decided": {"tilt": BOUNDED, "threshold": -math.inf, "temperature": 2.0},
    "unread_as_read": {"tilt": BOUNDED, "threshold": -math.inf},
    "adapted_policy": {"threshold": -math.inf},
    "policy_unwritten": {"threshold": -math.inf},
    "neighbour_state": {"threshold": -math.inf},
    "processed_top": {"repetition_penalty": 1.8, "top_logprobs": 3},
    "late_top": {"threshold": -math.inf, "top_logprobs": 3},
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_every_mutation_shows(mutation):
    changes = EXPOSING[mutation]
    true, mutated = reply_of(**changes), reply_of(**changes, mutation=mutation)
    agreed = min(true.first_small_margin(), len(true.tokens))
    assert agreed > 3
    differs = [
        true.tokens[:agreed] != mutated.tokens[:agreed],
        true.junction[:agreed] != mutated.junction[:agreed],
        not np.allclose(true.value[:agreed], mutated.value[:agreed], rtol=1e-2, equal_nan=True),
        not np.allclose(true.gate_state[:agreed], mutated.gate_state[:agreed], rtol=1e-2),
        not np.allclose(true.logprob[:agreed], mutated.logprob[:agreed], rtol=1e-2, equal_nan=True),
        not np.allclose(true.policy_logprob[:agreed], mutated.policy_logprob[:agreed], rtol=1e-2),
        true.contenders[:agreed] != mutated.contenders[:agreed],
        true.top_ids[:agreed] != mutated.top_ids[:agreed],
        agreed == len(true.tokens) and true.value_tokens != mutated.value_tokens,
    ]
    assert any(differs)
