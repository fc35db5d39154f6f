"""What the loop carries from step to step, and what it hands out."""

import enum
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sia_jax.models.cache import KVCache
from sia_jax.parallel.rows import BY_ROW, WHOLE
from sia_jax.reprs import readable, shape_of, span
from sia_jax.steering.arrays import pick
from sia_jax.steering.gates import State as GateState
from sia_jax.steering.types import CandidateRecord, History, Pending, RowParams, TokenRecord, TopLogprobs

Result = TypeVar("Result")


class FinishReason(enum.IntEnum):
    """Why a row's reply ended."""

    RUNNING = 0
    """It has not; no finished sampler returns this."""
    STOP = 1
    """Its last token is a stop id."""
    LENGTH = 2
    """It has as many tokens as it may."""
    NON_FINITE = 3
    """The logits or the values after its last token held a NaN or an infinity, or no id could be drawn."""
    CANCELLED = 4
    """Somebody stopped it; or the row holds no request."""
    DEADLINE = 5
    """It took longer than it was given; only an engine looks at the time."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecodeState:
    """A batch in the middle of its replies. It owns its rows: nothing but the weights is needed to go on.

    W and W' are the tokens of prompt and reply that a row can hold, of the policy and of the value model; the
    columns of the value cache are C more, for candidates. Between programs the caches have their axis of rows
    (`outside`), so that all that is [B, ...] can be split over a mesh alike; in them it may be left out.
    """

    numbers: RowParams  # of each row: its key, threshold, temperature and so on
    policy_ids: Int[Array, "B W"]  # prompt and reply
    policy_prompts: Int[Array, " B"]  # tokens of the prompt, at least 1
    value_ids: Int[Array, "B W'"]  # the same as the value model sees it
    value_prompts: Int[Array, " B"]
    policy_cache: KVCache
    value_cache: KVCache | None
    lengths: Int[Array, " B"]  # t, tokens generated
    finish_reason: Int[Array, " B"]
    waited: Int[Array, " B"]  # policy steps since the row came to its junction; -1: it does not wait
    previous_entropy: Float[Array, " B"]
    gate: GateState
    prompt_ids: Bool[Array, "B V"]  # ids that occur in the policy's prompt
    counts: Int[Array, "B V"]  # how often the reply has each id
    value_read: Bool[Array, " B"]  # whether the value model has read the prompt
    value_lengths: Int[Array, " B"]  # tokens whose keys and values the value cache holds, once it has
    prefix_value: Float[Array, " B"]  # V(s) at the last of them that a pass has read
    readings: Int[Array, " B"]  # m, junctions at which values were read
    values_read: Int[Array, " B"]  # candidates that were read at those, all together
    policy_tokens: Int[Array, " B"]
    value_tokens: Int[Array, " B"]
    pending: Pending
    record: TokenRecord
    policy_steps: Int[Array, ""]
    value_calls: Int[Array, ""]
    policy_computed: Int[Array, ""]  # tokens of this group of devices, with padding and waiting rows
    value_computed: Int[Array, ""]

    @property
    def rows(self) -> int:
        """B; under `shard_map` those of the shard."""
        return self.lengths.shape[0]

    @property
    def waiting(self) -> Bool[Array, " B"]:
        """Rows at a junction, whose candidates the value model has not seen."""
        return self.waited >= 0

    @property
    def alive(self) -> Bool[Array, " B"]:
        """Rows whose reply has not ended."""
        return self.finish_reason == FinishReason.RUNNING

    @property
    def running(self) -> Bool[Array, " B"]:
        """Rows that the next policy step advances."""
        return self.alive & ~self.waiting

    @property
    def policy_lengths(self) -> Int[Array, " B"]:
        """Tokens of prompt and reply, as the policy counts them."""
        return self.policy_prompts + self.lengths

    @property
    def value_totals(self) -> Int[Array, " B"]:
        """Tokens of prompt and reply, as the value model counts them; `value_lengths` lags behind."""
        return self.value_prompts + self.lengths

    @property
    def history(self) -> History:
        """What a decision needs to know of the rows' past."""
        last = pick(self.policy_ids, self.policy_lengths - 1)
        return History(
            index=self.lengths,
            previous_entropy=self.previous_entropy,
            gate=self.gate,
            prompt_ids=self.prompt_ids,
            counts=self.counts,
            last_token=jnp.where(self.lengths > 0, last, -1),
        )

    def outside(self) -> "DecodeState":
        """As it crosses the border of a program: the caches with an axis of rows."""
        return self._with_caches(KVCache.with_row_axis)

    def inside(self) -> "DecodeState":
        """As a program holds it: where there is one row, the caches without their axis of rows."""
        return self._with_caches(KVCache.without_row_axis)

    def _with_caches(self, change: Callable[[KVCache], KVCache]) -> "DecodeState":
        value = None if self.value_cache is None else change(self.value_cache)
        return replace(self, policy_cache=change(self.policy_cache), value_cache=value)


COUNTS = ("policy_steps", "value_calls", "policy_computed", "value_computed")
"""Fields that all rows share, of a call or a window; all else is [B, ...]."""


def map_rows(function: Callable[..., Any], state: DecodeState, *others: DecodeState) -> DecodeState:
    """`function` of every leaf that belongs to rows, of states `outside`; what they share stays as it is."""
    names = [f.name for f in fields(DecodeState) if f.name not in COUNTS]
    trees = [{name: getattr(one, name) for name in names} for one in (state, *others)]
    return replace(state, **jax.tree.map(function, *trees))


def row_specs(kind: type[Result]) -> Result:
    """How a dataclass of rows lies on a mesh, field by field: rows with their devices, `COUNTS` on all."""
    specs: dict[str, Any] = {f.name: WHOLE if f.name in COUNTS else BY_ROW for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**specs)


def state_specs(state: DecodeState) -> DecodeState:
    """How a state lies on a mesh, leaf by leaf: rows with their devices, what they share on all."""
    shared: dict[str, Any] = dict.fromkeys(COUNTS, WHOLE)
    return replace(map_rows(lambda _: BY_ROW, state), **shared)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class Samples:
    """Replies and their record. Past a row's length: the pad id (0 if there is none), False, NaN."""

    tokens: Int[Array, "B T"]
    junction: Bool[Array, "B T"]
    entropy: Float[Array, "B T"]  # nats, what the gate saw
    policy_logprob: Float[Array, "B T"]  # log softmax(m) over the ids that have a token and are not banned
    # log of the probability that the token was drawn with; 0 at temperature 0; NaN where a value that it
    # depends on was not read
    logprob: Float[Array, "B T"]
    value: Float[Array, "B T"]  # of the token, at junctions where values were read; NaN elsewhere
    shifted: Bool[Array, "B T"]  # the policy alone would have said something else
    contenders: Int[Array, "B T"]  # candidates that might have won, whatever their values; 0: no junction
    values_read: Int[Array, "B T"]  # candidates whose values were read; 0 at a junction: decided without
    lengths: Int[Array, " B"]  # tokens, the stop token included
    finish_reason: Int[Array, " B"]  # `FinishReason`
    policy_tokens: Int[Array, " B"]  # tokens that the method makes the policy read, whatever the schedule
    value_tokens: Int[Array, " B"]  # and the value model: 0 for a reply without junctions
    policy_steps: Int[Array, ""]
    value_calls: Int[Array, ""]
    policy_computed: Int[Array, ""]  # tokens that were computed, with padding, waiting rows and prefill
    value_computed: Int[Array, ""]
    candidates: CandidateRecord | None  # with record="candidates"
    top: TopLogprobs | None = None  # with top_logprobs=K

    def __repr__(self) -> str:
        record = "" if self.candidates is None else ", with candidates"
        record += "" if self.top is None else f", with top {self.top.ids.shape[-1]}"
        counts = (self.tokens, self.lengths, self.junction, self.shifted, self.finish_reason)
        if not readable(*counts, self.policy_steps, self.value_calls):
            return f"Samples(tokens {shape_of(self.tokens)}{record})"
        reasons = [
            f"{reason.name.lower()} {ended}"
            for reason in FinishReason
            if (ended := int((np.asarray(self.finish_reason) == reason).sum()))
        ]
        return (
            f"Samples({self.lengths.size} replies of {span(self.lengths)} tokens{record}: "
            f"{int(np.sum(self.junction))} of {int(np.sum(self.lengths))} tokens steered, "
            f"{int(np.sum(self.shifted))} shifted; {', '.join(reasons) or 'none ended'}; "
            f"{int(self.policy_steps)} policy steps, {int(self.value_calls)} value passes)"
        )


def empty_record(batch: int, length: int, num_candidates: int | None, top_logprobs: int = 0) -> TokenRecord:
    """Nothing written yet: [B, T] of padding.

    Args:
      batch: B.
      length: T.
      num_candidates: C; None: no candidates are recorded.
      top_logprobs: K; 0: no likeliest ids are recorded.
    """

    def nan(*shape: int) -> Array:
        return jnp.full((batch, length, *shape), jnp.nan, jnp.float32)

    candidates = None
    if num_candidates is not None:
        ids = jnp.full((batch, length, num_candidates), -1, jnp.int32)
        each = nan(num_candidates)
        candidates = CandidateRecord(ids, each, each, each, each, policy_choice=ids[..., 0], kl=nan())
    return TokenRecord(
        tokens=jnp.zeros((batch, length), jnp.int32),
        junction=jnp.zeros((batch, length), bool),
        shifted=jnp.zeros((batch, length), bool),
        entropy=nan(),
        policy_logprob=nan(),
        logprob=nan(),
        value=nan(),
        contenders=jnp.zeros((batch, length), jnp.int32),
        values_read=jnp.zeros((batch, length), jnp.int32),
        candidates=candidates,
        top=empty_top(top_logprobs, batch, length),
    )


def empty_top(top_logprobs: int, *shape: int) -> TopLogprobs | None:
    """[*shape, K] of padding; None where K is 0."""
    if not top_logprobs:
        return None
    shape = (*shape, top_logprobs)
    return TopLogprobs(jnp.full(shape, -1, jnp.int32), jnp.full(shape, jnp.nan, jnp.float32))


def write_record(record: TokenRecord, entry: TokenRecord, rows: Array, lengths: Array) -> TokenRecord:
    """Put one entry a row at column `lengths`, in the rows where `rows` holds."""
    batch, length = record.tokens.shape
    columns = jnp.where(rows, lengths, length)

    def put(array: Array, new: Array) -> Array:
        return array.at[jnp.arange(batch), columns].set(new.astype(array.dtype), mode="drop")

    written: Any = jax.tree.map(put, record, entry)
    return written
