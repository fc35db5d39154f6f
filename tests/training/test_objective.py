"""The packed, accumulated and sharded loss is that of the equation, and so are its gradients."""

import functools
import itertools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sia_jax.data.trajectories import Trajectory
from sia_jax.models.config import ValueConfig
from sia_jax.models.lora import LoraConfig
from sia_jax.parallel.mesh import make_mesh, shard_params
from sia_jax.training import objective
from sia_jax.training.batch import PackedRows
from sia_jax.training.config import OptimizerConfig, TrainConfig
from sia_jax.training.loop import LoopConfig, run
from sia_jax.training.packing import pack
from sia_jax.training.step import init_state, predict, train_step, trajectory_losses
from sia_jax.types import Params, flatten_names, unflatten_names
from tests.support.checkpoints import tiny_policy, tiny_value_model
from tests.support.marks import long
from tests.support.oracle_network import NumpyModel
from tests.support.trajectories import batch_loss, random_trajectories

LORA = LoraConfig(rank=4, alpha=8.0, dropout=0.0)
LENGTH = 32


@functools.cache
def models(head: str = "scalar", layers: int = 1):
    policy = tiny_policy(num_layers=layers)
    return policy, tiny_value_model(policy, head=head, lora=LORA)


def case(
    trained: str = "lora", head: str = "scalar", objective_: str = "mean", layers: int = 1, **changes: Any
):
    """(frozen, trained, config, what the oracle needs to be the same model)."""
    policy, value = models(head, layers)
    model, adapter, weights = policy.params["model"], value.params["lora"], value.params["value_head"]
    value_config = value.config if trained == "lora" else replace(value.config, lora=None)
    if trained == "states":  # a head on the policy's hidden states
        trained, value_config = "head", replace(value_config, states="policy")
    teacher = teacher_frozen = None
    if objective_ == "distil":
        teacher = tiny_value_model(policy, seed=9, lora=LORA)
        teacher_frozen = {"teacher": teacher.params}
    config = TrainConfig(
        value_config,
        trained=trained,  # type: ignore[arg-type]
        objective=objective_,  # type: ignore[arg-type]
        teacher=None if teacher is None else teacher.config,
        **changes,
    )
    trees = {
        "lora": ({"model": model}, {"lora": adapter, "value_head": weights}),
        "head": ({"model": model}, {"value_head": weights}),
        "full": ({}, {"model": model, "value_head": weights}),
    }
    if teacher_frozen is not None:  # it lies over the base as it was, which a full run moves away from
        teacher_frozen["model"] = model
    frozen, tree = trees[trained]
    return frozen | (teacher_frozen or {}), tree, config


def oracle(frozen: Params, trained: Params, config: TrainConfig, trajectories: list[Trajectory]) -> float:
    model = (frozen | trained)["model"]
    teacher = None
    if config.teacher is not None:
        teacher = NumpyModel(frozen["teacher"], config.teacher, frozen["model"])
    # An oracle of "model" and "value_head" alone reads no adapter.
    params = {"value_head": trained["value_head"]}
    params |= {"lora": trained["lora"]} if "lora" in trained else {}
    return batch_loss(params, config.value, trajectories, config.objective, model, teacher)


def loss_and_gradient(
    frozen: Params, trained: Params, batch: Any, config: TrainConfig
) -> tuple[float, Params]:
    """Loss and gradient as the step computes them, read off a step of plain descent."""
    losses, _ = predict(frozen, trained, batch, config=config)
    real = np.asarray(batch.numbers) >= 0
    loss = float(np.asarray(losses)[real].sum() / real.sum())

    gradients = [
        gradient_of_sum(trained, frozen, rows_of(batch, i), config) for i in range(int(batch.micro_batches))
    ]
    return loss, jax.tree.map(lambda *each: sum(each) / real.sum(), *gradients)


@functools.partial(jax.jit, static_argnames="config")
@jax.grad
def gradient_of_sum(trained: Params, frozen: Params, rows: PackedRows, config: TrainConfig) -> Any:
    losses, _ = trajectory_losses(frozen, trained, rows, None, config=config)
    return jnp.sum(jnp.where(rows.numbers >= 0, losses, 0))


def rows_of(batch: Any, index: int) -> PackedRows:
    names = ("tokens", "segment_ids", "positions", "is_reply", "rewards", "numbers")
    return PackedRows(*(jnp.asarray(getattr(batch, name)[index]) for name in names))


VARIANTS = [
    ("lora", "scalar", "mean"),
    long("lora", "vocab", "mean"),
    ("head", "scalar", "mean"),
    ("full", "scalar", "mean"),
    ("lora", "scalar", "token"),
    ("lora", "vocab", "distil"),
    ("states", "vocab", "mean"),
    ("states", "vocab", "token"),
    ("states", "vocab", "distil"),
    long("full", "scalar", "distil"),
]


@pytest.mark.parametrize(("trained", "head", "objective_"), VARIANTS)
def test_the_loss_and_its_gradient_are_those_of_the_equation_in_float64(trained, head, objective_):
    frozen, tree, config = case(trained, head, objective_, layers=2)
    trajectories = random_trajectories(16, config.value.backbone.vocab_size)
    batch = pack(trajectories, length=LENGTH, rows=2, batch_size=16)
    assert batch.micro_batches > 2
    loss, gradient = loss_and_gradient(frozen, tree, batch, config)
    expected = oracle(frozen, tree, config, trajectories)
    assert loss == pytest.approx(expected, rel=1e-5)

    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), tree)
    names = flatten_names(wide)
    picked = list(names) if len(names) < 12 else list(names)[:: len(names) // 8] + list(names)[-2:]
    norm = float(optax.tree.norm(gradient))
    for i, name in enumerate(picked):
        direction = np.random.default_rng(i).standard_normal(names[name].shape)
        direction /= np.linalg.norm(direction)

        def moved(size: float, name: str = name, direction: np.ndarray = direction) -> float:
            tree = unflatten_names(names | {name: names[name] + size * direction})
            return oracle(frozen | {}, tree, config, trajectories)

        slope = (moved(1e-5) - moved(-1e-5)) / 2e-5
        assert float(np.sum(flatten_names(gradient)[name] * direction)) == pytest.approx(
            slope, abs=1e-5 * norm
        )


PACKINGS = [(26, 3), (64, 1), (64, 16)]
"""(length, rows); the others are compiled in the long tests alone."""


@pytest.mark.parametrize(
    ("length", "rows"),
    [
        packing if packing in PACKINGS else long(*packing)
        for packing in itertools.product((26, 64, 400), (1, 3, 16))
    ],
)
def test_however_a_batch_is_packed_the_step_is_the_same(length, rows):
    frozen, tree, config = case()
    trajectories = random_trajectories(16, config.value.backbone.vocab_size)
    alone = pack(trajectories, length=26, rows=16, batch_size=16, segments=1)
    packed = pack(trajectories, length=length, rows=rows, batch_size=16)
    expected, actual = (one_step(frozen, tree, batch, config) for batch in (alone, packed))
    for name, value in flatten_names(expected[0].trained).items():
        np.testing.assert_allclose(flatten_names(actual[0].trained)[name], value, rtol=0, atol=2e-6)
    assert float(actual[1].loss) == pytest.approx(float(expected[1].loss), rel=1e-5)


def one_step(frozen: Params, tree: Params, batch: Any, config: TrainConfig, mesh: Any = None) -> Any:
    key = jax.random.key(0, impl="threefry2x32")
    state = init_state(tree, key, config=config, mesh=mesh)
    return train_step(frozen, state, batch, config=config, mesh=mesh)


def test_padding_and_neighbours_in_a_row_have_no_influence():
    frozen, tree, config = case()
    first, *others = random_trajectories(4, config.value.backbone.vocab_size)
    longer = replace(first, reply_ids=np.arange(5, dtype=np.int32))
    vocab = config.value.backbone.vocab_size

    def prediction(neighbours: list[Trajectory]) -> float:
        batch = pack([longer, *neighbours], length=64, rows=1, batch_size=16)
        _, means = predict(frozen, tree, batch, config=config)
        return float(np.asarray(means)[np.asarray(batch.numbers) == first.number][0])

    alone = prediction([])
    assert prediction(others) == pytest.approx(alone, rel=1e-5)
    changed = [replace(t, reply_ids=(t.reply_ids + 1) % vocab, reward=1e6) for t in others]
    assert prediction(changed) == pytest.approx(prediction(others), rel=1e-6)
    batch = pack([longer], length=64, rows=1, batch_size=16)
    garbage = replace(batch, tokens=np.where(batch.segment_ids == 0, 7, batch.tokens))
    means = [predict(frozen, tree, b, config=config)[1] for b in (batch, garbage)]
    assert float(means[0][0, 0, 0]) == float(means[1][0, 0, 0])


def test_a_long_and_a_short_reply_weigh_the_same():
    values = jnp.array([[9.0, 2.0, 4.0, 9.0, 7.0, 7.0, 7.0, 7.0, 3.0]])
    segments = jnp.array([[1, 1, 1, 2, 2, 2, 2, 2, 0]])
    is_reply = jnp.array([[0, 1, 1, 0, 1, 1, 1, 1, 0]], bool)
    rewards = jnp.array([[1.0, 5.0, 100.0]])
    losses = objective.mean_squared_error(values, rewards, segments, is_reply)
    np.testing.assert_array_equal(losses[0, :2], [4.0, 4.0])
    targets = objective.at_tokens(rewards, segments)
    np.testing.assert_array_equal(targets[0], [1, 1, 1, 5, 5, 5, 5, 5, 0])
    each = objective.token_squared_error(values, targets, segments, is_reply, 3)
    np.testing.assert_array_equal(each[0], [(1 + 9) / 2, 4.0, 0.0])


def test_a_batch_that_is_not_full_is_normalised_by_its_own_trajectories():
    frozen, tree, config = case()
    trajectories = random_trajectories(5, config.value.backbone.vocab_size)
    batch = pack(trajectories, length=64, rows=1, batch_size=16)
    _, metrics = one_step(frozen, tree, batch, config)
    assert float(metrics.loss) == pytest.approx(oracle(frozen, tree, config, trajectories), rel=1e-5)


@pytest.mark.long
def test_a_mesh_of_devices_takes_the_step_of_one():
    frozen, tree, config = case()
    trajectories = random_trajectories(16, config.value.backbone.vocab_size)
    one = one_step(frozen, tree, pack(trajectories, length=LENGTH, rows=8, batch_size=16), config)
    mesh = make_mesh(2, 2, 2, devices=jax.devices()[:8])  # other shapes take twenty in test_distributed.py
    batch = pack(trajectories, length=LENGTH, rows=8, batch_size=16)
    many = one_step(shard_params(frozen, mesh), shard_params(tree, mesh), batch, config, mesh)
    assert float(many[1].loss) == pytest.approx(float(one[1].loss), rel=1e-5)
    for name, value in flatten_names(one[0].trained).items():
        np.testing.assert_allclose(flatten_names(many[0].trained)[name], value, rtol=0, atol=2e-6)


@pytest.mark.parametrize("trained", ["lora", "head", "full"])
def test_the_base_stays_bit_for_bit_and_the_optimizer_holds_moments_of_what_is_trained_alone(trained):
    frozen, tree, config = case(trained)
    before = jax.tree.map(np.array, (frozen, tree))
    state = init_state(tree, jax.random.key(0, impl="threefry2x32"), config=config)
    trajectories = random_trajectories(16, config.value.backbone.vocab_size)
    batch = pack(trajectories, length=64, rows=1, batch_size=16)
    for _ in range(3):
        state, _ = train_step(frozen, state, batch, config=config)
    jax.tree.map(np.testing.assert_array_equal, before, (frozen, tree))
    held = sum(x.size for x in jax.tree.leaves(state.optimizer))
    counters = sum(x.size for x in jax.tree.leaves(state.optimizer) if x.ndim == 0)
    assert held - counters == 2 * sum(x.size for x in jax.tree.leaves(tree))


def test_dropout_of_a_trajectory_does_not_depend_on_how_it_is_packed_and_changes_from_step_to_step():
    frozen, tree, config = case()
    lora = replace(LORA, dropout=0.4)
    config = replace(config, value=replace(config.value, lora=lora))
    trajectories = random_trajectories(8, config.value.backbone.vocab_size)

    compiled = jax.jit(trajectory_losses, static_argnames="config")

    def means(length: int, rows: int, key: Any) -> dict[int, float]:
        batch = pack(trajectories, length=length, rows=rows, batch_size=8)
        found = {}
        for i in range(int(batch.micro_batches)):
            got = compiled(frozen, tree, rows_of(batch, i), key, config=config)[1]
            real = batch.numbers[i] >= 0
            found |= dict(zip(batch.numbers[i][real].tolist(), np.asarray(got)[real].tolist(), strict=True))
        return found

    key, other = (jax.random.key(seed, impl="threefry2x32") for seed in (0, 1))
    wide, narrow, changed, none = (
        means(64, 2, key),
        means(26, 1, key),
        means(64, 2, other),
        means(64, 2, None),
    )
    for number in range(8):
        assert wide[number] == pytest.approx(narrow[number], rel=1e-4, abs=1e-5)
        assert abs(wide[number] - changed[number]) > 1e-4
        assert abs(wide[number] - none[number]) > 1e-4


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_the_rate(rate):
    from sia_jax.models.lora import _dropout

    keys = jax.random.key_data(jax.random.split(jax.random.key(0, impl="threefry2x32"), 400))
    dropped = np.asarray(_dropout(jnp.ones((400, 50)), keys, rate, "layers.0.self_attn.q_proj"))
    other = np.asarray(_dropout(jnp.ones((400, 50)), keys, rate, "layers.0.self_attn.k_proj"))
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / (1 - rate)], rtol=1e-6)
    assert abs(np.mean(dropped == 0) - rate) < 0.02
    parted = np.mean((dropped == 0) != (other == 0))
    assert abs(parted - 2 * rate * (1 - rate)) < 0.07


@pytest.mark.long
def test_recomputing_layers_changes_no_number():
    frozen, tree, config = case()
    trajectories = random_trajectories(16, config.value.backbone.vocab_size)
    batch = pack(trajectories, length=LENGTH, rows=2, batch_size=16)
    kept, recomputed = (
        one_step(frozen, tree, batch, replace(config, remat=remat)) for remat in (False, True)
    )
    for name, value in flatten_names(kept[0].trained).items():
        np.testing.assert_allclose(flatten_names(recomputed[0].trained)[name], value, rtol=0, atol=1e-6)


def test_one_program_serves_batches_of_any_lengths():
    frozen, tree, config = case(batch_size=8)
    state = init_state(tree, jax.random.key(0, impl="threefry2x32"), config=config)
    before = train_step._cache_size()
    for seed, longest in enumerate((4, 12, 20)):
        trajectories = random_trajectories(8 - seed, config.value.backbone.vocab_size, seed, longest)
        state, _ = train_step(
            frozen, state, pack(trajectories, length=LENGTH, rows=2, batch_size=8), config=config
        )
    assert train_step._cache_size() - before == 1


def test_a_run_on_loaded_weights_compiles_its_step_once():
    frozen, tree, config = case(batch_size=8)
    frozen = jax.device_put(frozen, jax.devices()[0])  # committed to a device, as loaded weights are
    data = random_trajectories(24, config.value.backbone.vocab_size)
    state = init_state(tree, jax.random.key(0, impl="threefry2x32"), config=config)
    before = train_step._cache_size()
    finished = run(frozen, state, data, (), config, LoopConfig(epochs=1, row_length=LENGTH, rows=2))
    assert int(finished.state.step) == 3
    assert train_step._cache_size() - before == 1


def test_the_learning_rate_rises_then_holds_or_falls():
    from sia_jax.training.optimizer import learning_rate

    constant = learning_rate(OptimizerConfig(learning_rate=2.0, warmup_steps=4))
    assert [float(constant(i)) for i in (0, 2, 4, 100)] == [0.0, 1.0, 2.0, 2.0]
    cosine = learning_rate(OptimizerConfig(2.0, schedule="cosine", warmup_steps=2, total_steps=12))
    np.testing.assert_allclose([float(cosine(i)) for i in (0, 2, 7, 12)], [0.0, 2.0, 1.1, 0.2], rtol=1e-6)


def on_states(config: ValueConfig) -> ValueConfig:
    return ValueConfig(config.backbone, "vocab", 3, states="policy")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: TrainConfig(c, trained="head"), "value.lora"),
        (lambda c: TrainConfig(replace(c, lora=None)), "LoraConfig"),
        (lambda c: TrainConfig(on_states(c), trained="full"), "got trained='full'; give trained='head'"),
        (lambda c: TrainConfig(c, objective="distil"), "teacher"),
        (lambda c: TrainConfig(c, teacher=c), "teacher"),
        (lambda c: TrainConfig(c, batch_size=0), "batch_size"),
        (lambda c: TrainConfig(c, objective="rank"), "objective"),
        (
            lambda c: TrainConfig(
                c, objective="distil", teacher=ValueConfig(tiny_policy(vocab_size=50).config)
            ),
            "50",
        ),
        (lambda c: OptimizerConfig(learning_rate=0), "learning_rate"),
        (lambda c: OptimizerConfig(weight_decay=-1), "weight_decay"),
        (lambda c: OptimizerConfig(schedule="cosine"), "total_steps"),
        (lambda c: OptimizerConfig(warmup_steps=5, total_steps=5), "warmup_steps"),
        (lambda c: OptimizerConfig(schedule="linear"), "schedule"),
    ],
)
def test_a_run_that_means_nothing_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(models()[1].config)
