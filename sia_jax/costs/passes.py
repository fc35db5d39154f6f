"""Bytes and FLOPs of the sampler's passes, and from them the speed that a device would let one expect.

A pass computes all of its places, filled or not, and reads its weights once for them. B rows stand at S
columns each; J slots and F places are those of a resolved configuration, G = min(F, J C) the places of a
look-ahead. Left out are norms, the value head, the draw of a token, and what a device takes to begin a pass.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from sia_jax.costs.roofline import (
    GPU_PEAK_FLOPS,
    TPU_PEAK_FLOPS,
    DeviceRates,
    PassCost,
    decode_step_cost,
    pass_cost,
)
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.schedule import Burst, Shared
from sia_jax.models.config import ModelConfig, ValueConfig
from sia_jax.models.lora import LoraConfig

DEVICES = {
    "H100 SXM": DeviceRates(3.35e12, GPU_PEAK_FLOPS["H100"]),
    "TPU v5e": DeviceRates(819e9, TPU_PEAK_FLOPS["TPU v5e"]),
}
"""Bandwidth of the memory and dense bfloat16 FLOP/s, from the makers' data sheets."""
_ADAPTER_ITEMSIZE = 4
"""Bytes of a number of an adapter, float32 whatever the weights are."""
_STEPS = 400
"""Policy steps of which the later half is averaged over; a batch forgets how it began in some tens."""


def adapter_size(config: ModelConfig, lora: LoraConfig) -> int:
    """Numbers of an adapter: R (in + out) of every projection that it changes.

    Args:
      config: the network below it.
      lora: which projections, and their ranks R.
    """
    d, f = config.hidden_size, config.intermediate_size
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    widths = {
        "self_attn.q_proj": d + q,
        "self_attn.k_proj": d + kv,
        "self_attn.v_proj": d + kv,
        "self_attn.o_proj": q + d,
        "mlp.gate_proj": d + f,
        "mlp.up_proj": d + f,
        "mlp.down_proj": f + d,
    }
    return sum(
        lora.rank_of(f"layers.{layer}.{module}") * width
        for layer in range(config.num_layers)
        for module, width in widths.items()
        if module.rpartition(".")[2] in lora.target_modules
    )


def value_pass_cost(config: SamplerConfig, batch: int, columns: float, itemsize: int = 2) -> PassCost:
    """The cost of one value pass of `Burst`: F tokens over the caches of J rows.

    bytes = weights + adapter + F D + 2 n K H (J S + F), all but the adapter times the itemsize.

    Args:
      config: resolved.
      batch: B, rows.
      columns: S, that each row's cache holds, on average.
      itemsize: bytes of a weight and of a cache entry.

    Raises:
      ValueError: no value model that runs passes, or sizes that are not resolved.
    """
    value, places, slots = _sizes(config, batch)
    cost = pass_cost(
        value.backbone, places, columns_seen=columns, columns_read=slots * columns, itemsize=itemsize
    )
    return _with_adapter(cost, value, places)


def shared_pass_cost(config: SamplerConfig, batch: int, columns: float, itemsize: int = 2) -> PassCost:
    """The cost of one pass of `Shared`: B + G + F tokens, the weights once, and logits for B rows.

    The policy's caches are read for B rows, and of J rows once more where it looks ahead; the value model's
    for J. The adapter runs on all places, though it acts on F alone.

    Args:
      config: resolved, under `Shared`.
      batch: as of `value_pass_cost`, as are the following.
      columns: S.
      itemsize: in bytes.

    Raises:
      ValueError: another schedule, or what `value_pass_cost` finds.
    """
    value, places, slots = _sizes(config, batch)
    if not isinstance(config.schedule, Shared):
        raise ValueError(f"a shared pass is one of Shared, got {config.schedule}; set schedule=Shared()")
    ahead = min(places, slots * config.look_ahead_tokens)
    tokens = batch + ahead + places
    rows = batch + slots * (2 if ahead else 1)
    cost = pass_cost(
        config.policy,
        tokens,
        columns_seen=columns,
        columns_read=rows * columns,
        head_rows=batch,
        itemsize=itemsize,
    )
    return _with_adapter(cost, value, tokens)


@dataclass(frozen=True)
class Rounds:
    """What a schedule makes of rows that come to junctions by chance, on average of many policy steps."""

    tokens: float
    """Said by all rows together, a policy step."""
    value_passes: float
    """A policy step; under `Shared` each is one."""


def expected_rounds(config: SamplerConfig, batch: int, share: float, candidates: float) -> Rounds:
    """How often passes run and how many tokens they bring, exactly, as a Markov chain of the rows that wait.

    In a step each row that runs comes to a junction with probability r. A pass serves those that wait, at
    most J of them and F / (C + (1 - r) / r): 2.3 is 2, and now and then 3.

        Burst                     a pass when min(min_waiting, B) rows wait, or one for max_wait steps
        Shared                    every step is a pass, and a row that is served runs in the next: B / (1 + r)
        Shared(look_ahead=True)   a row that is served runs in the same: B

    The last two are the tokens of a step where all rows that wait find a place. That spans differ in length,
    and that rows end, is left out.

    Args:
      config: resolved.
      batch: B.
      share: r, of positions at which values are read.
      candidates: C, read at each of those.

    Raises:
      ValueError: a share outside 0 .. 1, or what `value_pass_cost` finds.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in 0 .. 1 and not be 0, got {share}")
    _, places, slots = _sizes(config, batch)
    most = max(1.0, min(slots, places / (candidates + (1 - share) / share)))
    if isinstance(config.schedule, Shared):
        return _shared_rounds(config.schedule, batch, share, most)
    assert isinstance(config.schedule, Burst)
    return _burst_rounds(config.schedule, batch, share, most)


def expected_ratio(
    config: SamplerConfig,
    batch: int,
    rounds: Rounds,
    rates: DeviceRates,
    columns: float,
    itemsize: int = 2,
) -> float:
    """Tokens a second over those of the policy alone, if each pass took what the device's rates allow.

    (tokens / B) t_policy / (t_policy + passes t_value); under `Shared` (tokens / B) t_policy / t_shared.
    Each t is the larger of bytes over bandwidth and FLOPs over peak.

    Args:
      config: resolved.
      batch: B.
      rounds: of `expected_rounds`.
      rates: of the device, such as one of `DEVICES`.
      columns: S.
      itemsize: in bytes.

    Raises:
      ValueError: what `value_pass_cost` finds.
    """
    step = rates.floor_seconds(decode_step_cost(config.policy, batch, columns, itemsize))
    if isinstance(config.schedule, Shared):
        seconds = rates.floor_seconds(shared_pass_cost(config, batch, columns, itemsize))
    else:
        value = rates.floor_seconds(value_pass_cost(config, batch, columns, itemsize))
        seconds = step + rounds.value_passes * value
    return rounds.tokens / batch * step / seconds


def _sizes(config: SamplerConfig, batch: int) -> tuple[ValueConfig, int, int]:
    """The value model, F and J."""
    value = config.value
    if value is None or not value.runs_passes:
        raise ValueError(f"value passes are those of a value model with states of its own, got {value}")
    if config.pass_tokens is None or config.slots is None:
        raise ValueError(
            f"expected a resolved configuration, got pass_tokens={config.pass_tokens} and "
            f"slots={config.slots}; call resolve({batch})"
        )
    return value, config.pass_tokens, min(config.slots, batch)


def _with_adapter(cost: PassCost, value: ValueConfig, tokens: int) -> PassCost:
    if value.lora is None:
        return cost
    size = adapter_size(value.backbone, value.lora)
    return replace(
        cost,
        weight_bytes=cost.weight_bytes + _ADAPTER_ITEMSIZE * size,
        flops=cost.flops + 2 * tokens * size,
    )


def _arrivals(batch: int, share: float) -> np.ndarray:
    """[B + 1, B + 1]: the chance that of so many rows that run, so many come to a junction in a step."""
    chances = np.zeros((batch + 1, batch + 1))
    chances[0, 0] = 1
    for n in range(batch):  # one row more, which comes or does not
        chances[n + 1] = (1 - share) * chances[n]
        chances[n + 1, 1:] += share * chances[n, :-1]
    return chances


def _whole(most: float) -> list[tuple[int, float]]:
    """A number of rows as whole ones with their chances: 2.3 as [(2, 0.7), (3, 0.3)]."""
    low = math.floor(most)
    return [(low, 1 - (most - low)), (low + 1, most - low)]


def _burst_rounds(schedule: Burst, batch: int, share: float, most: float) -> Rounds:
    """The state is how many rows wait, and how long the oldest has; those that a pass leaves count as new."""
    enough, waits = min(schedule.min_waiting, batch), schedule.max_wait
    number, chances = np.arange(batch + 1), _arrivals(batch, share)
    after = np.zeros((batch + 1, batch + 1))  # rows that wait before a step, and after it
    for n in number:
        after[n, n:] = chances[batch - n, : batch - n + 1]
    due = (number > 0) & ((number >= enough) | (np.arange(waits + 2)[:, None] >= waits))
    state = np.zeros((waits + 1, batch + 1))
    state[0, 0] = 1
    tokens, passes = np.zeros(_STEPS), np.zeros(_STEPS)
    ways = [(chance, *_served(batch, enough, rows)) for rows, chance in _whole(most)]
    for step in range(_STEPS):
        reached = np.zeros((waits + 2, batch + 1))
        reached[0] = state[:, 0].sum() * after[0]
        reached[1:] += state[:, 1:] @ after[1:]
        tokens[step] = (batch - (state @ number).sum()) * (1 - share)
        waiting = np.where(due, reached, 0).sum(axis=0)
        state = np.where(due, 0, reached)[: waits + 1]
        for chance, left, ran in ways:
            tokens[step] += chance * waiting @ (number - left)
            passes[step] += chance * waiting @ ran
            np.add.at(state[0], left, chance * waiting)
    return Rounds(float(tokens[_STEPS // 2 :].mean()), float(passes[_STEPS // 2 :].mean()))


def _served(batch: int, enough: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """[B + 1] each, by the rows that wait: those that still do after all passes that are due, and these."""
    left, passes = np.zeros(batch + 1, int), np.zeros(batch + 1, int)
    for n in range(1, batch + 1):
        rest, count = max(0, n - most), 1
        while rest >= enough:
            rest, count = max(0, rest - most), count + 1
        left[n], passes[n] = rest, count
    return left, passes


def _shared_rounds(schedule: Shared, batch: int, share: float, most: float) -> Rounds:
    """The state is how many rows wait when a pass begins."""
    number, chances = np.arange(batch + 1), _arrivals(batch, share)
    after, said = np.zeros((batch + 1, batch + 1)), np.zeros(batch + 1)
    for rows, chance in _whole(most):
        served = np.minimum(number, rows)
        decided = batch - number + (served if schedule.look_ahead else 0)  # that have logits
        said += chance * (decided * (1 - share) + served)
        for n in number:
            rest, come = n - served[n], decided[n] + 1
            after[n, rest : rest + come] += chance * chances[decided[n], :come]
    state, tokens = np.zeros(batch + 1), np.zeros(_STEPS)
    state[0] = 1
    for step in range(_STEPS):
        tokens[step] = state @ said
        state = state @ after
    return Rounds(float(tokens[_STEPS // 2 :].mean()), 1.0)
