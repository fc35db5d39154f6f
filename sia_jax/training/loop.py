"""The training loop: batches in a reproducible order, steps, evaluations, checkpoints, and where to stop.

Everything that decides what comes next is in the checkpoint, so that a run that is killed and started again
goes through the same numbers as one that was not.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sia_jax.data.trajectories import Trajectory
from sia_jax.extras import installed_with
from sia_jax.parallel.lock_step import agreed
from sia_jax.parallel.mesh import ROW_AXES, row_shards
from sia_jax.training.batch import PackedBatch
from sia_jax.training.checkpoint import Checkpoints
from sia_jax.training.config import TrainConfig
from sia_jax.training.packing import pack
from sia_jax.training.regression import Fit, fit
from sia_jax.training.step import StepMetrics, TrainState, predict, train_step
from sia_jax.types import Params

with installed_with("train"):
    import grain


@dataclass(frozen=True)
class LoopConfig:
    """How a run goes through its data. Changes of the last four leave the numbers of a step as they are."""

    epochs: int = 3
    row_length: int = 1024
    """L: tokens of a packed row; no trajectory may be longer."""
    rows: int = 1
    """R: rows of a micro-batch, a multiple of the mesh's "data" times "fsdp"."""
    seed: int = 0
    """Of the order of the data and of dropout."""
    evaluate_every: int = 200
    """Steps; the end of the run is evaluated too."""
    checkpoint_every: int = 200
    """Steps."""
    patience: int | None = None
    """Evaluations without a better one after which the run stops; None: it runs to its end."""
    max_steps: int | None = None
    """Stop there, to go on another time."""

    def __post_init__(self) -> None:
        names = (
            "epochs",
            "row_length",
            "rows",
            "evaluate_every",
            "checkpoint_every",
            "patience",
            "max_steps",
        )
        for name, least in (*((name, 1) for name in names), ("seed", 0)):
            number = getattr(self, name)
            if number is not None and number < least:
                raise ValueError(f"{name} must be {least} or more, got {number}")


@dataclass(frozen=True)
class StepReport:
    """What is told of a step."""

    step: int  # steps done
    epoch: float  # passes over the data
    loss: float
    mae: float  # mean over the batch of |mean_t V - R|
    gradient_norm: float
    parameter_norm: float
    update_norm: float
    tokens: int  # of prompts and replies
    computed: int  # with padding
    seconds: float  # since the last report
    trajectories: tuple[int, ...] = ()  # their numbers in the data, row by row


@dataclass(frozen=True)
class Progress:
    """Where a run stands beside its parameters; it goes into the checkpoint as JSON."""

    data: dict[str, int] = field(default_factory=dict)  # Grain's own state
    best_loss: float | None = None
    best_step: int | None = None
    evaluations_since_best: int = 0
    stopped: bool = False


@dataclass(frozen=True)
class Finished:
    """A run at its end, or where `max_steps` stopped it."""

    state: TrainState
    progress: Progress
    complete: bool


def total_steps(count: int, batch_size: int, epochs: int) -> int:
    """ceil(count * epochs / batch_size): a batch may reach into the next epoch; the last may be smaller."""
    return math.ceil(count * epochs / batch_size)


def evaluations_apart(steps: int) -> int:
    """Steps between two evaluations where no number is asked for: 200, or a quarter of a shorter run."""
    return max(min(200, steps // 4), 1)


def batches(data: Sequence[Trajectory], config: TrainConfig, loop: LoopConfig) -> Any:
    """Grain's iterator over the numbers of each batch's trajectories; its state is one number.

    Args:
      data: the trajectories.
      config: gives the batch size.
      loop: gives seed and epochs.
    """
    order = grain.MapDataset.range(len(data)).seed(loop.seed).shuffle().repeat(loop.epochs)
    numbers = order.batch(config.batch_size, drop_remainder=False)
    return iter(numbers.to_iter_dataset(grain.ReadOptions(1, 1)))


def place(batch: PackedBatch, mesh: Mesh | None) -> PackedBatch:
    """The batch on its devices, rows over "data" and "fsdp"; each process gives its own rows of it."""
    if mesh is None:
        return jax.tree.map(jax.numpy.asarray, batch)

    def put(array: Any) -> jax.Array:
        array = np.asarray(array)
        spec = P(None, ROW_AXES) if array.ndim else P()
        return jax.make_array_from_callback(
            array.shape, NamedSharding(mesh, spec), lambda index: array[index]
        )

    return jax.tree.map(put, batch)


def evaluate(
    frozen: Params,
    trained: Params,
    data: Sequence[Trajectory],
    config: TrainConfig,
    loop: LoopConfig,
    mesh: Mesh | None = None,
) -> tuple[float, Fit]:
    """The objective over held-out trajectories, without dropout, and how well mean_t V predicts R.

    Args:
      frozen: the tree that is not trained.
      trained: the tree that is.
      data: held out.
      config: of the step.
      loop: gives the shape of batches.
      mesh: of the devices.

    Returns:
      (mean loss over trajectories, agreement of predictions and rewards).
    """
    losses, predictions = np.zeros(len(data)), np.zeros(len(data))
    for start in range(0, len(data), config.batch_size):
        chosen = [replace(t, number=start + i) for i, t in enumerate(data[start : start + config.batch_size])]
        packed = _pack(chosen, config, loop)
        got = jax.device_get(predict(frozen, trained, place(packed, mesh), config=config, mesh=mesh))
        real = packed.numbers >= 0
        losses[packed.numbers[real]], predictions[packed.numbers[real]] = got[0][real], got[1][real]
    found = fit(predictions.tolist(), [t.reward for t in data], [t.group for t in data])
    return float(losses.mean()), found


def run(
    frozen: Params,
    state: TrainState,
    data: Sequence[Trajectory],
    held_out: Sequence[Trajectory],
    config: TrainConfig,
    loop: LoopConfig,
    *,
    mesh: Mesh | None = None,
    checkpoints: Checkpoints | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_start: Callable[[int], None] = lambda step: None,
    on_step: Callable[[StepReport], None] = lambda report: None,
    on_evaluation: Callable[[int, float, Fit], None] = lambda step, loss, found: None,
) -> Finished:
    """Train to the end, from the newest whole checkpoint if there is one.

    Args:
      frozen: the tree that is not trained, on its devices.
      state: of step 0; its buffers are used up.
      data: to learn from.
      held_out: to evaluate on; empty: nothing is evaluated, and nothing is best.
      config: of the step.
      loop: of the run.
      mesh: of the devices that hold the trees; None: one device.
      checkpoints: where they are kept; None: nowhere.
      should_stop: asked after each step; if it says so, the step is checkpointed and the run ends there.
      on_start: told the step that the run goes on from, 0 at its beginning.
      on_step: told of each step, one step late, so that the device never waits for it.
      on_evaluation: told (step, loss, agreement).

    Raises:
      ValueError: no data, rows that the mesh does not divide, or a checkpoint of another run.
      FloatingPointError: a loss or a gradient is not finite; what led there is not checkpointed.
      OSError: a checkpoint could not be written.
    """
    _check(data, held_out, config, loop, mesh)
    iterator, progress = batches(data, config, loop), Progress()
    if checkpoints is not None and (restored := checkpoints.restore(state)) is not None:
        jax.tree.map(lambda leaf: leaf.delete(), state)
        state, meta = restored
        progress = _stopped(Progress(**meta), loop)  # by this run's patience, which may be another
        iterator.set_state(progress.data)
    done = int(state.step)
    agreed("going on", lambda: (done, progress), lambda x: {"step": x[0], "progress": x[1]}, mesh=mesh)
    if mesh is None:
        # A step returns a state that is committed to its device. One that is not is another kind of argument,
        # for which the step would be compiled once more.
        state = jax.device_put(state, state.step.device)
    end = total_steps(len(data), config.batch_size, loop.epochs)
    stop = min(end, loop.max_steps or end)
    pending, interrupted = None, False
    on_start(done)
    clock = time.perf_counter()
    while done < stop and not progress.stopped and not interrupted:
        chosen = [data[int(i)] for i in np.atleast_1d(next(iterator))]
        packed = _pack(chosen, config, loop)
        state, metrics = train_step(frozen, state, place(packed, mesh), config=config, mesh=mesh)
        done += 1
        progress = replace(progress, data=iterator.get_state())
        if pending is not None:
            clock = _tell(pending, clock, on_step, len(data), config)
        pending = (done, metrics, packed)
        last, interrupted = done == end, should_stop()
        if held_out and (last or done % loop.evaluate_every == 0):
            clock, pending = _tell(pending, clock, on_step, len(data), config), None
            loss, found = evaluate(frozen, state.trained, held_out, config, loop, mesh)
            if not np.isfinite(loss):
                raise FloatingPointError(
                    f"the loss of the held-out replies is {loss} after step {done}: look for a reward among "
                    "theirs that is far from all others, or lower the learning rate"
                )
            on_evaluation(done, loss, found)
            progress = _judge(progress, done, loss, loop)
            if progress.best_step == done and checkpoints is not None:
                checkpoints.save(state, asdict(progress), best=True)
            clock = time.perf_counter()
        if checkpoints is not None and (
            progress.stopped or interrupted or done == stop or done % loop.checkpoint_every == 0
        ):
            if pending is not None:
                clock, pending = _tell(pending, clock, on_step, len(data), config), None
            checkpoints.save(state, asdict(progress))
    if pending is not None:
        _tell(pending, clock, on_step, len(data), config)
    if checkpoints is not None:
        checkpoints.wait()
    return Finished(state, progress, complete=progress.stopped or done == end)


def _check(
    data: Sequence[Trajectory],
    held_out: Sequence[Trajectory],
    config: TrainConfig,
    loop: LoopConfig,
    mesh: Mesh | None,
) -> None:
    """There are data, their rows fit the mesh, and all of its processes have the same ones."""

    def check() -> None:
        if not len(data):
            raise ValueError("there is nothing to train on: the data hold no trajectory")
        shards = row_shards(mesh)
        if loop.rows % shards:
            raise ValueError(
                f"rows must be a multiple of {shards}, the mesh's data times fsdp, got {loop.rows}; take "
                f'{-(-loop.rows // shards) * shards}, or give the mesh more "tensor" and less of the rest'
            )

    def parts(_: None) -> dict[str, Any]:
        sets = {"data": data, "held-out data": held_out}
        contents = {
            name: [(t.prompt_ids, t.reply_ids, t.reward, t.number, t.group) for t in each]
            for name, each in sets.items()
        }
        return contents | {"configuration": (config, loop)}

    agreed("training", check, parts, mesh=mesh)


def _pack(chosen: Sequence[Trajectory], config: TrainConfig, loop: LoopConfig) -> PackedBatch:
    return pack(chosen, length=loop.row_length, rows=loop.rows, batch_size=config.batch_size)


def _judge(progress: Progress, step: int, loss: float, loop: LoopConfig) -> Progress:
    """Whether this evaluation is the best so far, and whether to go on after it."""
    if progress.best_loss is None or loss < progress.best_loss:
        return replace(progress, best_loss=loss, best_step=step, evaluations_since_best=0)
    return _stopped(replace(progress, evaluations_since_best=progress.evaluations_since_best + 1), loop)


def _stopped(progress: Progress, loop: LoopConfig) -> Progress:
    """Whether the run ends there for want of a better evaluation."""
    patience = loop.patience
    return replace(progress, stopped=patience is not None and progress.evaluations_since_best >= patience)


def _tell(
    pending: tuple[int, StepMetrics, PackedBatch],
    clock: float,
    on_step: Callable[[StepReport], None],
    count: int,
    config: TrainConfig,
) -> float:
    """Report a step whose numbers are on their way, and read the clock anew."""
    step, metrics, packed = pending
    metrics = jax.device_get(metrics)
    numbers = {"loss": metrics.loss, "gradient's norm": metrics.gradient_norm, "update": metrics.update_norm}
    if wrong := [f"the {name} of step {step} is {x}" for name, x in numbers.items() if not np.isfinite(x)]:
        chosen = sorted(packed.numbers[packed.numbers >= 0].tolist())
        raise FloatingPointError(f"{wrong[0]}: lower the learning rate, or look at trajectories {chosen}")
    real = packed.numbers >= 0
    now = time.perf_counter()
    on_step(
        StepReport(
            step=step,
            epoch=step * config.batch_size / count,
            loss=float(metrics.loss),
            mae=float(np.mean(np.abs(metrics.predictions[real] - packed.rewards[real]))),
            gradient_norm=float(metrics.gradient_norm),
            parameter_norm=float(metrics.parameter_norm),
            update_norm=float(metrics.update_norm),
            tokens=int(np.sum(packed.segment_ids > 0)),
            computed=int(packed.micro_batches) * packed.tokens[0].size,
            seconds=now - clock,
            trajectories=tuple(packed.numbers[real].tolist()),
        )
    )
    return now


FEWEST_HELD_OUT = 20
"""Prompts that are held out where no share is asked for, if that is at most a fifth of them."""


def held_out_share(prompts: int) -> float:
    """The share of so many prompts to hold out where none is asked for: max(1%, min(20 prompts, 20%))."""
    return max(0.01, min(FEWEST_HELD_OUT / max(prompts, 1), 0.2))


def held_out_groups(groups: Sequence[str], share: float, seed: int) -> set[str]:
    """The groups to hold out: about `share` of them, the same ones whatever the order of the data.

    Whole groups, for a reply to a prompt that was trained on would be no test.

    Args:
      groups: of every trajectory.
      share: 0 .. 1.
      seed: which.

    Raises:
      ValueError: a share outside 0 .. 1.
    """
    if not 0 <= share < 1:
        raise ValueError(f"the share to hold out must lie in [0, 1), got {share}")
    names = sorted(set(groups))
    count = round(share * len(names)) or (1 if share > 0 and len(names) > 1 else 0)
    picked = np.random.default_rng(seed).permutation(len(names))[:count]
    return {names[i] for i in picked}


def split(
    data: Sequence[Trajectory], share: float | None, seed: int
) -> tuple[list[Trajectory], list[Trajectory]]:
    """(to train on, held out), by whole groups; without a share `held_out_share`."""
    groups = [t.group for t in data]
    share = held_out_share(len(set(groups))) if share is None else share
    out = held_out_groups(groups, share, seed)
    return [t for t in data if t.group not in out], [t for t in data if t.group in out]
