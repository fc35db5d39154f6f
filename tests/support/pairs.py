"""A tiny policy with a tokenizer, and a value model on it, as a program finds them in a folder."""

from pathlib import Path
from typing import Any

from sia_jax.pretrained import Policy
from tests.support.checkpoints import save_tiny_policy, save_tiny_value_model
from tests.support.tokenizers import save_qwen3_tokenizer


def save_tiny_pair(folder: Path, **options: Any) -> Policy:
    """Write policy/, value/ and tokenizer/, of random weights, into a folder.

    Args:
      folder: that is there.
      **options: of `save_tiny_policy`.
    """
    tokenizer = save_qwen3_tokenizer(folder / "tokenizer")
    policy = save_tiny_policy(
        folder / "policy",
        tokenizer=tokenizer,
        vocab_size=352,
        eos_token_ids=(tokenizer.eos_token_id,),
        bos_token_id=None,
        **options,
    )
    save_tiny_value_model(folder / "value", policy)
    return policy
