"""The world's tokenizer: a byte-level BPE with Qwen3's rule of splitting, ChatML, and Qwen3's files."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import NFC, Normalizer
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from tokenizers.processors import ByteLevel as ByteLevelProcessor
from tokenizers.trainers import BpeTrainer

from sia_jax.files.writing import write_text

END_OF_TEXT, TURN_START, TURN_END = SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Their ids follow those of the BPE, in this order."""

QWEN3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
"""No merge reaches over a border that this finds; the rule of Qwen's tokenizers."""

# Every turn between its marks: what a policy reads is what a value model reads.
_CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""


def train_bpe(
    texts: Iterable[str],
    vocab_size: int,
    *,
    split: str = QWEN3_SPLIT,
    normalizer: Normalizer | None = None,
    ignore_merges: bool = False,
) -> Tokenizer:
    """A byte-level BPE; the 256 bytes are its first tokens, so that any text can be written in it.

    Args:
      texts: what the merges are learned from; the same texts give the same merges.
      vocab_size: tokens, before special ones are added.
      split: a regular expression, between whose matches nothing is merged.
      normalizer: of texts, before they are split.
      ignore_merges: whether a word that is a token is taken whole, whatever the merges say (Llama 3).

    Raises:
      ValueError: the texts do not yield so many tokens.
    """
    tokenizer = Tokenizer(BPE(ignore_merges=ignore_merges))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = PreTokenizers(
        [Split(Regex(split), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = ByteLevelDecoder()
    alphabet = sorted(ByteLevel.alphabet())
    trainer = BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(f"vocab_size {vocab_size}: the texts yield {tokenizer.get_vocab_size()} tokens")
    return tokenizer


def save_world_tokenizer(texts: Iterable[str], folder: Path, vocab_size: int) -> None:
    """Train the world's tokenizer, and write tokenizer.json and tokenizer_config.json.

    Args:
      texts: prompts and replies.
      folder: made if need be.
      vocab_size: tokens, the special ones included.

    Raises:
      ValueError: the texts do not yield so many tokens.
    """
    tokenizer = train_bpe(texts, vocab_size - len(SPECIAL), normalizer=NFC())
    tokenizer.post_processor = ByteLevelProcessor(trim_offsets=False)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added_tokens(tokenizer),
        "additional_special_tokens": [TURN_START, TURN_END],
        "bos_token": None,
        "chat_template": _CHATML,
        "clean_up_tokenization_spaces": False,
        "eos_token": TURN_END,
        "errors": "replace",
        "model_max_length": 512,
        "pad_token": END_OF_TEXT,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
    write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def added_tokens(tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    """The entry "added_tokens_decoder" of a tokenizer_config.json."""
    return {
        str(index): {
            "content": token.content,
            "lstrip": token.lstrip,
            "normalized": token.normalized,
            "rstrip": token.rstrip,
            "single_word": token.single_word,
            "special": token.special,
        }
        for index, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }
