"""The options of `train.iterate`, what can be said of them at once, and what they make of each program."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sia_jax.reports.model_card import check_licence
from sia_jax.runs import runner
from sia_jax.runs.cli import Count, Float, Folder, Int, Name, Names, check_texts
from sia_jax.runs.options import FilterArgs, SamplingArgs
from sia_jax.runs.rewards import RewardArgs
from train import value_model_options
from train.generation import FILTERS, STEERING

TRAINING = (
    *("trained", "objective", "head", "head_rank", "states", "rank", "alpha", "dropout"),
    *("learning_rate", "schedule", "warmup_steps", "batch_size", "epochs", "rows", "held_out"),
    *("seed", "dtype", "remat", "evaluate_every", "checkpoint_every"),
)
"""The options of train.value_model that a round takes as they are."""


@dataclass(frozen=True, kw_only=True)
class TrainingArgs:
    """How a round trains, as options of train.value_model."""

    trained: Literal["lora", "head", "full"] = "lora"
    """lora: an adapter and the head; head: the head on the frozen backbone; full: backbone and head."""
    objective: Literal["mean", "token"] = "mean"
    """mean: (mean_t V - R)^2, the paper's; token: mean_t (V_t - R)^2."""
    head: Literal["scalar", "vocab"] = "scalar"
    """scalar: the value of a token that was read; vocab: of all next tokens, from the prefix alone."""
    head_rank: Int = None
    """Inner width of a vocab head."""
    states: Literal["own", "policy"] = "own"
    """Whose hidden states the head reads. policy: those of the policy, which the sampler has anyway."""
    rank: Count = 16
    """Of the adapter's matrices."""
    alpha: float = 32.0
    """The adapter's change is scaled by alpha / rank."""
    dropout: float = 0.1
    """Share of the adapter's inputs that a step drops."""
    learning_rate: float = 1e-4
    """Of AdamW, at its highest; in every round anew."""
    schedule: Literal["constant", "cosine"] = "constant"
    """cosine: the learning rate falls to a tenth by the end of each round."""
    warmup_steps: Count = 0
    """Steps of each round in which the learning rate rises from 0."""
    batch_size: Count = 16
    """Trajectories of a step."""
    epochs: Count = 1
    """Passes over its data in each round."""
    rows: Count = 1
    """Packed rows that run at a time."""
    held_out: Float = None
    """Share of the training prompts that no round learns from. Default: as of train.value_model."""
    remat: bool = False
    """Recompute layers in the backward pass: less memory, a third more work."""
    evaluate_every: Int = None
    """Steps. Default: 200, but four times in a shorter round."""
    checkpoint_every: Count = 200
    """Steps."""


@dataclass(frozen=True, kw_only=True)
class Args(TrainingArgs, RewardArgs, FilterArgs):
    """Train a value model on what it steers, in rounds."""

    policy: Folder
    """The language model that is steered: a folder, or else a Hub id."""
    value: Name = None
    """A value model to begin with, which steers in the first round and is trained further. Without: the first
    round is of the policy alone, and trains a new one."""
    reward_model: Annotated[Names, tyro.conf.arg(aliases=["--reward"])] = ()
    """A reward model: a folder, or else a Hub id. DIR=WEIGHT weights it. May be given again: the reward is
    the weighted sum."""
    prompts: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """The training prompts, as of train.prepare --format jsonl."""
    validation: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """The prompts that say which round is the best; none of them may be a training prompt."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Where the rounds live. An iteration that is there is continued."""
    rounds: Count = 3
    """How many. More than there are go on from the last one."""
    replies: Count = 4
    """To each training prompt in each round."""
    steered: float = 0.5
    """Share of a round's replies that the value model so far steers; the others are the policy's own."""
    learn_from: Literal["all", "last"] = "all"
    """all: a round learns from the replies of all rounds so far; last: from its own alone."""
    validation_replies: Count = 2
    """To each validation prompt."""

    threshold: float = 1.0
    """Entropy in nats from which a position is steered, in training and validation; -inf: all."""
    beta: Float = None
    """Weight of the values, nats for each unit of reward. Default 1."""
    tilt_bound: Float = None
    """Nats that no logit is moved beyond, as in decode.generate."""
    num_candidates: Int = None
    """Tokens that the value model chooses among. Default 10."""
    max_new_tokens: Count = 128
    """Length at which a reply is cut."""
    max_length: Count = 1024
    """Longest prompt and reply, in tokens; prompts that leave no room are kept out, and counted."""
    prompt_form: Literal["auto", "chat", "raw"] = "auto"
    """How the policy is prompted, as in decode.generate."""
    date_string: Annotated[str | None, tyro.conf.arg(metavar="DATE", help_behavior_hint="")] = None
    """The date that the policy's chat template writes; must be given if it writes today's."""
    reward_date_string: Annotated[str | None, tyro.conf.arg(metavar="DATE", help_behavior_hint="")] = None
    """The date that the reward models' chat templates write; must be given if one writes today's."""

    seed: Count = 0
    """Of everything random."""
    dtype: Literal["config", "float32", "bfloat16"] = "config"
    """Of the frozen weights; config: as their config.json says. float32 is the fast one on a CPU."""
    mesh: Annotated[tuple[int, int, int], tyro.conf.arg(metavar="DATA FSDP TENSOR")] = (1, 1, 1)
    """Devices of every part, as of its program."""
    batch: Count = 16
    """Replies that are sampled at a time. More is faster until the memory is full."""
    batch_tokens: Count = 8192
    """Of a batch that is scored, padding included."""

    license: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Of the value model, for its model card, as the Hub names it: apache-2.0, mit, other."""
    base_model: Annotated[str | None, tyro.conf.arg(metavar="ID", help_behavior_hint="")] = None
    """The policy's id on the Hub, for the model card, where --policy is a folder."""


def check_options(args: Args) -> None:
    """What can be said of the options before anything is read.

    Raises:
      ValueError: one out of its range, one that is missing, or one that would change nothing.
    """
    check_texts(args)
    for name in (
        "rounds",
        "replies",
        "validation_replies",
        "batch",
        "batch_size",
        "batch_tokens",
        "max_length",
    ):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be 1 or more, got {getattr(args, name)}")
    if not 0 <= args.steered <= 1:
        raise ValueError(f"--steered must be a share of the replies, from 0 to 1, got {args.steered}")
    check_licence(args.license, "--license")
    runner.check_options(sampling(args))
    value_model_options.check_options(training(args, Path("none"), Path("none"), None))


def sampling(args: Args) -> SamplingArgs:
    """As a value model steers, whether there is one yet or not; for what can be said without it."""
    return SamplingArgs(
        policy=args.policy,
        value=args.value or "the first round's",
        dtype=args.dtype,
        mesh=args.mesh,
        **{name: getattr(args, name) for name in (*FILTERS, *STEERING) if name != "value"},
        max_new_tokens=args.max_new_tokens,
        seed=args.seed,
        prompt_form=args.prompt_form,
        date_string=args.date_string,
    )


def training(args: Args, data: Path, out: Path, init: str | None) -> value_model_options.Args:
    """The training of a round.

    Args:
      args: of the iteration.
      data: the set that it learns from.
      out: of its run.
      init: the value model that it trains further.
    """
    given: dict[str, Any] = {name: getattr(args, name) for name in TRAINING}
    return value_model_options.Args(
        data=data,
        base=args.policy,
        out=out,
        init=init,
        row_length=args.max_length,
        mesh=args.mesh,
        **given,
    )
