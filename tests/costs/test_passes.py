"""Bytes and FLOPs of passes against arrays and XLA's own count; how often they run, against a simulation."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sia_jax
from sia_jax.costs.passes import (
    DEVICES,
    Rounds,
    adapter_size,
    expected_ratio,
    expected_rounds,
    shared_pass_cost,
    value_pass_cost,
)
from sia_jax.costs.roofline import DeviceRates, decode_step_cost
from sia_jax.costs.tpu import QWEN3_1_7B
from sia_jax.decoding.config import SamplerConfig, expected_reads
from sia_jax.decoding.schedule import Burst, Schedule, Shared
from sia_jax.models.config import ValueConfig
from sia_jax.models.lora import LoraConfig
from sia_jax.models.passes import hidden_states
from sia_jax.models.transformer import abstract_model
from sia_jax.models.value_model import abstract_value
from sia_jax.steering.tilts import Advantage, Clipped
from sia_jax.types import flatten_names
from tests.support.checkpoints import tiny_config

pytestmark = pytest.mark.optimised

CONFIG = tiny_config()
LORA = LoraConfig(rank=4, target_modules=("q_proj", "v_proj", "down_proj"))
SIZES = {"slots": 3, "pass_tokens": 14, "row_tokens": 12}
BATCH, COLUMNS = 5, 20


def sampler(
    schedule: Schedule, lora: LoraConfig | None = LORA, batch: int = BATCH, **fields: Any
) -> SamplerConfig:
    value = ValueConfig(CONFIG, lora=lora)
    return SamplerConfig(CONFIG, value, schedule=schedule, **{**SIZES, **fields}).resolve(batch)


def real(
    batch: int, ratio: float, schedule: Schedule, contenders: float | None = None, lora: bool = True
) -> tuple[SamplerConfig, Rounds]:
    """Qwen3-1.7B by the rule of `auto`, and how often its passes run."""
    tilt = {} if contenders is None else {"tilt": Clipped(1.0, Advantage())}
    config = SamplerConfig.auto(
        batch,
        ratio,
        contenders,
        policy=QWEN3_1_7B,
        value=ValueConfig(QWEN3_1_7B, lora=LoraConfig() if lora else None),
        steering=sia_jax.SteeringConfig(**tilt),
        schedule=schedule,
    )
    share, read = (ratio, 10.0) if contenders is None else expected_reads(ratio, contenders, 10)
    return config, expected_rounds(config, batch, share, read)


def speed(batch: int, ratio: float, schedule: Schedule, device: str = "H100 SXM", **more: Any) -> float:
    config, rounds = real(batch, ratio, schedule, **more)
    return expected_ratio(config, batch, rounds, DEVICES[device], 512)


def matrices(itemsize: int) -> int:
    """Bytes of all two-axis arrays of the backbone but the embedding, of which a pass looks rows up."""
    leaves = flatten_names(abstract_model(CONFIG)).items()
    return itemsize * sum(x.size for name, x in leaves if x.ndim == 2 and "embed_tokens" not in name)


def adapter_bytes() -> int:
    leaves = flatten_names(abstract_value(ValueConfig(CONFIG, lora=LORA))["lora"]).values()
    return sum(x.size * x.dtype.itemsize for x in leaves)


def entry(itemsize: int) -> int:
    """Keys and values of one token in all layers."""
    return 2 * CONFIG.num_layers * CONFIG.num_kv_heads * CONFIG.head_dim * itemsize


@pytest.mark.parametrize("itemsize", [2, 4])
def test_a_value_pass_reads_every_array_once_its_slots_caches_and_a_row_of_the_embedding_a_token(itemsize):
    cost = value_pass_cost(sampler(Burst()), BATCH, COLUMNS, itemsize)
    assert cost.weight_bytes == matrices(itemsize) + adapter_bytes() + 14 * CONFIG.hidden_size * itemsize
    assert cost.cache_bytes == (3 * COLUMNS + 14) * entry(itemsize)


def test_without_an_adapter_a_value_pass_reads_the_backbone_alone():
    cost = value_pass_cost(sampler(Burst(), lora=None), BATCH, COLUMNS, 2)
    assert cost.weight_bytes == matrices(2) + 14 * CONFIG.hidden_size * 2


@pytest.mark.parametrize(("look_ahead", "ahead", "rows"), [(False, 0, 5 + 3), (True, 14, 5 + 3 + 3)])
def test_a_shared_pass_reads_the_weights_once_for_both_models(look_ahead, ahead, rows):
    cost = shared_pass_cost(sampler(Shared(look_ahead)), BATCH, COLUMNS, 2)
    tokens = 5 + ahead + 14
    head = 2 * CONFIG.vocab_size * CONFIG.hidden_size
    assert cost.weight_bytes == matrices(2) + head + adapter_bytes() + tokens * CONFIG.hidden_size * 2
    assert cost.cache_bytes == (rows * COLUMNS + tokens) * entry(2)


def test_a_shared_pass_costs_a_policy_step_and_a_value_pass_less_the_weights_that_both_read():
    """But for the adapter, which runs on the policy's tokens too."""
    both = shared_pass_cost(sampler(Shared()), BATCH, COLUMNS, 2)
    step = decode_step_cost(CONFIG, BATCH, COLUMNS, 2)
    alone = value_pass_cost(sampler(Burst()), BATCH, COLUMNS, 2)
    assert both.bytes == step.bytes + alone.bytes - matrices(2)
    assert both.flops == step.flops + alone.flops + 2 * BATCH * adapter_size(CONFIG, LORA)


def test_the_flops_of_a_value_pass_are_those_that_xla_counts():
    """A row of F tokens that all see F columns, without an adapter; XLA counts norms and the like too."""
    wide = replace(CONFIG, hidden_size=128, intermediate_size=256)
    length = 32

    def run(model: Any, tokens: jax.Array) -> jax.Array:
        return hidden_states(model, tokens, config=wide)

    tokens = jax.ShapeDtypeStruct((1, length), jnp.int32)
    analysis = jax.jit(run).lower(abstract_model(wide), tokens).compile().cost_analysis()
    config = SamplerConfig(wide, ValueConfig(wide), pass_tokens=length, slots=1, row_tokens=length)
    ours = value_pass_cost(config.resolve(1), 1, length, 4).flops
    assert ours < analysis["flops"] < 1.1 * ours


def test_an_adapter_has_as_many_numbers_as_its_arrays():
    assert adapter_size(CONFIG, LORA) == adapter_bytes() // 4


def simulated(schedule: Schedule, batch: int, share: float, most: int, steps: int = 20000) -> Rounds:
    """The rows one by one: how long each has waited, and chance."""
    rng = np.random.default_rng(0)
    waited = np.full(batch, -1)  # -1: it runs
    tokens = passes = 0
    for _ in range(steps):
        running = waited < 0
        if isinstance(schedule, Shared):
            served = np.argsort(-waited, kind="stable")[: min(most, int((~running).sum()))]
            waited[served] = -1
            tokens += len(served)
            if schedule.look_ahead:
                running[served] = True
            passes += 1
        comes = running & (rng.random(batch) < share)
        tokens += int((running & ~comes).sum())
        waited[~running & (waited >= 0)] += 1
        waited[comes] = 0
        if isinstance(schedule, Shared):
            continue
        while (waited >= 0).any() and (
            (waited >= 0).sum() >= min(schedule.min_waiting, batch) or waited.max() >= schedule.max_wait
        ):
            served = np.argsort(-waited, kind="stable")[: min(most, int((waited >= 0).sum()))]
            waited[served] = -1
            tokens, passes = tokens + len(served), passes + 1
    return Rounds(tokens / steps, passes / steps)


@pytest.mark.parametrize(
    ("schedule", "batch", "share", "most"),
    [
        (Burst(1), 1, 0.2, 1),
        (Burst(4), 16, 0.2, 8),
        (Burst(4), 16, 0.02, 8),  # the wait decides
        (Burst(3, max_wait=0), 8, 0.3, 8),
        (Burst(6), 8, 1.0, 8),
        (Burst(2), 8, 0.5, 3),  # and slots
        *(
            (Shared(ahead), batch, share, 4)
            for ahead in (False, True)
            for batch, share in ((1, 0.2), (16, 0.2))
        ),
        *((Shared(ahead), 4, 1.0, 4) for ahead in (False, True)),
    ],
)
def test_steps_and_passes_are_those_of_rows_that_are_simulated_one_by_one(schedule, batch, share, most):
    tokens = 1000 * most  # places enough, so that slots decide
    config = sampler(schedule, batch=batch, slots=most, pass_tokens=tokens, row_tokens=tokens)
    expected, found = expected_rounds(config, batch, share, 10), simulated(schedule, batch, share, most)
    assert expected.tokens == pytest.approx(found.tokens, rel=0.02)
    assert expected.value_passes == pytest.approx(found.value_passes, rel=0.05)


def test_under_shared_a_junction_costs_a_step_and_with_look_ahead_none():
    for ratio in (0.2, 1.0):
        _, rounds = real(1, ratio, Shared())
        assert rounds.tokens == pytest.approx(1 / (1 + ratio), rel=1e-6)
        _, rounds = real(1, ratio, Shared(look_ahead=True))
        assert rounds.tokens == pytest.approx(1, rel=1e-6)


def test_dense_rows_of_burst_come_to_their_junctions_together_and_wait_for_nobody():
    _, rounds = real(16, 1.0, Burst())
    assert (rounds.tokens, rounds.value_passes) == pytest.approx((16, 1))


def test_places_that_hold_two_rows_and_a_bit_serve_a_third_now_and_then():
    few, some, more = (
        expected_rounds(sampler(Shared(), slots=5, pass_tokens=n), 16, 0.2, 10).tokens for n in (28, 35, 42)
    )
    assert few < some < more


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch", [1, 16, 64])
def test_burst_is_slower_the_more_is_steered(device, batch):
    """Up to dense, where all rows come to their junctions together again and none waits for another."""
    speeds = [speed(batch, ratio, Burst(), device) for ratio in (0.02, 0.05, 0.1, 0.2, 1.0)]
    assert speeds == sorted(speeds, reverse=True)
    assert 0 < speeds[-1] < speeds[0] < 1


@pytest.mark.parametrize("batch", [1, 16, 64])
@pytest.mark.parametrize("ratio", [0.2, 1.0])
def test_contenders_never_slow_burst_down(batch, ratio):
    assert speed(batch, ratio, Burst(), contenders=3.0) >= speed(batch, ratio, Burst())


def test_where_nothing_costs_bytes_or_flops_but_the_weights_shared_with_look_ahead_is_as_fast_as_the_policy():
    config, rounds = real(1, 0.2, Shared(look_ahead=True))
    rates = DeviceRates(1e12, 1e30)
    step = decode_step_cost(QWEN3_1_7B, 1, 1, 2)
    both = shared_pass_cost(config, 1, 1, 2)
    assert expected_ratio(config, 1, rounds, rates, 1) == pytest.approx(step.bytes / both.bytes)
    assert step.bytes / both.bytes == pytest.approx(1, abs=0.03), "but for the adapter"


def test_the_ratio_of_burst_is_the_policys_time_over_both_models_times_the_rows_that_run():
    config, rounds = sampler(Burst(2)), Rounds(tokens=4.0, value_passes=0.5)
    rates = DeviceRates(1.0, 1e30)
    step, alone = decode_step_cost(CONFIG, 5, 20, 2).bytes, value_pass_cost(config, 5, 20, 2).bytes
    assert expected_ratio(config, 5, rounds, rates, 20) == pytest.approx(0.8 * step / (step + 0.5 * alone))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: value_pass_cost(SamplerConfig(CONFIG), 4, 9), "expected|value model with states of its own"),
        (lambda: value_pass_cost(SamplerConfig(CONFIG, ValueConfig(CONFIG)), 4, 9), r"call resolve\(4\)"),
        (lambda: shared_pass_cost(sampler(Burst()), 4, 9), r"set schedule=Shared\(\)"),
        (lambda: expected_rounds(sampler(Burst()), 4, 0.0, 10), "share must lie in"),
    ],
)
def test_what_cannot_be_counted_is_refused_with_the_remedy(call, says):
    with pytest.raises(ValueError, match=says):
        call()
