"""What a value model says of every candidate at every position of finished replies, whoever made them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sia_jax.models.attention import PrefillAttention
from sia_jax.models.cache import KVCache
from sia_jax.models.passes import bucket_length, decode_block
from sia_jax.models.transformer import forward
from sia_jax.models.value_model import ValueNet
from sia_jax.pretrained import ValueModel


def candidate_values(
    value: ValueModel,
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    candidates: Sequence[np.ndarray],
    lengths: tuple[int, int] | None = None,
) -> list[np.ndarray]:
    """V(x, y_<t, a) of the candidates a at every position t of B replies.

    A sampler that steers densely computes the same, but of replies that it steers itself; here they may be
    the policy's own. Each shape of the buffers is compiled once.

    Args:
      value: the value model.
      prompts: B prompts as the value model sees them.
      replies: B replies, of T tokens each; T may differ, and be 0.
      candidates: B arrays [T, C] of ids; one C.
      lengths: of the buffers, the longest prompt's and the longest reply's; None: buckets of these ones.

    Returns:
      B arrays [T, C] float32, in units of the reward.

    Raises:
      ValueError: numbers of rows, or shapes, that do not fit, or an empty prompt.
    """
    widths = {np.shape(ids)[1:] for ids in candidates}
    shapes = [(len(reply), np.shape(ids)[0]) for reply, ids in zip(replies, candidates, strict=False)]
    if not len(prompts) == len(replies) == len(candidates) or not len(prompts) or not all(map(len, prompts)):
        raise ValueError(
            f"expected as many prompts, none of them empty, as replies and arrays of candidates, got "
            f"{len(prompts)}, {len(replies)} and {len(candidates)}"
        )
    if len(widths) != 1 or any(tokens != rows for tokens, rows in shapes):
        raise ValueError(
            f"candidates must be [T, C] for replies of T tokens, got {[np.shape(ids) for ids in candidates]} "
            f"for {[len(reply) for reply in replies]}"
        )
    (width,) = widths.pop()
    if lengths is None:
        lengths = bucket_length(max(map(len, prompts))), bucket_length(max(map(len, replies)))
    steps = lengths[1]
    tokens = np.zeros((len(prompts), sum(lengths)), np.int32)
    ids = np.zeros((len(prompts), steps, width), np.int32)
    for row, (prompt, reply, own) in enumerate(zip(prompts, replies, candidates, strict=True)):
        tokens[row, : len(prompt) + len(reply)] = [*prompt, *reply]
        ids[row, : len(reply)] = own
    starts = np.array([len(prompt) for prompt in prompts], np.int32)
    found = np.asarray(_candidate_values(value.net, tokens, starts, ids))
    return [found[row, : len(reply)] for row, reply in enumerate(replies)]


@jax.jit
def _candidate_values(
    net: ValueNet, tokens: Int[Array, "B L"], starts: Int[Array, " B"], ids: Int[Array, "B T C"]
) -> Float[Array, "B T C"]:
    """One pass over prompts and replies, then one over the C candidates of each position in turn.

    Candidates lie in C scratch columns behind the row, which those of the next position overwrite. Each sees
    the row's tokens before its position, and itself.

    Args:
      net: the value model.
      tokens: prompts and replies, padded on the right.
      starts: where each row's reply begins.
      ids: candidates; T such that starts + T <= L.
    """
    rows, length = tokens.shape
    steps, width = ids.shape[1:]
    config = net.config.backbone
    scratch = width if net.config.reads_candidates else 0
    dtype = net.model["embed_tokens"]["weight"].dtype
    cache: KVCache | None = KVCache.zeros(config, rows, length + scratch, dtype)
    positions = jnp.broadcast_to(jnp.arange(length), tokens.shape)
    hidden, cache = forward(
        net.model, tokens, positions, cache, PrefillAttention(), config=config, adapter=net.adapter
    )
    if not net.config.reads_candidates:
        last = starts[:, None] + jnp.arange(steps) - 1
        return net.values_of(jnp.take_along_axis(hidden, last[..., None], axis=1), ids)

    columns = length + jnp.arange(width)
    column = jnp.arange(length + width)

    def step(cache: KVCache, place: tuple[Array, Array]) -> tuple[KVCache, Array]:
        t, own = place
        position = (starts + t)[:, None]
        mask = (column < position[..., None]) | (column == columns[:, None])
        hidden, cache = decode_block(
            net.model,
            own,
            jnp.broadcast_to(position, own.shape),
            jnp.broadcast_to(columns, own.shape),
            mask,
            cache,
            config=config,
            adapter=net.adapter,
        )
        return cache, net.values_of(hidden, own)

    assert cache is not None
    _, values = jax.lax.scan(step, cache, (jnp.arange(steps), ids.swapaxes(0, 1)))
    return values.swapaxes(0, 1)
