"""A world that is being made, and the stages of it that are no programs, each from what is on disk."""

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
from sia_jax.world.data import Pairs, Practice, preference_data, texts, write_prompts
from sia_jax.world.streams import shuffled, stream
from sia_jax.world.tokenizer import END_OF_TEXT, TURN_END, save_world_tokenizer

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


def write_texts(world: World, console: Terminal) -> None:
    """The prompts and the tokenizer."""
    write_prompts(world.models / "prompts")
    few = min(world.size.dialogues, 4000)
    save_world_tokenizer(texts(world.seed, few), world.models / "policy", world.size.vocab_size)


def train_policy(world: World, console: Terminal) -> None:
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


def train_reward_model(world: World, console: Terminal) -> None:
    """From noisy preferences between the grammar's replies."""
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


def lower_layers(world: World) -> Path:
    """Save the policy's lower layers, as many as the small value model has; returns their folder."""
    policy, base = sia_jax.load_policy(world.models / "policy"), world.runs / "small"
    model, kept = policy.params["model"], world.size.small_num_layers
    lower = {"model": model | {"layers": {n: layer for n, layer in model["layers"].items() if n < kept}}}
    sia_jax.save_policy(Policy(replace(policy.config, num_layers=kept), lower, policy.tokenizer), base)
    return base


def collect(world: World, name: str, layout: Literal["official", "sia_jax"] = "sia_jax") -> None:
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
