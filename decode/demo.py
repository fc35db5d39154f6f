"""The parts at work on a machine that has nothing but this repository.

    make demo

Writes a tiny policy, value model and reward model with random weights to out/demo/, in the file formats of
the real ones, loads them back, and samples three replies, steered at their junctions. It shows at every
token how uncertain the policy was (the entropy of its ten best candidates, in nats), what the value model
expected, and where it changed the policy's mind. The weights are random, so the replies mean nothing; that
the parts fit together is checked at the end.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

import sia_jax
from sia_jax.models.config import ModelConfig, RopeConfig, ValueConfig
from sia_jax.models.heads import init_value_head
from sia_jax.models.lora import LoraConfig, init_lora
from sia_jax.models.transformer import init_model

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
    """Load, sample, value and score."""

    out: Path = Path("out/demo")
    """Where the checkpoints are written."""
    new_tokens: int = 12
    threshold: float = 1.0
    """Entropy, in nats, from which a position is a junction and is steered."""
    seed: int = 0


def main(args: Args) -> None:
    """Run the demo; exits with 1 if the parts do not agree."""
    console = Console()
    policy, value, merged, reward = _make_and_load(args.out, args.seed)
    console.print(f"loaded from {args.out}: three models of {CONFIG.num_parameters:,} parameters")

    config = sia_jax.SamplerConfig(
        policy=policy.config,
        value=value.config,
        steering=sia_jax.SteeringConfig(num_candidates=CANDIDATES),
        max_new_tokens=args.new_tokens,
    )
    samples = sia_jax.sample(
        sia_jax.SteeringParams(policy.params, value.params),
        sia_jax.Prompt.pack(PROMPTS),
        args.threshold,
        rng_key=jax.random.key(args.seed, impl="threefry2x32"),
        config=config,
        knobs=sia_jax.Knobs(stop_ids=np.zeros(0, np.int32)),
    )
    samples = jax.tree.map(np.asarray, samples)

    # The same conversations without a cache, as one right-padded batch.
    lengths = np.array([len(ids) for ids in PROMPTS], np.int32)
    total = lengths + args.new_tokens
    tokens = np.zeros((len(PROMPTS), int(total.max())), np.int32)
    for row, ids in enumerate(PROMPTS):
        tokens[row, : total[row]] = [*ids, *samples.tokens[row].tolist()]
    places = lengths[:, None] + np.arange(args.new_tokens)
    logits = np.take_along_axis(np.asarray(policy.logits(tokens, total)), places[..., None] - 1, axis=1)
    values = np.take_along_axis(np.asarray(value.values(tokens, total)), places, axis=1)
    values_merged = np.take_along_axis(np.asarray(merged.values(tokens, total)), places, axis=1)
    scores = np.asarray(reward.score(tokens, total))

    for row in range(len(PROMPTS)):
        console.print(_reply_table(row, samples, values[row]))
        console.print(
            f"reward {scores[row]:+.3f}, steered {samples.junction[row].mean():.0%}, "
            f"shifted {samples.shifted[row].mean():.0%}\n"
        )

    steered = samples.junction
    checks = {
        "entropies of the sampler against one full pass": _relative_error(
            samples.entropy, _candidate_entropy(logits)
        ),
        "values of the sampler against one full pass": _relative_error(
            samples.value[steered], values[steered]
        ),
        "value model over the policy's weights against merged": _relative_error(values, values_merged),
    }
    for name, error in checks.items():
        console.print(f"{name}: relative error {error:.1e}")
    if max(checks.values()) > 1e-4:
        sys.exit("the parts do not agree")
    console.print(
        "\nNext, with a Qwen3 or Llama-3 checkpoint of your own, a folder or a Hub id:\n"
        "  python -m decode.generate --policy ... --value ... --prompt '...' --compare"
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


def _candidate_entropy(logits: np.ndarray) -> np.ndarray:
    """Entropy in nats of softmax over the C largest logits: [B, T, V] -> [B, T], at most ln C."""
    best = np.sort(logits, axis=-1)[..., -CANDIDATES:]
    weights = np.exp(best - best.max(axis=-1, keepdims=True))
    probabilities = weights / weights.sum(axis=-1, keepdims=True)
    return -np.sum(probabilities * np.log(probabilities), axis=-1)


def _reply_table(row: int, samples: sia_jax.Samples, value: np.ndarray) -> Table:
    """One column a token; junctions stand out, underlined where the value model shifted the choice."""
    table = Table.grid(padding=(0, 1))
    table.title, table.title_justify = f"reply {row + 1}", "left"
    cells = {
        "token": [f"{token}" for token in samples.tokens[row]],
        "entropy": [f"{number:.1f}" for number in samples.entropy[row]],
        "value": [f"{number:+.1f}" for number in value],
    }
    styles = [
        ("bold magenta underline" if shifted else "bold magenta") if junction else "dim"
        for junction, shifted in zip(samples.junction[row], samples.shifted[row], strict=True)
    ]
    for name, texts in cells.items():
        table.add_row(name, *(Text(f"{text:>4}", style) for text, style in zip(texts, styles, strict=True)))
    return table


def _relative_error(ours: np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(ours - reference).max() / np.abs(reference).max())


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
