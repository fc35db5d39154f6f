r"""Make the embedded world: a tokenizer, a policy, a reward model, and value models, from one seed, on a CPU.

    python -m train.world --out out/world                  # all of it, within two hours on two cores
    python -m train.world --out out/tiny --size tiny       # three minutes: that everything runs

    # Steer with what was made:
    python -m decode.generate --policy out/world/models/policy --value out/world/models/value \
        --prompts out/world/models/prompts/test.jsonl --out out/replies.jsonl --record

The policy learns to write from the grammar's dialogues, good ones and bad ones (sia_jax.world); the reward
model from noisy preferences between replies; the value models, as the paper has it, from replies of the
policy itself with the reward model's rewards, by train.prepare --generate, train.label and train.value_model.

--out holds models/, which is all that is needed later (MODEL_CARD.md in it says what the models score), and
beside it the runs and data that they came from. Stop it at any moment, and start the same command again: it
goes on. The same seed gives the same bytes of tokenizer, prompts and dialogues anywhere, and the same weights
on the same machine with the same versions.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sia_jax.data.prompts import check_seed
from sia_jax.data.records import read_records
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs
from sia_jax.runs.cli import Count, program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.progress import waiting
from sia_jax.runs.provenance import software
from sia_jax.world.card import write_card
from sia_jax.world.stages import (
    REPLY_TOKENS,
    ROW_LENGTH,
    World,
    collect,
    lower_layers,
    train_policy,
    train_reward_model,
    write_texts,
)
from train import label, prepare, value_model
from train.diary import Diary
from train.generation import GenerationArgs


@dataclass(frozen=True, kw_only=True)
class Args:
    """Make a world."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Where it is made. One that is there is continued."""
    seed: Count = 0
    """Of everything random; the prompts and their splits are always the same."""
    size: Literal["full", "tiny"] = "full"
    """tiny: of everything less, to see that it runs; nothing is to be learned from its results."""


def main(args: Args) -> None:
    """Make a world; exits with 1 if something is wrong with the folder, with 130 or 143 if interrupted."""
    kept = "interrupted; the same command goes on"
    with program("train.world", FloatingPointError, interrupted=lambda: kept) as console:
        check_outputs(inputs={}, folders={"--out": args.out})
        with locked(folders=(args.out,)):
            make(World(args.out, args.seed, args.size), console)


def _replies(world: World, console: Terminal) -> None:
    """Replies of the policy to the training prompts."""
    out = world.runs / "replies"
    if prepare.is_prepared(out):
        return  # the set was ready when the run was killed
    sampling = GenerationArgs(
        generate=world.size.replies,
        policy=str(world.models / "policy"),
        # Few replies take less time than a program for each length of prompt: all in one batch.
        batch=64 if world.size.prompts is None else world.size.replies * world.size.prompts,
        max_new_tokens=REPLY_TOKENS,
        seed=world.seed,
    )
    prepare.main(
        prepare.Args(
            format="jsonl",
            input=str(world.models / "prompts" / "train.jsonl"),
            out=str(out),
            max_length=ROW_LENGTH,
            limit=world.size.prompts,
            sampling=sampling,
        )
    )


def _labels(world: World, console: Terminal) -> None:
    """The reward model's rewards of the replies."""
    label.main(
        label.Args(
            input=str(world.runs / "replies"),
            reward_model=(str(world.models / "reward"),),
            out=str(world.runs / "labelled"),
            max_tokens=ROW_LENGTH,
        )
    )


def _value(world: World, console: Terminal) -> None:
    _learn_values(world, "value", lora=True, learning_rate=1e-3)
    collect(world, "value", layout="official")


def _value_token(world: World, console: Terminal) -> None:
    _learn_values(world, "value-token", lora=True, learning_rate=1e-3, objective="token")
    collect(world, "value-token", layout="official")


def _value_vocab(world: World, console: Terminal) -> None:
    _learn_values(
        world,
        "value-vocab",
        lora=True,
        learning_rate=2e-3,
        head="vocab",
        head_rank=world.size.head_rank,
        objective="distil",
        teacher=str(world.runs / "value" / "best"),
    )
    collect(world, "value-vocab")


def _value_states(world: World, console: Terminal) -> None:
    _learn_on_states(world, "value-states")


def _value_states_token(world: World, console: Terminal) -> None:
    _learn_on_states(world, "value-states-token", objective="token")


def _value_states_distil(world: World, console: Terminal) -> None:
    teacher = str(world.runs / "value-token" / "best")
    _learn_on_states(world, "value-states-distil", objective="distil", teacher=teacher)


def _learn_on_states(world: World, name: str, **options: Any) -> None:
    """A vocab head on the policy's own hidden states."""
    options |= {"head": "vocab", "head_rank": world.size.head_rank, "states": "policy"}
    _learn_values(world, name, learning_rate=2e-3, **options)
    collect(world, name)


def _value_small(world: World, console: Terminal) -> None:
    """Over the policy's lower layers, which are trained too."""
    base, epochs = str(lower_layers(world)), world.size.small_epochs
    _learn_values(world, "value-small", base=base, epochs=epochs, trained="full", learning_rate=3e-3)
    collect(world, "value-small")


def _learn_values(
    world: World,
    name: str,
    *,
    base: str | None = None,
    epochs: int | None = None,
    lora: bool = False,
    **options: Any,
) -> None:
    epochs = epochs or world.size.value_epochs
    if lora:
        options |= {"rank": world.size.lora_rank, "alpha": 2.0 * world.size.lora_rank, "dropout": 0.0}
    steps = len(read_records(world.runs / "labelled")) * epochs // 16
    value_model.main(
        value_model.Args(
            data=world.runs / "labelled",
            base=base or str(world.models / "policy"),
            out=world.runs / name,
            epochs=epochs,
            row_length=ROW_LENGTH,
            rows=world.size.rows,
            held_out=0.1,
            seed=world.seed,
            schedule="cosine",
            warmup_steps=min(50, steps // 10),
            evaluate_every=max(steps // 8, 1),
            checkpoint_every=max(steps // 4, 1),
            **options,
        )
    )


STAGES: dict[str, tuple[str, Callable[[World, Terminal], None]]] = {
    "text": ("prompts and tokenizer", write_texts),
    "policy": ("the policy learns the grammar's dialogues", train_policy),
    "reward": ("the reward model learns from noisy preferences", train_reward_model),
    "replies": ("the policy replies to the training prompts", _replies),
    "labels": ("the reward model scores the replies", _labels),
    "value": ("the value model: an adapter and a scalar head over the policy's weights", _value),
    "value-vocab": ("a vocab head, distilled from the scalar one", _value_vocab),
    "value-small": ("a value model over lower layers of the policy, which are trained too", _value_small),
    "value-token": ("a value model that learns the reward at every token by itself", _value_token),
    "value-states": ("a vocab head on the policy's own hidden states", _value_states),
    "value-states-token": ("the same, which learns the reward at every token by itself", _value_states_token),
    "value-states-distil": ("the same, distilled from the scalar one that learned so", _value_states_distil),
}


def diary_of(world: World) -> Diary:
    """The diary in a world's folder, or a new one.

    Raises:
      OSError, ValueError: the folder holds a world of other settings, or something else.
    """
    settings: dict[str, object] = {"seed": world.seed, "size": dataclasses.asdict(world.size)}
    return Diary.of(world.out / "world.json", "world", settings)


def make(world: World, console: Terminal) -> None:
    """Go through the stages that are not done yet.

    Raises:
      ValueError: the folder holds something else, or a seed that is none.
      SystemExit: interrupted; what was done is kept.
    """
    check_seed(world.seed, "--seed")
    diary = diary_of(world)
    diary.begin()
    stages = {name: (what, functools.partial(run, world, console)) for name, (what, run) in STAGES.items()}
    diary.go_through(stages, lambda: software(), console)
    with waiting(console, "measuring"):
        write_card(world, diary.seconds, diary.made_by)
    total = sum(diary.seconds.values()) / 60
    console.print(f"{world.models} holds the world; it took {total:.0f} min", highlight=False)


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
