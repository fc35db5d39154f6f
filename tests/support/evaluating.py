"""What the tests of decode.calibrate and decode.evaluate run on: tiny models, and prompts of the world."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

import sia_jax
from decode import calibrate, evaluate
from sia_jax.evaluation import calibration
from sia_jax.evaluation.gate_calibration import linear_of
from sia_jax.evaluation.learned_gate import LearnedGate
from sia_jax.evaluation.token_features import OF_LEARNED_GATES, features_of
from sia_jax.world.prompts import prompts
from tests.support.checkpoints import save_tiny_policy, save_tiny_value_model, tiny_reward_model
from tests.support.tokenizers import save_qwen3_tokenizer

LENGTH = 10
"""Tokens of a reply, at most."""
SIZES = {"vocab_size": 352, "num_layers": 1, "bos_token_id": None}


def save_models_and_prompts(folder: Path) -> None:
    """A policy, another one, a value model, a reward model, and five prompts of the world."""
    tokenizer = save_qwen3_tokenizer(folder / "tokenizer")
    # So many ids end a reply that replies have different lengths.
    options = {"tokenizer": tokenizer, "eos_token_ids": (*range(40, 60), 90), **SIZES}
    policy = save_tiny_policy(folder / "policy", **options)
    save_tiny_policy(folder / "other", seed=1, **options)
    save_tiny_value_model(folder / "value", policy)
    reward = tiny_reward_model(seed=2, max_position_embeddings=512, **SIZES)
    sia_jax.save_reward_model(replace(reward, tokenizer=tokenizer), folder / "reward")
    # Of one length, so that one program serves them.
    chosen = sorted(prompts("validation"), key=lambda prompt: (len(prompt.text), prompt.id))[:5]
    lines = [json.dumps({"id": prompt.id, "prompt": prompt.text}) + "\n" for prompt in chosen]
    (folder / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")


def calibration_args(folder: Path) -> calibrate.Args:
    """The calibration that the tests vary; its ratios share a program with dense steering."""
    return calibrate.Args(
        policy=str(folder / "policy"),
        prompts=str(folder / "prompts.jsonl"),
        out=str(folder / "thresholds.json"),
        ratios=(0.6, 0.8),
        samples=2,
        batch=6,
        max_new_tokens=LENGTH,
    )


def save_thresholds(folder: Path, learned: LearnedGate | None = None) -> None:
    """What `calibration_args` might write, without sampling: 2.1 to 2.3 nats are what the policy has."""
    args = calibration_args(folder)
    source = calibrate.describe_source(args, 5) | {"replies": 10}
    entropies = np.random.default_rng(0).permutation(np.linspace(2.1, 2.3, 101))
    replies: list[dict[str, Any]] = [{"entropy": part} for part in np.array_split(entropies, 10)]
    if learned is not None:
        source |= {"learned": {"gate": asdict(linear_of(learned))}}
        for reply in replies:
            reply |= {name: np.full(len(reply["entropy"]), 0.2) for name in OF_LEARNED_GATES}
    content = calibration.calibrate(features_of(replies), args.ratios, source, learned)
    Path(args.out).write_text(json.dumps(content))


def evaluation_args(folder: Path) -> evaluate.Args:
    """The evaluation that the tests vary; it reads what `calibration_args` writes."""
    return evaluate.Args(
        policy=str(folder / "policy"),
        value=str(folder / "value"),
        reward=(str(folder / "reward"),),
        prompts=str(folder / "prompts.jsonl"),
        thresholds=str(folder / "thresholds.json"),
        out=str(folder / "evaluation"),
        seeds=2,
        best_of=(2,),
        combined=2,
        gold_function="sia_jax.world.rewards:gold",
        batch=4,
        resamples=200,
        max_new_tokens=LENGTH,
    )
