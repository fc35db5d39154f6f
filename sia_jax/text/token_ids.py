"""Which ids of a network have a token: what its tokenizer knows."""

from dataclasses import replace

import numpy as np

from sia_jax.models.config import ModelConfig
from sia_jax.text.tokenizer import Tokenizer


def num_tokens(tokenizer: Tokenizer) -> int:
    """One more than the largest id that has a token, added ones included; 0 if there is none."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def with_tokens(config: ModelConfig, tokenizer: Tokenizer | None) -> ModelConfig:
    """A network's configuration that knows which ids have a token, and so may be drawn.

    Vocabularies are padded, and some tokenizers leave ids out below their last one. A token beyond the
    vocabulary (an added one for which the embedding has no row) is nothing that the network can say.

    Args:
      config: of the network.
      tokenizer: of its checkpoint; None: every id counts as having a token.

    Raises:
      ValueError: a tokenizer none of whose ids lies in the vocabulary.
    """
    if tokenizer is None:
        return config
    known = np.unique([i for i in tokenizer.get_vocab().values() if 0 <= i < config.vocab_size])
    if not len(known):
        raise ValueError(
            f"{tokenizer.name_or_path}: the tokenizer has no token in the vocabulary's "
            f"0 .. {config.vocab_size - 1}; it is another checkpoint's"
        )
    before = np.concatenate([[-1], known[:-1]])  # the known id before each
    gaps = known - before > 1
    unused = zip((before[gaps] + 1).tolist(), known[gaps].tolist(), strict=True)
    return replace(config, num_tokens=int(known[-1]) + 1, unused_ids=tuple(unused))
