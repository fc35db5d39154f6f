"""FLOPs that a reply needs under a method: every pass of policy, value model and reward model, no padding.

All methods are counted alike: the tokens that must be read, each with the columns that it attends to, however
the schedule put them into passes. Branches of a prompt share its prefill.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from sia_jax.costs.passes import adapter_size
from sia_jax.costs.roofline import pass_cost
from sia_jax.models.config import ModelConfig, ValueConfig
from sia_jax.models.lora import LoraConfig


@dataclass(frozen=True)
class ReplyFlops:
    """Floating-point operations, two for each multiply-add, by the model that does them."""

    policy: float
    value: float = 0.0
    """Of the value model: at junctions, and where it chooses among replies."""
    reward: float = 0.0
    """Of the reward model where the method needs it to choose; scoring the result is no part of a method."""

    def to_json(self) -> dict[str, float]:
        """Its numbers by their names."""
        return asdict(self)


def policy_flops(config: ModelConfig, prompt: int, replies: Sequence[int]) -> float:
    """FLOPs of sampling replies to one prompt.

    Args:
      config: the policy.
      prompt: P, ids of the prompt, read once.
      replies: tokens of each reply. Its token t is drawn from the logits at position P - 1 + t, which sees
        P + t columns.
    """
    return drawn_flops(config, prompt, [(0, tokens) for tokens in replies])


def drawn_flops(config: ModelConfig, prompt: int, draws: Sequence[tuple[int, int]]) -> float:
    """FLOPs of a search over replies to one prompt, whose beginnings are read once.

    Args:
      config: the policy.
      prompt: P, ids of the prompt, read once.
      draws: (t, n) of each time that n tokens were drawn after the first t of a reply: from the logits at
        positions P - 1 + t and on.
    """
    flops = _sequence(config, 0, prompt - 1)
    return flops + sum(_sequence(config, prompt - 1 + t, n, heads=n) for t, n in draws)


@dataclass(frozen=True)
class ReadChunk:
    """Some tokens of a reply, and what the value model reads of them."""

    begin: int
    """Tokens of the reply before them."""
    values_read: np.ndarray  # [l] candidates that were read at each
    whole: bool = False
    """Whether values are read of what comes after them, so that each of them is read."""

    @property
    def last(self) -> int:
        """How many of them are read, or are candidates' places: up to the last at which values were read."""
        places = np.flatnonzero(self.values_read)
        return len(self.values_read) if self.whole else int(places[-1]) + 1 if len(places) else 0


def steering_flops(config: ValueConfig, prompt: int, values_read: Sequence[np.ndarray]) -> float:
    """FLOPs of the value model at the junctions of the replies to one prompt; see `chunk_steering_flops`.

    Args:
      config: the value model.
      prompt: P', ids of its prompt.
      values_read: of each reply, the candidates that were read at each of its tokens [T].
    """
    return chunk_steering_flops(config, prompt, [ReadChunk(0, read) for read in values_read])


def chunk_steering_flops(config: ValueConfig, prompt: int, chunks: Sequence[ReadChunk]) -> float:
    """FLOPs of the value model at the junctions of replies that may share their beginnings.

    It reads its prompt once, if values are read of any reply; then of each reply the tokens before the last
    that they decided, and with a scalar head the candidates at each, one of which is the steered token. A
    head on the policy's hidden states reads nothing: at each junction there are two products, [R, D] and
    [C, R].

    Args:
      config: the value model.
      prompt: P', ids of its prompt.
      chunks: all tokens of all replies, those that replies share once.
    """
    if not any(chunk.values_read.any() for chunk in chunks):
        return 0.0
    heads = [count for chunk in chunks for count in chunk.values_read[chunk.values_read > 0].tolist()]
    if not config.reads_candidates:
        flops = sum(_head(config, count) for count in heads)
        if not config.runs_passes:
            return flops
    else:
        flops = sum(heads) * _head(config)
    model = config.backbone
    flops += _sequence(model, 0, prompt, lora=config.lora)
    for chunk in chunks:
        read = chunk.values_read[: chunk.last]
        if not config.reads_candidates:
            before = chunk.last - (not chunk.whole)  # the last one's own state is not needed
            flops += _sequence(model, prompt + chunk.begin, max(before, 0), lora=config.lora)
            continue
        # A token that values decided was read as a candidate, with the others.
        times = np.where(read > 0, read, 1)
        columns = np.sum((prompt + chunk.begin + np.arange(len(read)) + 1) * times)
        flops += _tokens(model, int(times.sum()), float(columns), lora=config.lora)
    return flops


def last_value_flops(config: ValueConfig, prompt: int, replies: Sequence[int]) -> float:
    """FLOPs of the value of each reply's last token, by one full pass over prompt and reply each."""
    passes = sum(_sequence(config.backbone, 0, prompt + tokens, lora=config.lora) for tokens in replies)
    return passes + len(replies) * _head(config)


def reward_flops(config: ModelConfig, conversations: Sequence[int]) -> float:
    """FLOPs of a reward model on conversations of so many tokens each."""
    return sum(_sequence(config, 0, tokens) + 2 * config.hidden_size for tokens in conversations)


def _sequence(
    config: ModelConfig, start: int, tokens: int, *, heads: int = 0, lora: LoraConfig | None = None
) -> float:
    """Tokens one after the other from a position on, each of which sees all before it and itself."""
    return _tokens(config, tokens, tokens * start + tokens * (tokens + 1) / 2, heads=heads, lora=lora)


def _tokens(
    config: ModelConfig, tokens: int, columns: float, *, heads: int = 0, lora: LoraConfig | None = None
) -> float:
    """Tokens that together see so many columns."""
    if tokens < 1:
        return 0.0
    cost = pass_cost(config, tokens, columns_seen=columns / tokens, columns_read=0, head_rows=heads)
    return cost.flops + (0.0 if lora is None else 2 * tokens * adapter_size(config, lora))


def _head(config: ValueConfig, tokens: int = 1) -> float:
    """FLOPs of one use of the value head: of one token, or with a vocab head of so many at one place."""
    d = config.backbone.hidden_size
    return 2 * d if config.head_rank is None else 2 * config.head_rank * (d + tokens)
