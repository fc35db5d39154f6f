"""The `Burst` schedule: policy steps until enough rows wait, then one value pass for those who do."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.params import SteeringParams
from sia_jax.decoding.policy_pass import policy_step
from sia_jax.decoding.schedule import Burst
from sia_jax.decoding.state import DecodeState
from sia_jax.decoding.value_pass import read_unread, value_pass
from sia_jax.parallel.rows import sum_over_rows
from sia_jax.steering.arrays import run_if


@dataclass(frozen=True)
class _Counts:
    """Rows of the whole batch, wherever they lie."""

    alive: Int[Array, ""]
    running: Int[Array, ""]
    waiting: Int[Array, ""]
    overdue: Int[Array, ""]  # have waited `max_wait` steps or more


def _count(state: DecodeState, schedule: Burst) -> _Counts:
    waiting = state.waiting & state.alive
    overdue = waiting & (state.waited >= schedule.max_wait)
    counts = jnp.stack([jnp.sum(x) for x in (state.alive, state.running, waiting, overdue)])
    return _Counts(*sum_over_rows(counts))


def _due(rows: _Counts, schedule: Burst) -> Bool[Array, ""]:
    enough = rows.waiting >= jnp.minimum(schedule.min_waiting, rows.alive)
    return (rows.waiting > 0) & (enough | (rows.overdue > 0) | (rows.running == 0))


def run_burst(
    params: SteeringParams,
    state: DecodeState,
    schedule: Burst,
    steps: Int[Array, ""] | int,
    config: SamplerConfig,
    unread_width: int,
) -> DecodeState:
    """See `sia_jax.decoding.loop.run_chunk`.

    A scan of rounds. A round is a loop of policy steps, which ends when a value pass is due, and a loop of
    one value pass or none. What has nothing to do takes no trip: masks decide, and there is no branch.
    """
    net, pass_net = params.value_net(config), params.pass_net(config)

    def due(state: DecodeState) -> Bool[Array, ""]:
        return _due(_count(state, schedule), schedule)

    def advances(carry: tuple[DecodeState, Array]) -> Bool[Array, ""]:
        state, left = carry
        rows = _count(state, schedule)
        return (rows.running > 0) & (left > 0) & ~_due(rows, schedule)  # somebody can, may, and need not wait

    def advance(carry: tuple[DecodeState, Array]) -> tuple[DecodeState, Array]:
        state, left = carry
        return policy_step(params.policy, state, config, net), left - 1

    def round_(carry: tuple[DecodeState, Array], _: None) -> tuple[tuple[DecodeState, Array], None]:
        with jax.named_scope("policy"):
            state, left = jax.lax.while_loop(advances, advance, carry)
        if pass_net is not None:
            with jax.named_scope("value"):
                if unread_width:
                    state = read_unread(pass_net, state, due(state), unread_width, config)
                state = run_if(due(state), lambda s: value_pass(pass_net, s, config), state)
        return (state, left), None

    carry = (state, jnp.asarray(steps, jnp.int32))
    return jax.lax.scan(round_, carry, length=config.chunk)[0][0]
