"""Rows that live say what `sample` says, whenever they come and however windows cut them."""

import functools
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sia_jax
from sia_jax.decoding import window as programs
from sia_jax.decoding.schedule import Shared
from sia_jax.decoding.state import FinishReason
from sia_jax.parallel.mesh import make_mesh
from sia_jax.steering.gates import After, Bernoulli, Budget, Entropy, Position
from sia_jax.steering.tilts import Additive, Advantage, Clipped
from tests.decoding.test_over_a_mesh import placed
from tests.support.checkpoints import tiny_policy, tiny_value_model
from tests.support.living import Request, Rows, Said, assert_same, packed, sampled
from tests.support.marks import long

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 40, "num_heads": 4, "num_kv_heads": 2}
ROWS, LENGTH = 8, 12

MARKER = (60, 60, 60)
"""Of the gate, which is shut after it; but for the test that asks for it, it is hardly ever said."""


SCHEDULES = {"shared": Shared(), "look-ahead": Shared(look_ahead=True)}
"""Of value models with a scalar head, in place of Burst."""


@functools.cache
def models(head: str) -> tuple[sia_jax.SteeringParams, sia_jax.SamplerConfig]:
    policy = tiny_policy(num_layers=1, **SIZES)
    value = tiny_value_model(policy, head="scalar" if head in SCHEDULES else head)
    steering = sia_jax.SteeringConfig(
        num_candidates=4, gate=Entropy() & Budget(0.6) & ~After(MARKER), tilt=Clipped(0.5, Advantage())
    )
    config = sia_jax.SamplerConfig(
        policy.config,
        value.config,
        steering,
        max_new_tokens=LENGTH,
        chunk=8,
        slots=3,
        top_logprobs=3,
        schedule=SCHEDULES.get(head),
    )
    return sia_jax.SteeringParams(policy.params, value.params), config


@functools.cache
def requests(count: int = 14) -> tuple[Request, ...]:
    rng = np.random.default_rng(7)

    def ids(longest: int) -> tuple[int, ...]:
        return tuple(rng.integers(4, 64, rng.integers(1, longest + 1)).tolist())

    thresholds = (1.0, np.inf, -np.inf, 1.2)
    penalties = ({}, {"presence_penalty": 2.0}, {"temperature": 0.7})
    return tuple(
        Request(ids(8), ids(8), seed=i, threshold=thresholds[i % 4], knobs=penalties[i % 3])
        for i in range(count)
    )


@functools.cache
def expected(head: str) -> list[Said]:
    return sampled(*models(head), requests())


def lasting() -> Request:
    """A request whose reply is cut at its full length, steered here and there."""
    return next(
        one
        for one, said in zip(requests(), expected("scalar"), strict=True)
        if said.length == LENGTH and 2 < said.record.junction.sum() < LENGTH - 2
    )


@pytest.mark.parametrize("head", ["scalar", long("vocab"), long("shared"), long("look-ahead")])
def test_requests_that_come_into_a_running_state_get_the_replies_of_sample(head):
    rows = Rows(*models(head), ROWS)
    found = rows.run([3, 1, 8, 2], requests(), at_once=3)
    for one, other in zip(found, expected(head), strict=True):
        assert_same(one, other)
    steered = np.concatenate([one.record.junction for one in found])
    assert 0.1 < steered.mean() < 0.9, "tokens of both kinds are seen"
    assert len({one.finish_reason for one in found}) > 1, "replies end in several ways"


def test_windows_of_any_lengths_change_no_bit():
    first, *others = (
        Rows(*models("scalar"), ROWS).run(steps, requests()[:ROWS]) for steps in ([8], [1], [5, 2])
    )
    for other in others:
        for one, two in zip(first, other, strict=True):
            assert_same(one, two, exact=True)


def test_the_row_and_what_it_held_before_change_no_bit():
    params, config = models("scalar")
    fresh = Rows(params, config, ROWS)
    fresh.admit({0: (0, requests()[5])})
    while fresh.holds:
        fresh.window(8)
    used = Rows(params, config, ROWS)
    used.admit({row: (row + 1, requests()[row]) for row in range(ROWS)})
    used.window(6)
    used.admit({3: (0, requests()[5])})
    while 0 not in used.replies:
        used.window(8)
    assert_same(used.replies[0], fresh.replies[0], exact=True)


@pytest.mark.long
@pytest.mark.parametrize("head", ["scalar", "shared", "look-ahead"])
def test_a_fork_at_the_first_token_is_a_branch_and_one_under_its_own_key_a_copy(head):
    params, config = models(head)
    one = lasting()
    branches = sampled(params, replace(config, branches=3), [one])
    keys = [jax.random.fold_in(jax.random.key(one.seed, impl="threefry2x32"), j) for j in range(3)]
    rows = Rows(params, config, ROWS)
    rows.admit({2: (9, one)})
    rows.fork([2, 2, 2], {5: 0, 0: 1, 6: 2}, [jax.random.key_data(key) for key in keys])
    rows.window(4)
    rows.fork([5], {1: 3}, [jax.random.key_data(keys[0])])
    while rows.holds:
        rows.window(3)
    for number, branch in enumerate(branches):
        assert_same(rows.replies[number], branch)
    assert_same(rows.replies[3], rows.replies[0], exact=True)
    assert len({one.record.tokens.tobytes() for one in rows.replies.values()}) > 2


def test_a_fork_in_the_middle_keeps_what_was_said_and_goes_on_under_its_key():
    params, config = models("scalar")
    rows = Rows(params, config, ROWS)
    rows.admit({0: (0, lasting())})
    rows.window(5)
    said = rows.window(1).lengths[0]
    other = jax.random.key_data(jax.random.key(77, impl="threefry2x32"))
    rows.fork([0], {4: 1}, [other])
    while rows.holds:
        rows.window(8)
    one, two = rows.replies[0].record.tokens, rows.replies[1].record.tokens
    np.testing.assert_array_equal(one[:said], two[:said])
    assert one.tolist() != two.tolist()


def test_a_marker_is_complete_wherever_windows_cut_it_and_in_a_fork_of_half_of_it():
    rows = Rows(*models("scalar"), ROWS)
    only = Request((5,), (7,), 0, -np.inf, {"min_new_tokens": LENGTH}, bias=(MARKER[0], 99.0))
    rows.admit({1: (0, only)})
    for said in (1, 2):
        assert rows.window(1).lengths[1] == said
    rows.fork([1], {6: 1}, [requests()[0].key])
    rows.admit({2: (2, only)})
    while rows.holds:
        rows.window(3)
    for reply in rows.replies.values():
        assert set(reply.record.tokens.tolist()) == {60}
        assert reply.record.junction.tolist() == [True] * 3 + [False] * (LENGTH - 3)


def test_a_cancelled_row_says_no_more_and_its_neighbours_feel_nothing():
    params, config = models("scalar")
    alone = Rows(params, config, ROWS).run([4], requests()[:ROWS])
    rows = Rows(params, config, ROWS)
    rows.admit({row: (row, requests()[row]) for row in range(ROWS)})
    rows.window(4)
    before = list(rows.holds)[:2]
    assert len(before) == 2
    report = rows.window(4, cancel=before)
    assert (report.counts[before] == 0).all()
    while rows.holds:
        rows.window(4)
    for number, reply in rows.replies.items():
        if number in before:
            assert reply.finish_reason == FinishReason.CANCELLED
        else:
            assert_same(reply, alone[number], exact=True)


def test_a_row_that_waits_at_a_border_may_speak_before_the_first_step():
    params, config = models("scalar")
    config = replace(
        config, steering=replace(config.steering, gate=Entropy()), schedule=sia_jax.Burst(2, 100)
    )
    rows = Rows(params, config, ROWS)
    dense, plain = (Request((5, 6), (5, 6), i, threshold) for i, threshold in enumerate((-np.inf, np.inf)))
    rows.admit({0: (0, dense), 1: (1, plain)})
    assert rows.window(2).counts[:2].tolist() == [0, 2]
    assert rows.window(2, cancel=[1]).counts[:2].tolist() == [3, 0]


def test_requests_that_nothing_steers_need_no_value_prompts():
    params, config = models("scalar")
    rows = Rows(params, config, ROWS)
    plain = {n: one for n, one in enumerate(requests()[:ROWS]) if one.threshold == np.inf}
    steered = {n: one for n, one in enumerate(requests()[:ROWS]) if one.threshold < np.inf}
    rows.admit({row: (row, one) for row, one in steered.items()})
    rows.window(1)
    rows.admit({row: (row, one) for row, one in plain.items()}, read_values=False)
    assert rows.window(0).value_computed == 0
    while rows.holds:
        rows.window(8)
    for number in (*plain, *steered):
        assert_same(rows.replies[number], expected("scalar")[number])


# On a mesh


def spread(shape: tuple[int, int, int]) -> Rows:
    params, config = models("scalar")
    mesh = make_mesh(*shape)
    return Rows(placed(params, mesh), replace(config, mesh=mesh), ROWS)


@pytest.mark.parametrize("shape", [(2, 2, 2), long((4, 2, 1))])
def test_rows_on_a_mesh_say_what_sample_says_on_one_device(shape):
    for one, other in zip(spread(shape).run([3, 1, 8], requests()), expected("scalar"), strict=True):
        assert_same(one, other)


@pytest.mark.long
def test_a_fork_crosses_from_one_group_of_devices_to_another():
    rows = spread((4, 2, 1))
    rows.admit({0: (0, lasting()), 3: (1, requests()[2])})
    rows.window(3)
    rows.fork([0], {7: 2}, [lasting().key])
    while rows.holds:
        rows.window(5)
    assert_same(rows.replies[2], rows.replies[0], exact=True)


@pytest.mark.parametrize("shape", [None, long((2, 2, 2)), long((4, 2, 1))])
def test_one_program_serves_all_windows_and_keeps_the_state_where_it_lies(shape):
    rows = spread(shape) if shape else Rows(*models("scalar"), ROWS)
    rows.admit({row: (row, requests()[row]) for row in range(ROWS)})

    def lies() -> list[tuple[object, list[int]]]:
        return [
            (leaf.sharding, [shard.data.unsafe_buffer_pointer() for shard in leaf.addressable_shards])
            for leaf in jax.tree.leaves((rows.state.policy_cache, rows.state.value_cache))
        ]

    rows.window(2)
    first, old = lies(), rows.state
    compiled = programs._window._cache_size(), programs._admit._cache_size()
    for steps in (1, 3, 2):
        rows.window(steps)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old)), "the state is donated"
    assert lies() == first, "caches are written where they lie"
    rows.admit({row: (90 + row, requests()[row]) for row in (0, 5)})
    rows.window(2)
    rows.admit({1: (99, requests()[1])})
    assert lies() == first
    assert (programs._window._cache_size(), programs._admit._cache_size()) == compiled


@pytest.mark.parametrize("shape", [None, long((2, 2, 2))])
def test_a_window_takes_every_leaf_of_the_state_over_and_copies_no_cache(shape):
    rows = spread(shape) if shape else Rows(*models("scalar"), ROWS)
    arguments = rows.params, rows.state, rows.schedule, jnp.int32(3), jnp.zeros(ROWS, bool)
    text = programs._window.lower(*arguments, config=rows.config).compile().as_text()
    aliases = re.search(r"input_output_alias=\{(.*?)\}, entry", text)
    assert aliases
    assert aliases[1].count("alias)") == len(jax.tree.leaves(rows.state))
    cache = rows.state.policy_cache.keys[0].addressable_shards[0].data.shape
    pattern = rf"f32\[{','.join(map(str, cache))}\]\S* copy\("
    assert not re.search(pattern, text)


@pytest.mark.parametrize("shape", [None, long((2, 2, 2))])
def test_a_window_lowered_from_shapes_alone_takes_the_state_that_windows_return(shape):
    rows = spread(shape) if shape else Rows(*models("scalar"), ROWS)
    rows.admit({row: (row, requests()[row]) for row in range(ROWS)})
    rows.window(1)
    program = programs.lower(
        rows.params,
        rows.state.numbers,
        rows.schedule,
        config=rows.config,
        policy_tokens=rows.state.policy_ids.shape[1],
        value_tokens=rows.state.value_ids.shape[1],
    ).compile()
    taken = jax.tree.leaves(program.input_shardings[0][1]), jax.tree.leaves(program.args_info[0][1])
    for leaf, sharding, info in zip(jax.tree.leaves(rows.state), *taken, strict=True):
        assert (leaf.shape, leaf.dtype) == (info.shape, info.dtype)
        assert leaf.size == 0 or sharding.is_equivalent_to(leaf.sharding, leaf.ndim)
        assert info.donated


# What rows must not hand on, and what is refused


def with_nan(params: sia_jax.SteeringParams, token: int, model: str) -> sia_jax.SteeringParams:
    """The same with a NaN in the row of the embedding that belongs to an id; of one model alone."""
    spoilt = params.policy["model"]["embed_tokens"]["weight"].at[token].set(jnp.nan)
    spoilt = params.policy["model"] | {"embed_tokens": {"weight": spoilt}}
    if model == "policy":
        return replace(params, policy=params.policy | {"model": spoilt})
    value = {"model": spoilt, "value_head": params.value["value_head"]}
    return replace(params, value=value)


@pytest.mark.parametrize("model", ["policy", long("value")])
def test_a_row_that_failed_leaves_nothing_to_the_next_one(model):
    params, config = models("scalar")
    params = replace(
        params, value={"model": params.policy["model"], "value_head": params.value["value_head"]}
    )
    # Of a bounded tilt no value would be read, for nothing contends with that id.
    steering = replace(config.steering, gate=Entropy() & ~Position(1), tilt=Additive())
    config = replace(config, steering=steering, value=replace(config.value, lora=None))
    # The id is said first, unsteered, and read by both models in the second column of the reply.
    fails = Request((5,) * 8, (5,) * 8, seed=0, threshold=-np.inf, bias=(60, 99.0))
    next_one = Request((5,), (7,), seed=1, threshold=-np.inf)
    rows = Rows(params, config, ROWS)
    rows.params = with_nan(params, 60, model)
    rows.admit({2: (0, fails)})
    while rows.holds:
        rows.window(8)
    assert (rows.replies[0].finish_reason, rows.replies[0].length) == (FinishReason.NON_FINITE, 1)
    rows.params = params
    rows.admit({2: (1, next_one), 3: (2, next_one)})
    while rows.holds:
        rows.window(8)
    assert rows.replies[1].finish_reason != FinishReason.NON_FINITE
    assert_same(rows.replies[1], rows.replies[2], exact=True)


def test_rows_outside_the_batch_are_nowhere_and_rows_may_be_swapped():
    params, config = models("scalar")
    rows = Rows(params, config, ROWS)
    rows.admit({row: (row, requests()[row]) for row in (0, 7)})
    keys = jnp.stack([requests()[7].key, requests()[0].key, requests()[0].key, requests()[0].key])
    rows.state = programs.fork(
        rows.state,
        jnp.array([7, 0, 0, 0]),
        jnp.array([0, 7, -1, ROWS + 3]),
        keys,
        config=rows.config,
    )
    rows.holds = {0: 7, 7: 0}
    while rows.holds:
        rows.window(8)
    for number in (0, 7):
        assert_same(rows.replies[number], expected("scalar")[number])


@pytest.mark.long
def test_a_copy_of_a_row_that_waits_decides_anew_under_its_own_key():
    params, config = models("scalar")
    steering = replace(config.steering, gate=Entropy() | Bernoulli(0.0), unsteered="candidates")
    config = replace(config, steering=steering, schedule=sia_jax.Burst(2, 100))
    rows = Rows(params, config, ROWS)
    dense, plain = (Request((5, 6), (5, 6), i, threshold) for i, threshold in enumerate((-np.inf, np.inf)))
    dense = replace(dense, knobs={"beta": 0.0})
    rows.admit({0: (0, dense), 1: (1, plain)})
    assert rows.window(1).counts[0] == 0, "it waits"
    keys = [jax.random.key_data(jax.random.key(n, impl="threefry2x32")) for n in (20, 21, 22)]
    rows.fork([0, 0, 0], {3: 3, 4: 4, 5: 5}, keys)
    while rows.holds:
        rows.window(8)
    assert not any(rows.replies[n].record.shifted.any() for n in (0, 3, 4, 5)), "beta is 0"
    fresh = [replace(dense, seed=seed) for seed in (0, 20, 21, 22)]
    for number, one in zip((0, 3, 4, 5), sampled(params, config, fresh), strict=True):
        assert_same(rows.replies[number], one)


def test_a_waiting_row_may_be_cancelled_and_does_not_count_for_a_pass():
    params, config = models("scalar")
    steering = replace(config.steering, gate=Entropy(), tilt=Additive())  # which decides nothing at once
    config = replace(config, steering=steering, schedule=sia_jax.Burst(2, 100))
    rows = Rows(params, config, ROWS)
    first, second, plain = (
        Request((5, 6), (5, 6), i, threshold) for i, threshold in enumerate((-np.inf, -np.inf, np.inf))
    )
    rows.admit({0: (0, first), 1: (1, replace(plain, knobs={"min_new_tokens": 9}))})
    rows.window(1)
    rows.admit({2: (2, second)})
    assert rows.window(1, cancel=[0]).counts[:3].tolist() == [0, 1, 0]
    assert rows.replies[0].finish_reason == FinishReason.CANCELLED


def test_a_window_takes_no_more_steps_than_its_report_has_columns_and_none_is_no_step():
    params, config = models("scalar")
    rows = Rows(params, config, ROWS)
    rows.admit({0: (0, Request((5,), (5,), 0, np.inf, {"min_new_tokens": LENGTH}))})
    report = rows.window(0)
    assert (report.policy_steps, report.counts.sum()) == (0, 0)
    report = rows.window(100)
    assert report.policy_steps == report.counts[0] == rows.config.chunk
    assert report.said.tokens.shape == (ROWS, rows.config.chunk + 1)


@pytest.mark.parametrize("shape", [None, long((2, 2, 2))])
def test_a_report_counts_what_all_devices_computed_in_its_window(shape):
    rows = spread(shape) if shape else Rows(*models("scalar"), ROWS)
    rows.admit({row: (row, requests()[row]) for row in range(ROWS)})
    for prefilled in (ROWS * 8, 0):
        report = rows.window(3)
        assert report.policy_computed == prefilled + report.policy_steps * ROWS
        groups = rows.config.row_groups
        passes = report.value_calls * rows.config.pass_tokens * groups
        assert report.value_computed == prefilled + passes


def refused(**changes):
    params, config = models("scalar")
    rows = Rows(params, config, ROWS)
    prompts, numbers = packed([requests()[0]] * ROWS, rows.config)
    given = {"rows": np.arange(ROWS), "prompts": prompts, "numbers": numbers} | changes
    programs.admit(params, rows.state, config=rows.config, **given)


def test_what_does_not_fit_into_a_row_is_refused():
    config = models("scalar")[1].resolve(ROWS)
    _, numbers = packed([requests()[0]] * ROWS, config)
    wide = sia_jax.Prompt.pack([[5] * 17] * ROWS, policy_length=17, value_length=17)
    with pytest.raises(
        ValueError, match=r"policy prompt and reply must fit into a row of 20 tokens, got .*29"
    ):
        refused(prompts=wide)
    short = replace(numbers, max_new_tokens=jnp.full(ROWS, 3))
    refused(prompts=wide, numbers=short)
    buffer = sia_jax.Prompt.pack([[5]] * ROWS, policy_length=24, value_length=24)
    with pytest.raises(ValueError, match="buffers of 24 ids do not fit into rows of 20 tokens"):
        refused(prompts=buffer)
    biased = replace(numbers, bias_ids=jnp.full((ROWS, 2), 9), bias=jnp.ones((ROWS, 2)))
    with pytest.raises(ValueError, match=r"bias_ids must have the width .* 1, got 2"):
        refused(numbers=biased)
    with pytest.raises(ValueError, match=r"no row twice, got \[3\]"):
        refused(rows=np.array([0, 1, 2, 3, 3, 5, 6, 7]))


def test_value_prompts_of_requests_that_may_be_steered_cannot_stay_unread():
    with pytest.raises(ValueError, match=r"threshold of \+inf, got \(entry, threshold\) \[\(0, 1\.0\)"):
        refused(read_values=False)
    params, config = models("scalar")
    config = replace(config, steering=replace(config.steering, gate=Bernoulli(0.5)))
    rows = Rows(params, config, ROWS)
    with pytest.raises(ValueError, match="not shut this gate, Bernoulli"):
        rows.admit({0: (0, requests()[1])}, read_values=False)


def test_an_entry_goes_to_a_row_of_its_own_group():
    rows = spread((4, 2, 1))
    prompts, numbers = packed([requests()[0]] * ROWS, rows.config)
    with pytest.raises(
        ValueError, match=r"its own group of devices, got \(entry, row\) \[\(0, 7\)\] of 8 groups"
    ):
        programs.admit(
            rows.params, rows.state, np.array([7] + [ROWS] * 7), prompts, numbers, config=rows.config
        )


@pytest.mark.long
@pytest.mark.parametrize("kind", ["one row", "no value model", "candidates"])
def test_other_kinds_of_rows_say_what_sample_says(kind):
    params, config = models("scalar")
    count, asked = (1 if kind == "one row" else ROWS), requests()[:4]
    if kind == "no value model":
        params, config = replace(params, value=None), replace(config, value=None)
        asked = [replace(one, threshold=np.inf) for one in asked]
    if kind == "candidates":
        config = replace(config, record="candidates")
    found = Rows(params, config, count).run([3, 8], asked)
    for one, other in zip(found, sampled(params, config, asked), strict=True):
        assert_same(one, other)
