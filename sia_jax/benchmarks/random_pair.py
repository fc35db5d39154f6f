"""A policy and a value model of random weights as folders, with a tokenizer whose every id is a text."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

import sia_jax
from sia_jax.benchmarks.contention import with_contenders
from sia_jax.checkpoints.vocabulary import load_tokenizer
from sia_jax.costs.shapes import Models
from sia_jax.extras import installed_with
from sia_jax.models.config import ModelConfig
from sia_jax.models.lora import LoraConfig, init_lora

with installed_with("world"):
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel

_SMALL, _CAPITAL = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SPACE = "Ġ"
"""A space, as a byte-level BPE writes it."""
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + "
    "'<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
_WORDS = 8


def save_random_pair(config: ModelConfig, folder: Path) -> None:
    """Write policy/ and value/, which has a backbone of its own, in float32; the same weights every time.

    The policy's logits are scaled so that as many candidates contend as of a real model's.

    Args:
      config: of both networks.
      folder: that is there.

    Raises:
      ValueError: too few ids for a tokenizer, or more than it can have.
    """
    _save_tokenizer(config.vocab_size, folder / "tokenizer")
    tokenizer = load_tokenizer(folder / "tokenizer")
    models, adapter = with_contenders(Models.random(config)), LoraConfig()
    heads = {name: part for name, part in models.policy.items() if name != "model"}
    value = sia_jax.ValueModel(
        replace(models.value_config("scalar"), lora=adapter),
        {
            "lora": init_lora(models.value_model, adapter, jax.random.key(1)),
            "value_head": models.heads["scalar"],
        },
        models.value_model,
        tokenizer,
    )
    sia_jax.save_policy(sia_jax.Policy(config, models.policy, tokenizer), folder / "policy")
    sia_jax.save_value_model(value, folder / "value", base_model="value/backbone")
    backbone = {"model": models.value_model} | heads
    sia_jax.save_policy(sia_jax.Policy(config, backbone, tokenizer), folder / "value" / "backbone")


def invented_prompts(count: int) -> list[str]:
    """So many prompts of a few invented words each; the same every time."""
    rng = np.random.default_rng(0)
    letters = np.array(list(_SMALL))
    return [
        " ".join("".join(rng.choice(letters, 3)) for _ in range(_WORDS)).capitalize() for _ in range(count)
    ]


def _save_tokenizer(vocab_size: int, folder: Path) -> None:
    """A byte-level BPE of invented words, each of which is a token, and ChatML.

    Raises:
      ValueError: fewer ids than bytes and marks, or more than there are words.
    """
    alphabet = sorted(ByteLevel.alphabet())
    room = vocab_size - len(alphabet) - len(_SPECIAL)
    merges = list(itertools.islice(_merges(), max(room, 0)))
    if len(merges) != room:
        raise ValueError(
            f"vocab_size must be {len(alphabet) + len(_SPECIAL)} or more, and at most "
            f"{len(alphabet) + len(_SPECIAL) + len(merges)}, got {vocab_size}"
        )
    tokens = [*alphabet, *(left + right for left, right in merges)]
    tokenizer = Tokenizer(BPE({token: id_ for id_, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in _SPECIAL])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": _TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": _SPECIAL[2],
        "pad_token": _SPECIAL[0],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _merges() -> Iterator[tuple[str, str]]:
    """Pairs of letters, then triples, with a space or a capital in front too."""
    starts = (*_SMALL, *_CAPITAL)
    yield from ((a, b) for a in (*starts, _SPACE) for b in _SMALL)
    yield from ((a + b, c) for a in (*starts, _SPACE) for b in _SMALL for c in _SMALL)
    yield from ((_SPACE + a + b, c) for a in _SMALL for b in _SMALL for c in _SMALL)
