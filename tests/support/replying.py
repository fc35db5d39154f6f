"""Tiny checkpoints and options for the tests of the programs that sample."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sia_jax
from decode.generate import Args
from tests.support.checkpoints import save_tiny_policy, save_tiny_value_model
from tests.support.tokenizers import save_qwen3_tokenizer

# Of one bucket, so that one program serves them.
PROMPTS = (
    "How long should I boil an egg?",
    "Which train is it?",
    "Tell me, 卵?",
    "Water the plants now.",
    "The 14th, please.",
)
SIZES = {"vocab_size": 352, "num_layers": 1, "bos_token_id": None}


def save_models(folder: Path) -> None:
    """A policy with a tokenizer, a value model on it, another policy and its value model, and prompts."""
    tokenizer = save_qwen3_tokenizer(folder / "tokenizer")
    end = tokenizer.eos_token_id
    options = {"tokenizer": tokenizer, "eos_token_ids": (end,), **SIZES}
    for seed, name in enumerate(("policy", "other")):
        policy = save_tiny_policy(folder / name, seed=seed, **options)
        save_tiny_value_model(folder / f"{name}-value", policy)
    (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n\n", encoding="utf-8")


def generation_args(folder: Path) -> Args:
    """The run that others vary; the tiny policy is unsure everywhere, hence the threshold."""
    return Args(
        policy=str(folder / "policy"),
        value=str(folder / "policy-value"),
        prompts=str(folder / "prompts.txt"),
        threshold=2.1,
        batch=2,
        max_new_tokens=12,
    )


def interrupt(*_: object) -> None:
    """Ctrl-C."""
    raise KeyboardInterrupt


def after(patch: pytest.MonkeyPatch, replies: int, act: Callable[[], Any] = interrupt) -> None:
    """Act as soon as an engine has handed out the replies to so many requests, and these are written."""
    original = sia_jax.Engine.as_completed

    def as_completed(self: sia_jax.Engine, *rest: Any, **options: Any) -> Iterator[Any]:
        for count, found in enumerate(original(self, *rest, **options), start=1):
            yield found
            if count == replies:
                act()

    patch.setattr(sia_jax.Engine, "as_completed", as_completed)
