"""The plain pytrees of the method: numbers of rows, what a row has said, a position's candidates, records."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from sia_jax.steering.gates import Gate
from sia_jax.steering.gates import State as GateState
from sia_jax.steering.numbers import SamplingNumbers
from sia_jax.steering.tilts import Tilt


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class RowParams(SamplingNumbers):
    """The numbers of each row, typed and broadcast: what `Knobs` and the configuration's defaults come to.

    Those of `sia_jax.steering.numbers` are inherited: [B] each, int32 if they are whole and else float32.
    """

    keys: UInt32[Array, "B 2"]  # threefry2x32, raw
    threshold: Float[Array, " B"]
    max_new_tokens: Int[Array, " B"]
    stop_ids: Int[Array, "B X"]
    banned_ids: Int[Array, "B X"]
    bias_ids: Int[Array, "B X"]
    bias: Float[Array, "B X"]
    gate: Gate  # the configuration's, its numbers [B]
    tilt: Tilt

    @property
    def sampled(self) -> Bool[Array, " B"]:
        """Where T is not 0."""
        return self.temperature > 0

    @property
    def divisor(self) -> Float[Array, " B"]:
        """T, what logits are divided by; 1 where it is 0."""
        return jnp.where(self.sampled, self.temperature, 1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class History:
    """What a decision needs to know of a row's past."""

    index: Int[Array, " B"]  # t, tokens generated
    previous_entropy: Float[Array, " B"]  # H_{t-1}, nats; anything at t = 0
    gate: GateState
    prompt_ids: Bool[Array, "B V"]  # ids that occur in the policy's prompt
    counts: Int[Array, "B V"]  # how often the reply has each id
    last_token: Int[Array, " B"]  # y_{t-1}, the reply's last id; -1 at t = 0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pending:
    """A row's position between its logits and its token: C candidates, not V logits."""

    ids: Int[Array, "B C"]
    logits: Float[Array, "B C"]  # l, processed
    policy_logprobs: Float[Array, "B C"]  # log softmax(m)
    kept: Int[Array, " B"]  # how many, from the first on, are in A and N
    contenders: Int[Array, " B"]  # how many of those may win, whatever the values; 0: the gate is closed
    reads: Bool[Array, "B C"]  # the candidates whose values are read
    entropy: Float[Array, " B"]
    policy_choice: Int[Array, " B"]  # what the policy alone would say
    gate: GateState  # for the next position
    top: "TopLogprobs | None" = None  # of the position, whichever token is said


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
    contenders: Int[Array, "B *T"]  # candidates that might have won, whatever their values; 0: gate closed
    values_read: Int[Array, "B *T"]  # candidates whose values were read; 0 at a junction: decided without
    candidates: "CandidateRecord | None"
    top: "TopLogprobs | None" = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TopLogprobs:
    """The K likeliest ids of softmax(m), whatever is drawn: largest first, of equals the lower id.

    Where fewer than K ids have a token and are not banned, -1 and -inf follow them; past a reply -1 and NaN.
    """

    ids: Int[Array, "B *T K"]
    logprobs: Float[Array, "B *T K"]  # log softmax(m), nats


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CandidateRecord:
    """What `record="candidates"` adds."""

    ids: Int[Array, "B *T C"]  # A, largest logit first; -1 past the reply
    logits: Float[Array, "B *T C"]  # l, processed
    values: Float[Array, "B *T C"]  # NaN where none was computed
    policy_logprobs: Float[Array, "B *T C"]  # log softmax(m)
    # log of the probability that each was drawn with; at temperature 0, of what temperature 1 would draw from
    # (NaN where a value of A and N was not read)
    logprobs: Float[Array, "B *T C"]
    policy_choice: Int[Array, "B *T"]  # what the policy alone would have said there
    kl: Float[Array, "B *T"]  # KL(distribution drawn from || softmax(m)), nats; NaN as `logprobs`
