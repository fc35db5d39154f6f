"""One training step: packed trajectories in, new trained parameters out, in one jitted program.

The parameters are two trees. `trained` is what the optimiser sees: {"lora" or "model", "value_head"}, or the
head alone. `frozen` is the rest, the base weights and a teacher's; no gradient and no optimiser state exists
for it. Both lie on the mesh by `sia_jax.parallel.mesh`, and the rows of a batch over "data" and "fsdp".
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, UInt32

from sia_jax.extras import installed_with
from sia_jax.models.config import ValueConfig
from sia_jax.models.passes import hidden_states
from sia_jax.models.value_model import value_net
from sia_jax.parallel.mesh import partition_spec
from sia_jax.training import objective
from sia_jax.training.batch import PackedBatch, PackedRows, micro_batch
from sia_jax.training.config import TrainConfig
from sia_jax.training.optimizer import make_optimizer
from sia_jax.types import Params, flatten_names, unflatten_names

with installed_with("train"):
    import optax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """What a step changes, and what a checkpoint must hold to go on with the same numbers."""

    trained: Params
    optimizer: Any
    step: Int[Array, ""]  # steps done
    rng_key: UInt32[Array, " 2"]  # raw threefry2x32 key of the run; each step folds in its number


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepMetrics:
    """Numbers of one step, over its whole batch."""

    loss: Float[Array, ""]  # squared units of the reward
    predictions: Float[Array, "A R M"]  # mean_t V of each trajectory
    gradient_norm: Float[Array, ""]  # before clipping
    parameter_norm: Float[Array, ""]  # of the trained parameters, before the step
    update_norm: Float[Array, ""]


@functools.partial(jax.jit, static_argnames=("config", "mesh"))
def init_state(
    trained: Params, rng_key: Array, *, config: TrainConfig, mesh: Mesh | None = None
) -> TrainState:
    """The state before the first step.

    Args:
      trained: the tree to be trained, on its devices; it is copied.
      rng_key: a threefry2x32 key, of which dropout is drawn.
      config: static.
      mesh: of the devices that hold the tree; None: one device.
    """
    state = TrainState(
        trained=trained,
        optimizer=make_optimizer(config.optimizer).init(trained),
        step=jnp.zeros((), jnp.int32),
        rng_key=jax.random.key_data(rng_key),
    )
    return _place_state(state, mesh)


@functools.partial(jax.jit, static_argnames=("config", "mesh"), donate_argnames="state")
def train_step(
    frozen: Params, state: TrainState, batch: PackedBatch, *, config: TrainConfig, mesh: Mesh | None = None
) -> tuple[TrainState, StepMetrics]:
    """One update from one batch: the gradient of sum_i loss_i / n over its n trajectories.

    The micro-batches run one after the other and their gradients add up, so that packing changes nothing:
    the loss is normalised by the trajectories of the whole batch.

    Args:
      frozen: the tree that is not trained.
      state: donated.
      batch: of one shape throughout a run.
      config: static.
      mesh: of the devices that hold the trees; None: one device.

    Returns:
      (the state after the step, its numbers).
    """
    count = jnp.maximum(jnp.sum(batch.numbers >= 0), 1).astype(jnp.float32)
    key = jax.random.fold_in(jax.random.wrap_key_data(state.rng_key, impl="threefry2x32"), state.step)

    def loss_of(trained: Params, frozen: Params, rows: PackedRows) -> tuple[Array, Array]:
        losses, means = trajectory_losses(frozen, trained, rows, key, config=config, mesh=mesh)
        return jnp.sum(jnp.where(rows.numbers >= 0, losses, 0)) / count, means

    def add(index: Array, carry: tuple[Array, Params, Array]) -> tuple[Array, Params, Array]:
        loss, gradient, predictions = carry
        (tree, base), rows = _tie((state.trained, frozen), micro_batch(batch, index), mesh)
        (more, means), g = jax.value_and_grad(loss_of, has_aux=True)(tree, base, rows)
        return loss + more, jax.tree.map(jnp.add, gradient, g), predictions.at[index].set(means)

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), state.trained)
    begin = (jnp.zeros(()), _place(zeros, mesh), jnp.zeros(batch.rewards.shape))
    loss, gradient, predictions = jax.lax.fori_loop(0, batch.micro_batches, add, begin)
    optimizer = make_optimizer(config.optimizer)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.trained)
    trained = optax.apply_updates(state.trained, updates)
    metrics = StepMetrics(
        loss=loss,
        predictions=_replicate(predictions, mesh),
        gradient_norm=optax.tree.norm(gradient),
        parameter_norm=optax.tree.norm(state.trained),
        update_norm=optax.tree.norm(updates),
    )
    after = TrainState(trained, optimizer_state, state.step + 1, state.rng_key)
    return _place_state(after, mesh), metrics


@functools.partial(jax.jit, static_argnames=("config", "mesh"))
def predict(
    frozen: Params, trained: Params, batch: PackedBatch, *, config: TrainConfig, mesh: Mesh | None = None
) -> tuple[Float[Array, "A R M"], Float[Array, "A R M"]]:
    """Losses and predictions mean_t V of a batch, without dropout, for evaluation.

    Args:
      frozen: as for `train_step`.
      trained: likewise.
      batch: packed; what stands where there is no trajectory means nothing.
      config: static.
      mesh: of the devices that hold the trees; None: one device.

    Returns:
      ([A, R, M] losses, [A, R, M] predictions in units of the reward).
    """

    def add(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        (base, tree), rows = _tie((frozen, trained), micro_batch(batch, index), mesh)
        losses, means = trajectory_losses(base, tree, rows, None, config=config, mesh=mesh)
        return carry[0].at[index].set(losses), carry[1].at[index].set(means)

    begin = (jnp.zeros(batch.rewards.shape), jnp.zeros(batch.rewards.shape))
    losses, means = jax.lax.fori_loop(0, batch.micro_batches, add, begin)
    return _replicate(losses, mesh), _replicate(means, mesh)


def trajectory_losses(
    frozen: Params,
    trained: Params,
    rows: PackedRows,
    rng_key: Array | None,
    *,
    config: TrainConfig,
    mesh: Mesh | None = None,
) -> tuple[Float[Array, "R M"], Float[Array, "R M"]]:
    """The objective of every trajectory of some rows, and its mean value.

    Args:
      frozen: the tree that is not trained.
      trained: the tree that is.
      rows: one micro-batch.
      rng_key: of this step's dropout; None: nothing is dropped.
      config: static.
      mesh: of the devices that hold the trees; None: one device.

    Returns:
      ([R, M] losses, [R, M] mean_t V).
    """
    dropout = None if rng_key is None or config.trained != "lora" else _dropout_keys(rng_key, rows)
    params = frozen | trained
    values = reply_values(params, rows, config.value, dropout, config.remat, mesh)
    segments = rows.rewards.shape[-1]
    means = objective.reply_mean(values, rows.segment_ids, rows.is_reply, segments)
    if config.objective == "mean":
        losses = objective.mean_squared_error(values, rows.rewards, rows.segment_ids, rows.is_reply)
        return losses, means
    if config.objective == "distil":
        assert config.teacher is not None
        teacher = {"model": frozen.get("model")} | frozen["teacher"]
        targets = jax.lax.stop_gradient(reply_values(teacher, rows, config.teacher, None, False, mesh))
    else:
        targets = objective.at_tokens(rows.rewards, rows.segment_ids)
    losses = objective.token_squared_error(values, targets, rows.segment_ids, rows.is_reply, segments)
    return losses, means


def reply_values(
    params: Params,
    rows: PackedRows,
    config: ValueConfig,
    dropout_keys: UInt32[Array, "R L 2"] | None,
    remat: bool,
    mesh: Mesh | None,
) -> Float[Array, "R L"]:
    """V(x, y_<=t) at every token y_t; with a vocab head Q(x, y_<t)[y_t], read off the token before.

    Args:
      params: {"model", "value_head"}, and "lora" if `config.lora` is set.
      rows: one micro-batch.
      config: of the value model.
      dropout_keys: one key a token; None: nothing is dropped.
      remat: recompute layers in the backward pass.
      mesh: of the devices that hold the trees; None: one device.

    Returns:
      [R, L] float32, in units of the reward. What stands at a trajectory's first token means nothing if the
      head is "vocab".
    """
    net = value_net(params, config, dropout_keys=dropout_keys)
    hidden = hidden_states(
        net.model,
        rows.tokens,
        config=config.backbone,
        adapter=net.adapter,
        segment_ids=rows.segment_ids,
        positions=rows.positions,
        remat=remat,
        mesh=mesh,
    )
    return net.token_values(hidden, rows.tokens)


def _dropout_keys(rng_key: Array, rows: PackedRows) -> UInt32[Array, "R L 2"]:
    """A key for each token, by its trajectory's number and its position there, wherever that is packed."""
    number = jnp.take_along_axis(rows.numbers, jnp.maximum(rows.segment_ids - 1, 0), axis=-1)
    fold = jax.vmap(jax.vmap(lambda n, t: jax.random.fold_in(jax.random.fold_in(rng_key, n), t)))
    return jax.random.key_data(fold(number, rows.positions))


def _tie(weights: Any, rows: PackedRows, mesh: Mesh | None) -> tuple[Any, PackedRows]:
    """The same numbers, but on a mesh the weights seem to change with the rows.

    They are the same in every trip of the loop over micro-batches. So the compiler would gather all layers
    before it, once, and each device would hold the whole model.
    """
    return (weights, rows) if mesh is None else jax.lax.optimization_barrier((weights, rows))


def _place_state(state: TrainState, mesh: Mesh | None) -> TrainState:
    """Trained parameters, and the moments beside them, by the partition rules; the rest on every device."""

    def place(node: Any) -> Any:
        return _place(node, mesh) if isinstance(node, dict) else _replicate(node, mesh)

    optimizer = jax.tree.map(place, state.optimizer, is_leaf=lambda node: isinstance(node, dict))
    step, rng_key = _replicate(state.step, mesh), _replicate(state.rng_key, mesh)
    return TrainState(_place(state.trained, mesh), optimizer, step, rng_key)


def _place(tree: Params, mesh: Mesh | None) -> Params:
    """Constrain a parameter tree to the places that the partition rules give it."""
    if mesh is None:
        return tree
    placed = {
        name: jax.lax.with_sharding_constraint(
            leaf, NamedSharding(mesh, partition_spec(name, leaf.shape, mesh))
        )
        for name, leaf in flatten_names(tree).items()
    }
    return unflatten_names(placed)


def _replicate(x: Array, mesh: Mesh | None) -> Array:
    """Constrain an array to lie whole on every device."""
    return x if mesh is None else jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P()))
