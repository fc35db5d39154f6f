"""What a device's bandwidth and peak let one expect of steering, as tables: counted, and not measured."""

from dataclasses import dataclass

from sia_jax.costs.passes import (
    DEVICES,
    Rounds,
    expected_ratio,
    expected_rounds,
    shared_pass_cost,
    value_pass_cost,
)
from sia_jax.costs.roofline import PassCost, decode_step_cost
from sia_jax.decoding.config import SamplerConfig, expected_reads
from sia_jax.decoding.schedule import Burst, Schedule, Shared
from sia_jax.models.config import ModelConfig, ValueConfig
from sia_jax.models.lora import LoraConfig
from sia_jax.reports.markdown import table
from sia_jax.steering.config import SteeringConfig
from sia_jax.steering.tilts import Advantage, Clipped

BATCHES = (1, 16, 64)
RATIOS = {0.2: "20%", 1.0: "dense"}
_ITEMSIZE = 2
"""Bytes of a bfloat16."""


@dataclass(frozen=True)
class _System:
    """A value model and how it is served."""

    name: str
    value: ValueConfig
    schedule: Schedule


@dataclass(frozen=True)
class _Case:
    """A system at a batch and a share of junctions, with its sizes by the rule of `auto`."""

    config: SamplerConfig
    batch: int
    columns: float
    rounds: Rounds

    @staticmethod
    def of(
        model: ModelConfig,
        system: _System,
        batch: int,
        ratio: float,
        contenders: float | None,
        columns: float,
    ) -> "_Case":
        """`contenders` None: all values are read."""
        steering = SteeringConfig() if contenders is None else SteeringConfig(tilt=Clipped(1.0, Advantage()))
        config = SamplerConfig.auto(
            batch,
            ratio,
            contenders,
            policy=model,
            value=system.value,
            steering=steering,
            schedule=system.schedule,
        )
        share, read = ratio, float(steering.num_candidates)
        if contenders is not None:
            share, read = expected_reads(ratio, contenders, steering.num_candidates)
        return _Case(config, batch, columns, expected_rounds(config, batch, share, read))

    def cost(self) -> PassCost:
        """Of the pass that serves junctions."""
        count = shared_pass_cost if isinstance(self.config.schedule, Shared) else value_pass_cost
        return count(self.config, self.batch, self.columns, _ITEMSIZE)


def expected_speed(model: ModelConfig, columns: int, contenders: float) -> str:
    """The tables: bytes and FLOPs a pass, and tokens a second over those of the policy alone.

    Args:
      model: of the policy, and of the value model or what its adapter lies over.
      columns: S, ids of prompt and reply that a row holds, on average of its steps.
      contenders: c, that a junction has on average under a bounded tilt.
    """
    own, lora = ValueConfig(model), ValueConfig(model, lora=LoraConfig())
    systems = (
        _System("adapter, Burst", lora, Burst()),
        _System("adapter, Shared", lora, Shared()),
        _System("adapter, Shared, look-ahead", lora, Shared(look_ahead=True)),
        _System("separate, Burst", own, Burst()),
    )
    reads = {"all": None, f"{contenders:g} contend": contenders}
    costs, ratios = [], []
    for ratio, share in RATIOS.items():
        for what, number in reads.items():
            for system in systems:
                cases = [_Case.of(model, system, batch, ratio, number, columns) for batch in BATCHES]
                label = (share, what, system.name)
                costs.append((*label, *(_told(case) for case in cases)))
                ratios.append((*label, *_ratios(cases)))
    steps = [decode_step_cost(model, batch, columns, _ITEMSIZE) for batch in BATCHES]
    labels = ("steered", "values read", "value model, schedule")
    batches = tuple(f"batch {batch}" for batch in BATCHES)
    on = tuple(f"{device}, {batch}" for device in DEVICES for batch in BATCHES)
    return (
        "A policy step, and a pass that serves junctions, of `Burst` the value model's own, of `Shared` one "
        "of both\nmodels: GB and TFLOP, and in brackets F, the tokens laid out for the value model.\n\n"
        f"{table((*labels, *batches), [('', '', 'policy step', *map(_amounts, steps)), *costs])}\n"
        "Tokens a second over those of the policy alone:\n\n"
        f"{table((*labels, *on), ratios)}"
    )


def _amounts(cost: PassCost) -> str:
    return f"{cost.bytes / 1e9:.2f} GB, {cost.flops / 1e12:.3f}"


def _told(case: _Case) -> str:
    return f"{_amounts(case.cost())} ({case.config.pass_tokens})"


def _ratios(cases: list[_Case]) -> list[str]:
    return [
        f"{expected_ratio(case.config, case.batch, case.rounds, rates, case.columns, _ITEMSIZE):.2f}"
        for rates in DEVICES.values()
        for case in cases
    ]
