"""The options of `train.value_model`, what can be said of them at once, and what they make."""

import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import tyro

from sia_jax.data.prompts import check_seed
from sia_jax.models.config import ModelConfig, ValueConfig
from sia_jax.models.lora import ATTENTION_PROJECTIONS, LoraConfig, check_targets
from sia_jax.pretrained import ValueModel
from sia_jax.runs.cli import Folder, Int, check_used, named_as_options, option_of
from sia_jax.training.config import OptimizerConfig, TrainConfig, Trained
from sia_jax.training.loop import LoopConfig, evaluations_apart


@dataclass(frozen=True, kw_only=True)
class Args:
    """Train a value model."""

    data: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Labelled trajectories, as train.prepare and train.label make them."""
    base: Folder
    """The backbone: a folder, or else a Hub id."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Where the run lives. One that is there is continued."""

    trained: Literal["lora", "head", "full"] = "lora"
    """lora: an adapter and the head; head: the head on the frozen backbone; full: backbone and head."""
    objective: Literal["mean", "token", "distil"] = "mean"
    """mean: (mean_t V - R)^2, the paper's; token: mean_t (V_t - R)^2; distil: mean_t (V_t - teacher)^2."""
    head: Literal["scalar", "vocab"] = "scalar"
    """scalar: the value of a token that was read; vocab: of all next tokens, from the prefix alone."""
    head_rank: int | None = None
    """Inner width of a vocab head."""
    states: Literal["own", "policy"] = "own"
    """Whose hidden states the head reads. policy: those of the base, which the sampler has anyway; a vocab
    head alone is trained, and steers the base without a pass."""
    teacher: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """A value model over the same base, or with a backbone of its own, for distil."""
    init: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """A value model over the same base whose weights are trained further; its head, and the ranks of head and
    adapter, are to be said again. The optimiser begins anew."""
    rank: int = 16
    """Of the adapter's matrices."""
    alpha: float = 32.0
    """The adapter's change is scaled by alpha / rank."""
    dropout: float = 0.1
    """Share of the adapter's inputs that a step drops."""
    targets: tuple[str, ...] = ATTENTION_PROJECTIONS
    """Projections that the adapter changes."""

    learning_rate: float = 1e-4
    """Of AdamW, at its highest."""
    weight_decay: float = 1e-4
    """Taken off each trained weight in a step, times the learning rate and the weight."""
    clip_norm: float = 1.0
    """Largest norm of a step's gradient; a larger one is scaled down to it."""
    schedule: Literal["constant", "cosine"] = "constant"
    """cosine: the learning rate falls to a tenth by the end of the run."""
    warmup_steps: int = 0
    """Steps in which the learning rate rises from 0."""
    batch_size: Annotated[int, tyro.conf.arg(aliases=["--batch"])] = 16
    """Trajectories of a step."""
    epochs: int = 3
    """Passes over the data."""
    row_length: int = 1024
    """Tokens of a packed row; longer trajectories are kept out, and counted."""
    rows: int = 1
    """Rows that run at a time; a multiple of the mesh's data times fsdp."""
    held_out: Annotated[float | None, tyro.conf.arg(metavar="SHARE", help_behavior_hint="")] = None
    """Share of the prompts to evaluate on. Default: 20 prompts, at most a fifth of all and at least 1%."""
    seed: int = 0
    """Of the weights that are trained, the order of the data, and what is held out."""

    mesh: Annotated[tuple[int, int, int], tyro.conf.arg(metavar="DATA FSDP TENSOR")] = (1, 1, 1)
    """Devices that replicate the weights, split them, and split heads and features."""
    distributed: bool = False
    """Whether this is one of several processes; the launcher's environment says which, and of how many."""
    dtype: Literal["config", "float32", "bfloat16"] = "config"
    """Of the frozen weights; what is trained is float32, and so is all of a full run."""
    remat: bool = False
    """Recompute layers in the backward pass: less memory, a third more work."""

    evaluate_every: Int = None
    """Steps. Default: 200, but four times in a shorter run."""
    checkpoint_every: int = 200
    """Steps."""
    keep: int = 3
    """Checkpoints that stay, beside the best."""
    patience: int | None = None
    """Evaluations without a better one after which to stop."""
    max_steps: int | None = None
    """Stop there, to go on another time."""
    layout: Literal["sia_jax", "official"] = "sia_jax"
    """Of the value models in last/ and best/."""


def what_is_trained(args: Args) -> Trained:
    """As --trained says, but of a head on the policy's states the head."""
    return args.trained if args.states == "own" else "head"


def check_options(args: Args) -> None:
    """What can be said of the options before anything is read.

    Raises:
      ValueError: one out of its range, one that is missing, or one that would change nothing.
    """
    if args.head == "vocab":
        if args.head_rank is None:
            raise ValueError("--head vocab has an inner width: give --head-rank R, such as 64")
        if args.layout == "official":
            raise ValueError("--layout official holds a scalar head; leave it out, or --head vocab")
    else:
        check_used(args, ("head_rank",), "--head vocab")
    if args.states == "policy" and args.head != "vocab":
        raise ValueError(
            f"--states policy is for a vocab head, which reads the prefix alone, got --head {args.head}; "
            "pass --head vocab --head-rank R, such as 64"
        )
    if args.states == "policy" and args.trained == "full":
        raise ValueError("--states policy trains the head alone, got --trained full; leave that out")
    if args.objective != "distil":
        check_used(args, ("teacher",), "--objective distil")
    elif args.teacher is None:
        raise ValueError("--objective distil learns from a value model: give --teacher DIR")
    if what_is_trained(args) != "lora":
        mode = "--trained lora" if args.states == "own" else "--states own"
        check_used(args, ("rank", "alpha", "dropout", "targets"), mode)
    if args.held_out == 0:
        check_used(args, ("evaluate_every", "patience"), "a --held-out above 0, to evaluate on")
    elif args.held_out is not None and not 0 < args.held_out < 1:
        raise ValueError(f"--held-out must be a share of the prompts, from 0 to below 1, got {args.held_out}")
    for name, number in (("batch", args.batch_size), ("head_rank", args.head_rank), ("keep", args.keep)):
        if number is not None and number < 1:
            raise ValueError(f"{option_of(name)} must be 1 or more, got {number}")
    check_seed(args.seed, "--seed")
    # Of how many steps is known with the data.
    loop_config(args, sys.maxsize)
    _optimizer(args, sys.maxsize)
    _lora(args)


def backbone_dtype(args: Args) -> Any:
    """Of the backbone; None: what its config.json names.

    Raises:
      ValueError: one in which a full run would lose what it learns.
    """
    if args.trained != "full":
        return None if args.dtype == "config" else jnp.dtype(args.dtype)
    if args.dtype == "bfloat16":
        raise ValueError(
            "--dtype bfloat16 is for weights that stay as they are, and --trained full trains all of them in "
            "float32; pass --dtype float32"
        )
    return jnp.dtype("float32")


def _named(args: Args) -> AbstractContextManager[None]:
    """Around what the options make: errors name the options."""
    return named_as_options(args, target_modules="targets")


def loop_config(args: Args, steps: int) -> LoopConfig:
    """How a run of so many steps goes through its data."""
    with _named(args):
        return LoopConfig(
            epochs=args.epochs,
            row_length=args.row_length,
            rows=args.rows,
            seed=args.seed,
            evaluate_every=evaluations_apart(steps) if args.evaluate_every is None else args.evaluate_every,
            checkpoint_every=args.checkpoint_every,
            patience=args.patience,
            max_steps=args.max_steps,
        )


def _optimizer(args: Args, steps: int) -> OptimizerConfig:
    with _named(args):
        return OptimizerConfig(
            args.learning_rate,
            args.weight_decay,
            args.clip_norm,
            schedule=args.schedule,
            warmup_steps=args.warmup_steps,
            total_steps=steps,
        )


def _lora(args: Args) -> LoraConfig | None:
    if what_is_trained(args) != "lora":
        return None
    with _named(args):
        lora = LoraConfig(args.rank, args.alpha, tuple(args.targets), args.dropout)
        check_targets(lora)
    return lora


def train_config(args: Args, model: ModelConfig, teacher: ValueModel | None, steps: int) -> TrainConfig:
    """What is trained, of a backbone and for so many steps."""
    with _named(args):
        return TrainConfig(
            ValueConfig(model, args.head, args.head_rank, _lora(args), args.states),
            trained=what_is_trained(args),
            objective=args.objective,
            teacher=None if teacher is None else teacher.config,
            batch_size=args.batch_size,
            optimizer=_optimizer(args, steps),
            remat=args.remat,
        )
