"""The parts at work on a machine that has nothing but this repository.

    make demo

Writes a tiny policy, value model and reward model with random weights to out/demo/, in the file formats of
the real ones, loads them back, decodes three replies with a key/value cache, and shows at every token how
uncertain the policy was (the entropy of its ten best candidates, in nats) and what the value model expected.
The weights are random, so the replies mean nothing; that the parts fit together is checked at the end.
"""

import functools
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

import sia_jax
from sia_jax.models import run
from sia_jax.models.cache import KVCache
from sia_jax.models.config import ModelConfig, RopeConfig, ValueConfig
from sia_jax.models.heads import init_value_head, lm_head
from sia_jax.models.lora import LoraConfig, init_lora
from sia_jax.models.transformer import init_model
from sia_jax.types import Params

CONFIG = ModelConfig(
    family="qwen3",
    vocab_size=512,
    hidden_size=64,
    intermediate_size=192,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    rope=RopeConfig(1e6),
    rms_norm_eps=1e-6,
    tie_word_embeddings=True,
    max_position_embeddings=512,
    eos_token_ids=(0,),
    # Large, so that the random policy is sure of some tokens and unsure of others.
    initializer_range=0.6,
)
CANDIDATES = 10
PROMPTS = [[11, 23, 5, 42], [7, 301, 19, 64, 128, 256], [499, 3]]


@dataclass(frozen=True)
class Args:
    """Load, decode, value and score."""

    out: Path = Path("out/demo")
    """Where the checkpoints are written."""
    new_tokens: int = 12
    threshold: float = 1.0
    """Entropy, in nats, from which a position is marked as a junction."""
    seed: int = 0


def main(args: Args) -> None:
    """Run the demo; exits with 1 if the parts do not agree."""
    console = Console()
    policy, value, merged, reward = _make_and_load(args.out, args.seed)
    console.print(f"loaded from {args.out}: three models of {CONFIG.num_parameters:,} parameters")

    width = run.bucket_length(max(map(len, PROMPTS)))
    prompts = np.zeros((len(PROMPTS), width), np.int32)
    for row, ids in enumerate(PROMPTS):
        prompts[row, : len(ids)] = ids
    lengths = np.array([len(ids) for ids in PROMPTS], np.int32)
    replies, logits = _decode(
        policy.params, prompts, lengths, config=policy.config, new_tokens=args.new_tokens
    )

    # The same conversation without a cache, as one right-padded batch.
    total = lengths + args.new_tokens
    tokens = np.zeros((len(PROMPTS), int(total.max())), np.int32)
    for row, ids in enumerate(PROMPTS):
        tokens[row, : total[row]] = [*ids, *replies[row].tolist()]
    reply_places = lengths[:, None] + np.arange(args.new_tokens)
    full = np.take_along_axis(np.asarray(policy.logits(tokens, total)), reply_places[..., None] - 1, axis=1)
    values = np.take_along_axis(np.asarray(value.values(tokens, total)), reply_places, axis=1)
    values_merged = np.take_along_axis(np.asarray(merged.values(tokens, total)), reply_places, axis=1)
    scores = np.asarray(reward.score(tokens, total))

    entropies = _candidate_entropy(np.asarray(logits))
    for row in range(len(PROMPTS)):
        console.print(_reply_table(row, replies[row], entropies[row], values[row], args.threshold))
        console.print(
            f"reward {scores[row]:+.3f}, junctions {np.mean(entropies[row] >= args.threshold):.0%}\n"
        )

    checks = {
        "cached decoding against one full pass": _relative_error(np.asarray(logits), full),
        "value model over the policy's weights against merged": _relative_error(values, values_merged),
    }
    for name, error in checks.items():
        console.print(f"{name}: relative error {error:.1e}")
    if max(checks.values()) > 1e-4:
        sys.exit("the parts do not agree")
    console.print(
        "\nNext, with a Qwen3 or Llama-3 checkpoint of your own, a folder or a Hub id:\n"
        "  policy = sia_jax.load_policy(...); policy.logits(tokens, lengths)"
    )


def _make_and_load(
    out: Path, seed: int
) -> tuple[sia_jax.Policy, sia_jax.ValueModel, sia_jax.ValueModel, sia_jax.RewardModel]:
    """Random models through their files: policy, value model over it, the same merged, reward model."""
    policy_key, lora_key, noise_key, head_key, reward_key = jax.random.split(jax.random.key(seed), 5)
    made = sia_jax.Policy(CONFIG, {"model": init_model(CONFIG, policy_key)}, name="policy")
    sia_jax.save_policy(made, out / "policy")
    lora_config = LoraConfig(rank=4, alpha=8.0)
    lora = init_lora(made.params["model"], lora_config, lora_key)
    lora = jax.tree.map(lambda leaf: leaf + 0.2 * jax.random.normal(noise_key, leaf.shape), lora)
    config = ValueConfig(CONFIG, lora=lora_config)
    params = {"lora": lora, "value_head": init_value_head(config, head_key)}
    sia_jax.save_value_model(
        sia_jax.ValueModel(config, params, made.params["model"]),
        out / "value",
        base_model=str(out / "policy"),
        layout="official",
    )
    score = {"weight": jax.random.normal(reward_key, (1, CONFIG.hidden_size)) / 8}
    sia_jax.save_reward_model(
        sia_jax.RewardModel(CONFIG, {"model": init_model(CONFIG, reward_key), "score": score}), out / "reward"
    )
    policy = sia_jax.load_policy(out / "policy")
    return (
        policy,
        sia_jax.load_value_model(out / "value", backbone=policy),
        sia_jax.load_value_model(out / "value", backbone=out / "policy"),
        sia_jax.load_reward_model(out / "reward"),
    )


@functools.partial(jax.jit, static_argnames=("config", "new_tokens"))
def _decode(
    params: Params, prompts: jax.Array, lengths: jax.Array, *, config: ModelConfig, new_tokens: int
) -> tuple[jax.Array, jax.Array]:
    """Greedy replies [B, T] and the logits [B, T, V] that they were chosen from, by cached steps."""
    cache = KVCache.zeros(config, prompts.shape[0], prompts.shape[1] + new_tokens, jnp.float32)
    hidden, cache = run.prefill(params["model"], prompts, lengths, cache, config=config)

    def step(carry: tuple[jax.Array, jax.Array, KVCache], _: None) -> tuple[tuple, tuple]:
        hidden, lengths, cache = carry
        logits = lm_head(params, hidden)
        token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        hidden, cache = run.decode_step(params["model"], token, lengths, cache, config=config)
        return (hidden, lengths + 1, cache), (token, logits)

    _, (tokens, logits) = jax.lax.scan(step, (hidden, lengths, cache), length=new_tokens)
    return tokens.T, logits.swapaxes(0, 1)


def _candidate_entropy(logits: np.ndarray) -> np.ndarray:
    """Entropy in nats of softmax over the C largest logits: [B, T, V] -> [B, T], at most ln C."""
    best = np.sort(logits, axis=-1)[..., -CANDIDATES:]
    weights = np.exp(best - best.max(axis=-1, keepdims=True))
    probabilities = weights / weights.sum(axis=-1, keepdims=True)
    return -np.sum(probabilities * np.log(probabilities), axis=-1)


def _reply_table(
    row: int, reply: np.ndarray, entropy: np.ndarray, value: np.ndarray, threshold: float
) -> Table:
    """One column a token; junctions stand out."""
    table = Table.grid(padding=(0, 1))
    table.title, table.title_justify = f"reply {row + 1}", "left"
    cells = {
        "token": [f"{token}" for token in reply],
        "entropy": [f"{number:.1f}" for number in entropy],
        "value": [f"{number:+.1f}" for number in value],
    }
    styles = ["bold magenta" if junction else "dim" for junction in entropy >= threshold]
    for name, texts in cells.items():
        table.add_row(name, *(Text(f"{text:>4}", style) for text, style in zip(texts, styles, strict=True)))
    return table


def _relative_error(ours: np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(ours - reference).max() / np.abs(reference).max())


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
