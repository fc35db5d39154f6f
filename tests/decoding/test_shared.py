"""One pass for both models: the replies of Burst, in the steps that it should take; what it is refused."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

import sia_jax
from sia_jax.decoding import sample as sampler
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.schedule import Burst, Shared
from sia_jax.models.config import ValueConfig
from sia_jax.steering.config import Knobs, SteeringConfig
from sia_jax.steering.tilts import Additive, Advantage, Clipped, Tilt
from tests.decoding.test_over_a_mesh import placed
from tests.support.checkpoints import tiny_policy, tiny_value_model
from tests.support.engines import assert_same, make_engine, random_requests, sampled
from tests.support.marks import long
from tests.support.sampling import Program, first_small_margin, make_program, random_row, reply_of, run

ROWS, LENGTH = 16, 20
AHEAD = Shared(look_ahead=True)
NUMBERS: list[dict[str, Any]] = [
    {"threshold": -np.inf},
    {"threshold": 1.5, "temperature": 0.0},
    {"threshold": 1.4, "top_p": 0.9, "beta": 2.0},
    {"threshold": np.inf},
    {"threshold": -np.inf, "temperature": 1.5, "stop_ids": (4, 5, 6, 7)},
]


def made(schedule: Any, tilt: Tilt | None = None, **fields: Any) -> Program:
    steering = SteeringConfig(num_candidates=6, tilt=Additive() if tilt is None else tilt)
    fields = {"slots": 3, "row_tokens": 9, "pass_tokens": 16, "num_layers": 1} | fields
    return make_program(steering, max_new_tokens=LENGTH, schedule=schedule, **fields)


@pytest.mark.parametrize(
    ("schedule", "tilt"),
    [
        (AHEAD, Clipped(0.5, Advantage())),
        long(Shared(), Clipped(0.5, Advantage())),
        long(AHEAD, Additive()),
    ],
)
def test_the_replies_are_those_of_burst_up_to_small_margins(schedule: Shared, tilt: Tilt) -> None:
    one, other = made(schedule, tilt), made(Burst(2), tilt)
    parted = 0
    for call in range(3):
        rng = np.random.default_rng([41, call])
        rows = [random_row(one, rng, **NUMBERS[i % len(NUMBERS)]) for i in range(ROWS)]
        shared, burst = run(one, rows).samples, run(other, rows).samples
        for i, row in enumerate(rows):
            same = shared.tokens[i] == burst.tokens[i]
            same &= shared.values_read[i] == burst.values_read[i]
            if not same.all():
                parted += 1
                assert first_small_margin(one, reply_of(one, row)) <= int(np.argmin(same))
            else:
                counts = [(s.policy_tokens[i], s.value_tokens[i]) for s in (shared, burst)]
                assert counts[0] == counts[1]
    assert parted < 3


@pytest.mark.parametrize("schedule", [AHEAD, long(Shared())])
def test_looking_ahead_a_junction_costs_no_step_and_else_one(schedule: Shared) -> None:
    program = made(schedule, slots=ROWS, row_tokens=26, pass_tokens=ROWS * 26)
    rows = [
        random_row(program, np.random.default_rng([42, i]), threshold=[-np.inf, 1.4][i % 2], stop_ids=())
        for i in range(ROWS)
    ]
    samples = run(program, rows).samples
    junctions = samples.junction.sum(axis=1)
    assert junctions.max() == LENGTH
    # The last of a row's junctions is served in a pass more, for there is no next logit to come with it.
    expected = LENGTH + 1 if schedule.look_ahead else LENGTH + junctions.max()
    assert samples.policy_steps == samples.value_calls == expected


def test_an_engine_over_it_gives_each_request_the_reply_of_sample() -> None:
    requests = random_requests(24)
    with make_engine(schedule=AHEAD) as engine:
        replies = engine.generate(requests)
        expected = sampled(engine, requests)
        steered = engine.statistics().steered_tokens
    for found, other in zip(replies, expected, strict=True):
        assert_same(found, other)
    assert steered > 50


@pytest.mark.long
@pytest.mark.parametrize("schedule", [AHEAD, Shared()])
def test_the_replies_on_a_mesh_are_those_of_one_device(schedule: Shared) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 40, "num_heads": 4, "num_kv_heads": 2}
    policy = tiny_policy(vocab_size=48, num_layers=1, **sizes)
    value = tiny_value_model(policy)
    params = sia_jax.SteeringParams(policy.params, value.params)
    rng = np.random.default_rng(3)
    prompt = sia_jax.Prompt.pack([rng.integers(0, 48, 1 + i % 6).tolist() for i in range(8)])

    def reply(params: sia_jax.SteeringParams, **fields: Any) -> Any:
        config = SamplerConfig(
            policy=policy.config, value=value.config, max_new_tokens=12, schedule=schedule, **fields
        )
        key = jax.random.key(4, impl="threefry2x32")
        return jax.device_get(sampler.sample(params, prompt, 1.9, rng_key=key, config=config))

    mesh = sia_jax.make_mesh(2, 2, 2)
    alone, spread = reply(params), reply(placed(params, mesh), mesh=mesh)
    assert 0.1 < alone.junction.mean() < 0.9
    for name in ("tokens", "junction", "shifted", "lengths", "value_tokens"):
        np.testing.assert_array_equal(getattr(spread, name), getattr(alone, name), err_msg=name)


def test_it_is_refused_where_there_is_no_adapter_over_the_policy_or_nothing_to_look_ahead_to() -> None:
    policy = tiny_policy()
    lora = tiny_value_model(policy).config.lora
    for value, schedule, message in (
        (None, Shared(), "LoRA over the policy's own weights, got none"),
        (ValueConfig(policy.config), Shared(), "got one with weights of its own; load it over the policy"),
        (ValueConfig(policy.config, "vocab", 3, lora), AHEAD, "a vocabulary head reads none"),
    ):
        with pytest.raises(ValueError, match=message):
            SamplerConfig(policy=policy.config, value=value, schedule=schedule)


def test_another_look_ahead_is_another_program_and_no_number_of_a_call() -> None:
    program = made(Shared())
    row = random_row(program, np.random.default_rng(1))
    for given, kind, message in (
        (AHEAD, ValueError, "look_ahead of config.schedule"),
        (Burst(2), TypeError, "a Shared, as config.schedule is"),
    ):
        with pytest.raises(kind, match=message):
            sampler.sample(
                program.params,
                sia_jax.Prompt.pack([row.prompt], [row.value_prompt]),
                1.0,
                rng_key=jax.random.key(0, impl="threefry2x32"),
                config=replace(program.config, record=None),
                knobs=Knobs(schedule=given),
            )
