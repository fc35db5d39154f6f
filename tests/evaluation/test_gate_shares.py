"""What calibrated gates steer of other prompts of the embedded world, in one batch of one engine."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

import sia_jax
from sia_jax.evaluation.gate_calibration import calibrate_gates
from sia_jax.evaluation.gate_numbers import GateNumbers, gate_of
from sia_jax.evaluation.learned_gate import LearnedGate
from sia_jax.evaluation.methods import GateKind
from sia_jax.evaluation.shares import threshold_for
from sia_jax.evaluation.token_features import FeatureRecords
from sia_jax.steering.gates import Linear
from sia_jax.world.files import world_models
from sia_jax.world.prompts import prompts

RATIO, POINTS = 0.2, 0.02
LENGTH = 160
LEARNED = LearnedGate((0.5, -0.1, -2.0, -0.05, 0.01), 0.0, {}, {})


@pytest.fixture(scope="module")
def engine() -> Iterator[sia_jax.Engine]:
    """Of a value model without passes, the quickest to compile; one program for all gates."""
    with sia_jax.Engine(
        world_models() / "policy",
        world_models() / "value-states",
        rows=64,
        max_length=256,
        steering=sia_jax.SteeringConfig(gate=gate_of(GateNumbers())),
        record="candidates",
    ) as engine:
        yield engine


def ask(engine: sia_jax.Engine, split: str, gates: Sequence[GateNumbers], count: int) -> list[sia_jax.Reply]:
    """Replies to `count` prompts under each gate, at a strength of 0, so the texts are the policy's."""
    chosen = prompts(split)[:: max(1, len(prompts(split)) // count)][:count]
    requests = [
        sia_jax.Request(
            messages=prompt.messages,
            max_new_tokens=LENGTH,
            threshold=gate.threshold,
            gate=gate_of(gate),
            beta=0.0,
            seed=seed,
        )
        for gate in gates
        for seed, prompt in enumerate(chosen)
    ]
    found = dict(engine.as_completed(requests))
    return [found[place] for place in range(len(requests))]


def test_each_gate_steers_its_share_of_the_policys_tokens_for_other_prompts(engine: sia_jax.Engine) -> None:
    count = 100
    records = FeatureRecords([str(index) for index in range(count)], learned=True)
    for index, reply in enumerate(ask(engine, "train", [GateNumbers()], count)):
        assert not reply.junction.any()
        records.take({"index": index, "id": str(index), "branch": 0, **records.record_of(reply)})
    tokens = records.all()
    found = {kind: own["number"] for kind, own in calibrate_gates(tokens, RATIO, LEARNED).items()}
    gates: dict[GateKind, GateNumbers] = {
        "entropy": GateNumbers(threshold_for(tokens.entropy, RATIO)),
        "entropy-ratio": GateNumbers(entropy_ratio=found["entropy-ratio"]),
        "position": GateNumbers(position=int(found["position"])),
        "learned": GateNumbers(learned=Linear(found["learned"], *LEARNED.weights)),
    }
    replies = ask(engine, "test", list(gates.values()), count)
    for place, kind in enumerate(gates):
        steered = np.concatenate([reply.junction for reply in replies[count * place : count * (place + 1)]])
        assert len(steered) > 3000
        assert abs(steered.mean() - RATIO) <= POINTS, (kind, steered.mean())
