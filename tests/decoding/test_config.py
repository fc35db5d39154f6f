import jax
import pytest

import sia_jax
from sia_jax import Burst
from sia_jax.models.config import ValueConfig
from sia_jax.steering import gates, tilts
from sia_jax.steering.tilts import Additive, Advantage, Clipped, Standardised
from tests.support.checkpoints import tiny_config

MODEL = tiny_config()


def auto(batch: int, ratio: float, head: str = "scalar") -> sia_jax.SamplerConfig:
    value = ValueConfig(MODEL, head, 3 if head == "vocab" else None)
    return sia_jax.SamplerConfig.auto(batch, ratio, policy=MODEL, value=value)


@pytest.mark.parametrize("head", ["scalar", "vocab"])
@pytest.mark.parametrize("ratio", [0.01, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("batch", [1, 2, 16, 64])
def test_the_rule_gives_shapes_in_which_every_row_can_be_served(batch, ratio, head):
    config = auto(batch, ratio, head)
    assert 1 <= config.slots <= batch
    assert config.pass_tokens >= config.row_tokens > config.candidate_tokens
    assert 1 <= config.schedule.min_waiting <= batch


def test_the_rule_gives_more_slots_and_more_that_wait_to_more_junctions():
    sparse, dense = auto(16, 0.1), auto(16, 1.0)
    assert sparse.slots < dense.slots == 16
    assert sparse.schedule.min_waiting < dense.schedule.min_waiting


def test_the_rule_leaves_what_was_set():
    config = sia_jax.SamplerConfig(
        policy=MODEL, value=ValueConfig(MODEL), slots=2, pass_tokens=33, row_tokens=12, schedule=Burst(2)
    )
    resolved = config.resolve(8)
    assert (resolved.slots, resolved.pass_tokens, resolved.row_tokens, resolved.schedule.min_waiting) == (
        2,
        33,
        12,
        2,
    )


def test_a_configuration_is_a_static_argument():
    assert hash(auto(4, 0.2)) == hash(auto(4, 0.2))
    assert auto(4, 0.2) == auto(4, 0.2)


@pytest.mark.parametrize("arguments", [(0, 0.2), (4, 0.0), (4, 1.1)])
def test_the_rule_refuses_batches_and_ratios_that_mean_nothing(arguments):
    with pytest.raises(ValueError, match="batch >= 1 and 0 < expected_ratio <= 1"):
        auto(*arguments)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"num_candidates": 0}, ValueError, "num_candidates"),
        ({"entropy": "all"}, ValueError, "entropy must be one of"),
        ({"unsteered": "none"}, ValueError, "unsteered must be one of"),
        ({"gate": "entropy"}, TypeError, "gate must be a Gate"),
        ({"tilt": gates.Entropy()}, TypeError, "tilt must be a Tilt"),
        ({"gate": gates.Bernoulli(float("nan"))}, ValueError, "gate must not be NaN"),
    ],
)
def test_steering_refuses_what_it_does_not_know(changes, error, message):
    with pytest.raises(error, match=message):
        sia_jax.SteeringConfig(**changes)


def test_a_marker_is_of_the_policys_vocabulary():
    inside, outside = (
        sia_jax.SteeringConfig(gate=gates.Entropy() & gates.After((3, MODEL.vocab_size + more)))
        for more in (-1, 0)
    )
    sia_jax.SamplerConfig(policy=MODEL, steering=inside)
    with pytest.raises(ValueError, match=rf"the ids of After must lie in 0 .. {MODEL.vocab_size - 1} \(the"):
        sia_jax.SamplerConfig(policy=MODEL, steering=outside)


def test_numbers_of_expressions_are_leaves_from_left_to_right():
    gate = (gates.Position(3) & ~gates.Bernoulli(0.5)) | gates.Budget(0.2)
    assert jax.tree.leaves(gate) == [3, 0.5, 0.2]
    assert jax.tree.leaves(tilts.Clipped(2.0, tilts.Clipped(1.0, tilts.Centred()))) == [2.0, 1.0]


@pytest.mark.parametrize("ratio", [0.1, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("batch", [1, 4, 8, 16, 64])
def test_a_pass_has_room_for_the_usual_need_of_those_that_wait(batch, ratio):
    config = auto(batch, ratio)
    waiting = config.schedule.min_waiting
    span = (1 - ratio) / ratio
    assert config.slots >= waiting
    assert config.pass_tokens >= waiting * (config.candidate_tokens + span) - 16  # half of a kernel's tokens


def test_passes_are_laid_out_for_contenders_where_a_bound_leaves_the_others_unread():
    def sizes(tilt, contenders=None, **steering):
        config = sia_jax.SamplerConfig.auto(
            64,
            0.2,
            contenders,
            policy=MODEL,
            value=ValueConfig(MODEL),
            steering=sia_jax.SteeringConfig(tilt=tilt, **steering),
        )
        return config.slots, config.pass_tokens, config.schedule.min_waiting

    every = sizes(Additive())
    assert sizes(Clipped(1.0, Advantage()))[1] < 0.7 * every[1]
    assert sizes(Clipped(1.0, Advantage()), 10.0) == sizes(Clipped(9.0, Advantage())) == every
    assert sizes(Clipped(1.0, Advantage()), read_all=1) == every
    assert sizes(Clipped(1.0, Advantage()))[1] < sizes(Clipped(1.0, Standardised()))[1]
    with pytest.raises(ValueError, match=r"expected_contenders must lie in 1 .. 10 .* got 11"):
        sizes(Clipped(1.0), 11)
    with pytest.raises(ValueError, match="expected_contenders is for a bounded tilt, got Additive"):
        sizes(Additive(), 3.0)
