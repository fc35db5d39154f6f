"""The stages in which the embedded world is made, one after the other, each from what is on disk."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import sia_jax
from sia_jax.checkpoints.fingerprint import fingerprint
from sia_jax.checkpoints.value_model import OWN_BACKBONE
from sia_jax.checkpoints.vocabulary import load_tokenizer
from sia_jax.data.records import read_records
from sia_jax.models.config import ModelConfig, RopeConfig
from sia_jax.models.transformer import init_model
from sia_jax.pretrained import Policy, RewardModel
from sia_jax.reports.training import MetricsLog
from sia_jax.runs.console import Terminal
from sia_jax.runs.interruption import Interruption
from sia_jax.runs.progress import RunProgress, waiting
from sia_jax.text.tokenizer import Tokenizer
from sia_jax.training.checkpoint import Checkpoints
from sia_jax.training.config import OptimizerConfig
from sia_jax.training.language import init_full_state, language_step
from sia_jax.training.packing import pack
from sia_jax.training.preference import preference_step
from sia_jax.training.step import TrainState
from sia_jax.training.steps import run_steps
from sia_jax.types import Params
from sia_jax.world.streams import shuffled, stream
from sia_jax.world.tokenizer import END_OF_TEXT, TURN_END, save_world_tokenizer
from train import label, prepare, value_model
from train.generation import GenerationArgs
from train.world_data import Pairs, Practice, preference_data, texts, write_prompts

ROW_LENGTH = 256
"""Tokens of a packed row; no dialogue of the world is longer."""
REPLY_TOKENS = 160
"""Length at which a sampled reply is cut."""


@dataclass(frozen=True)
class Size:
    """How large a world is, and how long it learns."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    small_num_layers: int
    """Of the policy, that the small value model is made of."""
    dialogues: int
    """That the policy learns from, each once."""
    pairs: int
    """That the reward model learns from."""
    pair_epochs: int
    noise: float
    """Of the preferences, in units of gold reward."""
    replies: int
    """Sampled to each training prompt."""
    prompts: int | None
    """Training prompts that are replied to; None: all."""
    value_epochs: int
    small_epochs: int
    """Of the small value model, all of whose weights learn."""
    lora_rank: int
    head_rank: int
    batch_size: int = 16
    """Dialogues of a step."""
    pair_batch_size: int = 16
    pair_width: int = 64
    """Tokens to whose multiples the pairs of a step are padded."""
    rows: int = 8
    """Packed rows of a micro-batch of the value models."""


SIZES = {
    "full": Size(
        vocab_size=1536,
        hidden_size=128,
        num_layers=4,
        small_num_layers=3,
        dialogues=320_000,
        pairs=20_000,
        pair_epochs=1,
        noise=0.7,
        replies=48,
        prompts=None,
        value_epochs=2,
        small_epochs=3,
        lora_rank=16,
        head_rank=32,
    ),
    "tiny": Size(
        vocab_size=1024,
        hidden_size=48,
        num_layers=2,
        small_num_layers=1,
        dialogues=4_800,
        pairs=640,
        pair_epochs=1,
        noise=0.7,
        replies=4,
        prompts=120,
        value_epochs=4,
        small_epochs=4,
        lora_rank=8,
        head_rank=8,
        pair_width=256,  # each other width would be compiled, which takes longer than the padding
    ),
}


@dataclass(frozen=True)
class World:
    """The folder of a world that is being made."""

    out: Path
    seed: int
    size_name: Literal["full", "tiny"]

    @property
    def size(self) -> Size:
        """Its numbers."""
        return SIZES[self.size_name]

    @property
    def models(self) -> Path:
        """What is needed later."""
        return self.out / "models"

    @property
    def runs(self) -> Path:
        """What the models came from."""
        return self.out / "runs"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The world's, once it is there."""
        tokenizer = load_tokenizer(self.models / "policy")
        assert tokenizer is not None
        return tokenizer

    @property
    def network(self) -> ModelConfig:
        """A small Qwen3 that knows the world's tokens."""
        vocabulary, hidden_size = self.tokenizer.get_vocab(), self.size.hidden_size
        return ModelConfig(
            family="qwen3",
            vocab_size=self.size.vocab_size,
            hidden_size=hidden_size,
            intermediate_size=2 * hidden_size,
            num_layers=self.size.num_layers,
            num_heads=4,
            num_kv_heads=2,
            head_dim=hidden_size // 4,
            rope=RopeConfig(10_000.0),
            rms_norm_eps=1e-6,
            tie_word_embeddings=True,
            max_position_embeddings=512,
            eos_token_ids=(vocabulary[TURN_END], vocabulary[END_OF_TEXT]),
            pad_token_id=vocabulary[END_OF_TEXT],
            initializer_range=0.05,
        )

    def key(self, name: str) -> jax.Array:
        """Random numbers for a stage."""
        return jax.random.key(int(stream(self.seed, "weights", name).integers(2**31)), impl="threefry2x32")


def _text(world: World, console: Terminal) -> None:
    write_prompts(world.models / "prompts")
    few = min(world.size.dialogues, 4000)
    save_world_tokenizer(texts(world.seed, few), world.models / "policy", world.size.vocab_size)


def _policy(world: World, console: Terminal) -> None:
    """Next-token training on the corpus, each dialogue once."""
    config, dialogues, size = world.network, world.size.dialogues, world.size.batch_size
    steps = dialogues // size
    practice = Practice(world.tokenizer, world.seed, dialogues, size)
    optimizer = _optimizer(steps, 3e-3, method="muon", schedule_end=0.0)
    params = {"model": init_model(config, world.key("policy"))}
    state = init_full_state(params, world.key("policy"), optimizer=optimizer)

    def take_step(state: TrainState, number: int) -> tuple[TrainState, dict[str, Any]]:
        chosen = practice.batch(number)
        # Of a hundred batches 93 fit; the others are two micro-batches.
        batch = pack(chosen, length=ROW_LENGTH, rows=-(-size * 7 // 16), batch_size=size)
        state, loss = language_step(
            state, jax.tree.map(jnp.asarray, batch), config=config, optimizer=optimizer
        )
        return state, {"nats a token": loss, "tokens": sum(t.length for t in chosen)}

    params = _run(world, "policy", state, take_step, steps, console)
    sia_jax.save_policy(Policy(config, params, world.tokenizer), world.models / "policy")


def _reward(world: World, console: Terminal) -> None:
    policy = sia_jax.load_policy(world.models / "policy")
    with waiting(console, "writing pairs"):
        size = world.size
        pairs = preference_data(world.tokenizer, world.seed, size.pairs, size.noise, size.pair_width)
    batches = _batches(world, pairs)
    optimizer = _optimizer(len(batches), 1e-3)
    score = 0.01 * jax.random.normal(world.key("score"), (1, policy.config.hidden_size))
    params = {"model": policy.params["model"], "score": {"weight": score}}
    state = init_full_state(params, world.key("reward"), optimizer=optimizer)

    def take_step(state: TrainState, number: int) -> tuple[TrainState, dict[str, Any]]:
        tokens, lengths = map(jnp.asarray, pairs.batch(batches[number]))
        state, (loss, agreement) = preference_step(
            state, tokens, lengths, config=policy.config, optimizer=optimizer
        )
        return state, {"nats a pair": loss, "in order": agreement, "tokens": lengths.sum()}

    trained = _run(world, "reward", state, take_step, len(batches), console)
    sia_jax.save_reward_model(RewardModel(policy.config, trained, world.tokenizer), world.models / "reward")


def _batches(world: World, pairs: Pairs) -> list[np.ndarray]:
    """The numbers of each batch's pairs: pairs of like length together, the batches in random order."""
    longest, count, size = pairs.lengths.max(axis=0), pairs.lengths.shape[1], world.size.pair_batch_size
    batches = []
    for epoch in range(world.size.pair_epochs):
        rng = stream(world.seed, "pair batches", epoch)
        order = np.argsort(longest + rng.random(count), kind="stable")
        batches += shuffled(rng, np.split(order[: count // size * size], count // size))
    return batches


def _optimizer(steps: int, learning_rate: float, **options: Any) -> OptimizerConfig:
    return OptimizerConfig(
        learning_rate,
        weight_decay=0.01,
        b2=0.99,
        schedule="cosine",
        warmup_steps=min(100, steps // 10),
        total_steps=steps,
        **options,
    )


def _run(
    world: World,
    name: str,
    state: TrainState,
    take_step: Callable[[TrainState, int], tuple[TrainState, dict[str, Any]]],
    steps: int,
    console: Terminal,
) -> Params:
    """The parameters after all steps, whose metrics name the tokens of each."""
    folder = world.runs / name
    checkpoints, log = Checkpoints(folder / "checkpoints", keep=1), MetricsLog(folder / "metrics.jsonl")
    with (
        RunProgress(console, steps, noun="steps") as progress,
        checkpoints.settling(),
        Interruption() as interruption,
    ):

        def begin(step: int) -> None:
            progress.resume(step)
            log.begin(step)

        def told(step: int, metrics: dict[str, float]) -> None:
            progress.advance(1, int(metrics["tokens"]))
            log.write({"step": step} | {key: float(x) for key, x in metrics.items()})

        state = run_steps(
            state,
            take_step,
            steps,
            checkpoints=checkpoints,
            should_stop=lambda: interruption.wanted,
            on_start=begin,
            on_step=told,
        )
    checkpoints.close()
    if interruption.wanted:  # in the last step too: what is left of the stage is done when the run goes on
        console.print(f"\ninterrupted after step {int(state.step):,}; the same command goes on")
        sys.exit(interruption.exit_status)
    (last,) = log.read()[-1:]
    console.print("  " + ", ".join(f"{key} {x:,.4g}" for key, x in last.items()), highlight=False)
    return state.trained


def _replies(world: World, console: Terminal) -> None:
    """Replies of the policy to the training prompts."""
    out = world.runs / "replies"
    if (out / prepare.REPORT).exists() and not (out / prepare.PARTIAL).exists():
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
            reward_model=str(world.models / "reward"),
            out=str(world.runs / "labelled"),
            max_tokens=ROW_LENGTH,
        )
    )


def _value(world: World, console: Terminal) -> None:
    _learn_values(world, "value", lora=True, learning_rate=1e-3)
    _collect(world, "value", layout="official")


def _value_token(world: World, console: Terminal) -> None:
    _learn_values(world, "value-token", lora=True, learning_rate=1e-3, objective="token")
    _collect(world, "value-token", layout="official")


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
    _collect(world, "value-vocab")


def _value_small(world: World, console: Terminal) -> None:
    """Over the policy's lower layers, which are trained too."""
    policy, base = sia_jax.load_policy(world.models / "policy"), world.runs / "small"
    model, kept = policy.params["model"], world.size.small_num_layers
    lower = {"model": model | {"layers": {n: layer for n, layer in model["layers"].items() if n < kept}}}
    sia_jax.save_policy(Policy(replace(policy.config, num_layers=kept), lower, policy.tokenizer), base)
    epochs = world.size.small_epochs
    _learn_values(world, "value-small", base=str(base), epochs=epochs, trained="full", learning_rate=3e-3)
    _collect(world, "value-small")


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


def _collect(world: World, name: str, layout: Literal["official", "sia_jax"] = "sia_jax") -> None:
    """The best value model of a run, as it is to be found beside its base."""
    best, out = world.runs / name / "best", world.models / name
    own = (best / OWN_BACKBONE).is_dir()
    base = sia_jax.load_policy(best / OWN_BACKBONE if own else world.models / "policy")
    value = sia_jax.load_value_model(best, base)
    sia_jax.save_value_model(
        value,
        out,
        base_model=f"{name}/{OWN_BACKBONE}" if own else "policy",
        layout=layout,
        base_fingerprint=fingerprint(base.params["model"]),
    )
    if own:
        shutil.copytree(best / OWN_BACKBONE, out / OWN_BACKBONE, dirs_exist_ok=True)


STAGES: dict[str, tuple[str, Callable[[World, Terminal], None]]] = {
    "text": ("prompts and tokenizer", _text),
    "policy": ("the policy learns the grammar's dialogues", _policy),
    "reward": ("the reward model learns from noisy preferences", _reward),
    "replies": ("the policy replies to the training prompts", _replies),
    "labels": ("the reward model scores the replies", _labels),
    "value": ("the value model: an adapter and a scalar head over the policy's weights", _value),
    "value-vocab": ("a vocab head, distilled from the scalar one", _value_vocab),
    "value-small": ("a value model over lower layers of the policy, which are trained too", _value_small),
    "value-token": ("a value model that learns the reward at every token by itself", _value_token),
}
