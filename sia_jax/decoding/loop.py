"""Some policy steps of all rows, and what serves those that wait, by the schedule of the configuration."""

from jaxtyping import Array, Int

from sia_jax.decoding.burst import run_burst
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.params import SteeringParams
from sia_jax.decoding.schedule import Burst, Schedule, Shared
from sia_jax.decoding.shared import run_shared
from sia_jax.decoding.state import DecodeState


def run_chunk(
    params: SteeringParams,
    state: DecodeState,
    schedule: Schedule,
    steps: Int[Array, ""] | int,
    config: SamplerConfig,
    *,
    unread_width: int = 0,
) -> DecodeState:
    """At most `steps` policy steps, and the value passes among them; fewer where no row is left that runs.

    Args:
      params: weights of policy and value model.
      state: to be continued.
      schedule: its numbers, [] each.
      steps: [] at most `config.chunk`.
      config: resolved.
      unread_width: P', tokens of the buffers of value prompts that are read when first a row comes to a
        junction; 0: they have been read.
    """
    if isinstance(schedule, Shared):
        return run_shared(params, state, schedule, steps, config, unread_width)
    assert isinstance(schedule, Burst)
    return run_burst(params, state, schedule, steps, config, unread_width)
