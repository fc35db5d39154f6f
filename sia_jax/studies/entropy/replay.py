"""What a value model says of every candidate at every position of finished replies, whoever made them."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sia_jax.models.attention import PrefillAttention
from sia_jax.models.cache import KVCache
from sia_jax.models.config import ValueConfig
from sia_jax.models.heads import value_head
from sia_jax.models.lora import Adapter
from sia_jax.models.passes import bucket_length, decode_block
from sia_jax.models.product import einsum_float32
from sia_jax.models.transformer import forward
from sia_jax.pretrained import ValueModel
from sia_jax.types import Params


def candidate_values(
    value: ValueModel,
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    candidates: Sequence[np.ndarray],
) -> list[np.ndarray]:
    """V(x, y_<t, a) of the candidates a at every position t of B replies.

    A sampler that steers densely computes the same, but of replies that it steers itself; here they may be
    the policy's own. Prompts and replies are padded to buckets, and each shape is compiled once.

    Args:
      value: the value model.
      prompts: B prompts as the value model sees them.
      replies: B replies, of T tokens each; T may differ, and be 0.
      candidates: B arrays [T, C] of ids; one C.

    Returns:
      B arrays [T, C] float32, in units of the reward.

    Raises:
      ValueError: numbers of rows, or shapes, that do not fit, or an empty prompt.
    """
    widths = {np.shape(ids)[1:] for ids in candidates}
    lengths = [(len(reply), np.shape(ids)[0]) for reply, ids in zip(replies, candidates, strict=False)]
    if not len(prompts) == len(replies) == len(candidates) or not len(prompts) or not all(map(len, prompts)):
        raise ValueError(
            f"expected as many prompts, none of them empty, as replies and arrays of candidates, got "
            f"{len(prompts)}, {len(replies)} and {len(candidates)}"
        )
    if len(widths) != 1 or any(tokens != rows for tokens, rows in lengths):
        raise ValueError(
            f"candidates must be [T, C] for replies of T tokens, got {[np.shape(ids) for ids in candidates]} "
            f"for {[len(reply) for reply in replies]}"
        )
    (width,) = widths.pop()
    steps = bucket_length(max(map(len, replies)))
    tokens = np.zeros((len(prompts), bucket_length(max(map(len, prompts))) + steps), np.int32)
    ids = np.zeros((len(prompts), steps, width), np.int32)
    for row, (prompt, reply, own) in enumerate(zip(prompts, replies, candidates, strict=True)):
        tokens[row, : len(prompt) + len(reply)] = [*prompt, *reply]
        ids[row, : len(reply)] = own
    model = value.base if value.base is not None else value.params["model"]
    adapter = None if value.config.lora is None else Adapter(value.params["lora"], value.config.lora)
    starts = np.array([len(prompt) for prompt in prompts], np.int32)
    found = np.asarray(
        _candidate_values(
            model, value.params["value_head"], adapter, tokens, starts, ids, config=value.config
        )
    )
    return [found[row, : len(reply)] for row, reply in enumerate(replies)]


@functools.partial(jax.jit, static_argnames="config")
def _candidate_values(
    model: Params,
    head: Params,
    adapter: Adapter | None,
    tokens: Int[Array, "B L"],
    starts: Int[Array, " B"],
    ids: Int[Array, "B T C"],
    *,
    config: ValueConfig,
) -> Float[Array, "B T C"]:
    """One pass over prompts and replies, then one over the C candidates of each position in turn.

    Candidates lie in C scratch columns behind the row, which those of the next position overwrite. Each sees
    the row's tokens before its position, and itself.

    Args:
      model: the value model's backbone.
      head: its head.
      adapter: its LoRA, where that is kept apart.
      tokens: prompts and replies, padded on the right.
      starts: where each row's reply begins.
      ids: candidates; T such that starts + T <= L.
      config: static.
    """
    rows, length = tokens.shape
    steps, width = ids.shape[1:]
    is_vocab = config.head == "vocab"
    dtype = model["embed_tokens"]["weight"].dtype
    cache: KVCache | None = KVCache.zeros(config.backbone, rows, length + (0 if is_vocab else width), dtype)
    positions = jnp.broadcast_to(jnp.arange(length), tokens.shape)
    hidden, cache = forward(
        model, tokens, positions, cache, PrefillAttention(), config=config.backbone, adapter=adapter
    )
    if is_vocab:
        last = starts[:, None] + jnp.arange(steps) - 1
        before = jnp.take_along_axis(hidden, last[..., None], axis=1)
        down, up = head["down"]["weight"], head["up"]
        inner = einsum_float32("btd,rd->btr", before.astype(down.dtype), down)
        return einsum_float32("btr,btcr->btc", inner, up["weight"][ids]) + up["bias"][ids]

    columns = length + jnp.arange(width)
    column = jnp.arange(length + width)

    def step(cache: KVCache, place: tuple[Array, Array]) -> tuple[KVCache, Array]:
        t, own = place
        position = (starts + t)[:, None]
        mask = (column < position[..., None]) | (column == columns[:, None])
        hidden, cache = decode_block(
            model,
            own,
            jnp.broadcast_to(position, own.shape),
            jnp.broadcast_to(columns, own.shape),
            mask,
            cache,
            config=config.backbone,
            adapter=adapter,
        )
        return cache, value_head(head, hidden)

    assert cache is not None
    _, values = jax.lax.scan(step, cache, (jnp.arange(steps), ids.swapaxes(0, 1)))
    return values.swapaxes(0, 1)
