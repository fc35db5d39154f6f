"""The sampler whose passes attend by a fused kernel: the oracle's replies, rows that live, refusals."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sia_jax
from sia_jax.decoding import sample as sampler
from sia_jax.decoding.checks import check_attention
from sia_jax.decoding.policy_pass import policy_step
from sia_jax.decoding.row_params import make_row_params
from sia_jax.decoding.schedule import Burst, Shared
from sia_jax.decoding.state import FinishReason
from sia_jax.decoding.value_pass import value_pass
from sia_jax.parallel.mesh import make_mesh
from sia_jax.steering.config import SteeringConfig
from sia_jax.steering.gates import Entropy, Position
from sia_jax.steering.tilts import Additive
from tests.decoding.test_rows import models, with_nan
from tests.support.checkpoints import tiny_config
from tests.support.cudnn import believe_in_cudnn
from tests.support.living import Request, Rows, assert_same, sampled
from tests.support.sampling import difference, make_program, random_row, reply_of, run


@pytest.mark.parametrize(
    ("schedule", "options"),
    [(Burst(2), {"head": "vocab", "merged": True}), (Shared(look_ahead=True), {})],
)
def test_the_replies_are_those_of_the_oracle(schedule, options: dict[str, Any]):
    program = make_program(
        SteeringConfig(num_candidates=6),
        schedule=schedule,
        attention="xla",
        slots=3,
        row_tokens=9,
        pass_tokens=16,
        **options,
    )
    rng = np.random.default_rng(5)
    rows = [random_row(program, rng, threshold=threshold) for threshold in (-np.inf, 1.4, np.inf, 1.5) * 2]
    outcome = run(program, rows)
    assert 0.1 < outcome.samples.junction.mean() < 0.9
    for i, row in enumerate(rows):
        assert difference(program, outcome, i, reply_of(program, row)) == ""


def test_rows_that_live_say_what_sample_says_by_our_own_products():
    params, config = models("scalar")
    rng = np.random.default_rng(6)

    def ids(longest: int) -> tuple[int, ...]:
        return tuple(rng.integers(4, 60, rng.integers(1, longest + 1)).tolist())

    requests = [Request(ids(8), ids(8), seed, threshold=1.0) for seed in range(6)]
    found = Rows(params, replace(config, attention="xla"), 4).run([3, 8], requests)
    for one, other in zip(found, sampled(params, config, requests), strict=True):
        assert_same(one, other)


def test_a_row_that_failed_leaves_no_key_that_a_mask_could_not_take_out():
    params, config = models("scalar")
    value = {"model": params.policy["model"], "value_head": params.value["value_head"]}
    params = replace(params, value=value)
    steering = replace(config.steering, gate=Entropy() & ~Position(1), tilt=Additive())
    config = replace(config, steering=steering, value=replace(config.value, lora=None), attention="xla")
    rows = Rows(params, config, 4)
    rows.params = with_nan(params, 60, "policy")
    rows.admit({2: (0, Request((5,) * 8, (5,) * 8, seed=0, threshold=-np.inf, bias=(60, 99.0)))})
    while rows.holds:
        rows.window(8)
    assert rows.replies[0].finish_reason == FinishReason.NON_FINITE
    assert not all(np.isfinite(x).all() for x in rows.state.policy_cache.keys)
    rows.params = params
    rows.admit({2: (1, Request((5,), (7,), seed=1))})
    assert all(np.isfinite(x).all() for x in rows.state.policy_cache.keys)


def test_for_cuda_each_layer_of_each_pass_is_one_call_of_cudnn(monkeypatch):
    believe_in_cudnn(monkeypatch)
    program = make_program(attention="cudnn", merged=True)
    config = program.config.resolve(4)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), program.params)
    numbers = make_row_params(1.0, jax.random.key(0, impl="threefry2x32"), sia_jax.Knobs(), 4, config)
    prompt = jax.tree.map(jnp.asarray, sia_jax.Prompt.pack([[5, 6], [7], [8, 9, 10], [11]]))
    layers = config.policy.num_layers

    def calls(traced: Any, name: str) -> int:
        return traced.lower(lowering_platforms=("cuda",)).as_text().count(f"@{name}(")

    begun = jax.jit(lambda params: sampler.start(params, prompt, numbers, config))
    # Of a prompt the last layer's keys and values are all that is taken.
    assert calls(begun.trace(half), "__cudnn$fmhaSoftmax") == layers - 1
    state = jax.eval_shape(begun, half)
    step = jax.jit(lambda params, state: policy_step(params.policy, state, config))
    assert calls(step.trace(half, state), "__cudnn$fmhaSoftmax") == layers
    serve = jax.jit(lambda params, state: value_pass(params.value_net(config), state, config))
    assert calls(serve.trace(half, state), "__cudnn$fmhaScaleBiasSoftmax") == layers


# What is refused


def test_sample_refuses_cudnn_where_there_is_none_before_anything_runs():
    program = make_program(attention="cudnn")
    with pytest.raises(ValueError, match="attention='cudnn' needs an NVIDIA GPU, got cpu"):
        run(program, [random_row(program, np.random.default_rng(0))])


def test_the_heads_of_both_models_are_looked_at(monkeypatch):
    program = make_program(attention="cudnn", merged=True)
    looked = []
    monkeypatch.setattr("sia_jax.decoding.checks.check_kernel", lambda *x: looked.append(x))
    check_attention(program.params.policy, program.params.value, program.config)
    assert looked == [("cudnn", jnp.float32, 8)] * 2
    check_attention(program.params.policy, program.params.value, replace(program.config, attention=None))
    assert len(looked) == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention": "flash"}, r"attention must be None or one of \('cudnn', 'xla'\), got str 'flash'"),
        ({"attention": 1}, "attention must be None or one of"),
        ({"attention": "xla", "mesh": "mesh"}, "attention='xla' is for one device, got a mesh"),
    ],
)
def test_a_configuration_refuses_other_kernels_and_more_than_one_device(fields, message):
    if "mesh" in fields:
        fields = fields | {"mesh": make_mesh(data=2, devices=jax.devices()[:2])}
    with pytest.raises(ValueError, match=message):
        sia_jax.SamplerConfig(policy=tiny_config(), **fields)
