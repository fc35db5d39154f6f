"""What the loop carries from step to step, and what it hands out."""

import enum
from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from sia_jax.models.cache import KVCache
from sia_jax.parallel.rows import BY_ROW, WHOLE
from sia_jax.reprs import readable, shape_of, span
from sia_jax.steering.gates import State as GateState


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
    """Somebody stopped it."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Settings:
    """The numbers of a call, typed and broadcast: what `Knobs` and the defaults come to."""

    keys: UInt32[Array, "B 2"]
    threshold: Float[Array, " B"]
    beta: Float[Array, " B"]
    temperature: Float[Array, " B"]
    top_k: Int[Array, " B"]
    top_p: Float[Array, " B"]
    repetition_penalty: Float[Array, " B"]
    presence_penalty: Float[Array, " B"]
    frequency_penalty: Float[Array, " B"]
    min_new_tokens: Int[Array, " B"]
    max_new_tokens: Int[Array, " B"]
    stop_ids: Int[Array, "B X"]
    banned_ids: Int[Array, "B X"]
    bias_ids: Int[Array, "B X"]
    bias: Float[Array, "B X"]
    gate: tuple[Float[Array, " B"], ...]
    tilt: tuple[Float[Array, " B"], ...]
    quorum: Int[Array, ""]
    patience: Int[Array, ""]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pending:
    """A row's position between its logits and its token: C candidates, not V logits."""

    ids: Int[Array, "B C"]
    logits: Float[Array, "B C"]  # l, processed
    policy_logprobs: Float[Array, "B C"]  # log softmax(m)
    kept: Int[Array, " B"]  # how many, from the first on, are in A and N
    entropy: Float[Array, " B"]
    own_choice: Int[Array, " B"]  # what the policy alone would say


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TokenRecord:
    """One entry a generated token; the leaves are [B] for one token each, [B, T] for replies."""

    tokens: Int[Array, "B *T"]
    junction: Bool[Array, "B *T"]
    shifted: Bool[Array, "B *T"]
    entropy: Float[Array, "B *T"]
    policy_logprob: Float[Array, "B *T"]
    logprob: Float[Array, "B *T"]
    value: Float[Array, "B *T"]
    candidates: "CandidateRecord | None"


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CandidateRecord:
    """What `record="candidates"` adds."""

    ids: Int[Array, "B *T C"]  # A, largest logit first; -1 past the reply
    logits: Float[Array, "B *T C"]  # l, processed
    values: Float[Array, "B *T C"]  # NaN where none was computed
    policy_logprobs: Float[Array, "B *T C"]  # log softmax(m)
    # log of the probability that each was drawn with; at temperature 0, of what temperature 1 would draw from
    logprobs: Float[Array, "B *T C"]
    own_choice: Int[Array, "B *T"]  # what the policy alone would have said there
    kl: Float[Array, "B *T"]  # KL(distribution drawn from || softmax(m)), nats


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecodeState:
    """A batch in the middle of its replies."""

    policy_cache: KVCache
    value_cache: KVCache | None
    token: Int[Array, " B"]  # the last one of prompt and reply, which the next policy step reads
    lengths: Int[Array, " B"]  # t, tokens generated
    finish_reason: Int[Array, " B"]
    # policy steps done when the row came to its junction; -1: it does not wait
    waiting_since: Int[Array, " B"]
    previous_entropy: Float[Array, " B"]
    gate: GateState
    prompt_ids: Bool[Array, "B V"]  # ids that occur in the policy's prompt
    counts: Int[Array, "B V"]  # how often the reply has each id
    value_lengths: Int[Array, " B"]  # tokens whose keys and values the value cache holds
    value_ready: Bool[Array, ""]  # whether the value model has seen the prompts
    junctions: Int[Array, " B"]
    policy_tokens: Int[Array, " B"]
    value_tokens: Int[Array, " B"]
    pending: Pending
    record: TokenRecord
    policy_steps: Int[Array, ""]
    value_calls: Int[Array, ""]
    chunk_steps: Int[Array, ""]  # policy steps of the chunk that runs

    @property
    def waiting(self) -> Bool[Array, " B"]:
        """Rows at a junction, whose candidates the value model has not seen."""
        return self.waiting_since >= 0

    @property
    def alive(self) -> Bool[Array, " B"]:
        """Rows whose reply has not ended."""
        return self.finish_reason == FinishReason.RUNNING

    @property
    def running(self) -> Bool[Array, " B"]:
        """Rows that the next policy step advances."""
        return self.alive & ~self.waiting


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class Samples:
    """Replies and their record. Past a row's length: the pad id (0 if there is none), False, NaN."""

    tokens: Int[Array, "B T"]
    junction: Bool[Array, "B T"]
    entropy: Float[Array, "B T"]  # nats, what the gate saw
    policy_logprob: Float[Array, "B T"]  # log softmax(m) over the ids that have a token and are not banned
    logprob: Float[Array, "B T"]  # log of the probability that the token was drawn with; 0 at temperature 0
    value: Float[Array, "B T"]  # of the token, at junctions; NaN elsewhere
    shifted: Bool[Array, "B T"]  # the policy alone would have said something else
    lengths: Int[Array, " B"]  # tokens, the stop token included
    finish_reason: Int[Array, " B"]  # `FinishReason`
    policy_tokens: Int[Array, " B"]  # tokens that the method makes the policy read, whatever the schedule
    value_tokens: Int[Array, " B"]  # and the value model: 0 for a reply without junctions
    policy_steps: Int[Array, ""]
    value_calls: Int[Array, ""]
    policy_computed: Int[Array, ""]  # tokens that were computed, with padding, waiting rows and prefill
    value_computed: Int[Array, ""]
    candidates: CandidateRecord | None  # with record="candidates"

    def __repr__(self) -> str:
        record = "" if self.candidates is None else ", with candidates"
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


_COUNTS = ("policy_steps", "value_calls", "policy_computed", "value_computed")


def samples_specs() -> Samples:
    """How `Samples` lie on a mesh: rows with their devices, the counts of the call on all."""
    specs: dict[str, Any] = {f.name: WHOLE if f.name in _COUNTS else BY_ROW for f in fields(Samples)}
    return Samples(**specs)


def empty_record(batch: int, length: int, num_candidates: int | None) -> TokenRecord:
    """Nothing written yet: [B, T] of padding. `num_candidates` None: no candidates are recorded."""

    def nan(*shape: int) -> Array:
        return jnp.full((batch, length, *shape), jnp.nan, jnp.float32)

    candidates = None
    if num_candidates is not None:
        ids = jnp.full((batch, length, num_candidates), -1, jnp.int32)
        each = nan(num_candidates)
        candidates = CandidateRecord(ids, each, each, each, each, own_choice=ids[..., 0], kl=nan())
    return TokenRecord(
        tokens=jnp.zeros((batch, length), jnp.int32),
        junction=jnp.zeros((batch, length), bool),
        shifted=jnp.zeros((batch, length), bool),
        entropy=nan(),
        policy_logprob=nan(),
        logprob=nan(),
        value=nan(),
        candidates=candidates,
    )


def write_record(record: TokenRecord, entry: TokenRecord, rows: Array, lengths: Array) -> TokenRecord:
    """Put one entry a row at column `lengths`, in the rows where `rows` holds."""
    batch, length = record.tokens.shape
    columns = jnp.where(rows, lengths, length)

    def put(array: Array, new: Array) -> Array:
        return array.at[jnp.arange(batch), columns].set(new.astype(array.dtype), mode="drop")

    written: Any = jax.tree.map(put, record, entry)
    return written
