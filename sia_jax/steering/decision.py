"""From one position's logits to a verdict and a choice: what a step computes, rule by rule.

Nothing here knows of caches, slots or schedules; everything is [B].

A number common to all logits changes no distribution, and must not cost one its digits: logits and scores
are taken relative to their largest before they are divided by the temperature or meet a Gumbel number. The
largest is then exactly 0, whatever the temperature, and what overflows is an id of no mass.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sia_jax.steering import filters, gates, gumbel, processors
from sia_jax.steering.arrays import pick, run_if
from sia_jax.steering.config import DecisionConfig
from sia_jax.steering.contenders import contest
from sia_jax.steering.entropy import candidate_entropy, vocabulary_entropy
from sia_jax.steering.tilts import Junction, expected_value, mean_value
from sia_jax.steering.types import CandidateRecord, History, Pending, RowParams, TokenRecord, TopLogprobs


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Decision:
    """What the policy's logits say of a row's position."""

    finite: Bool[Array, " B"]  # the logits are numbers, and there is an id to draw
    junction: Bool[Array, " B"]
    waits: Bool[Array, " B"]  # at a junction that values decide
    pending: Pending
    entry: TokenRecord  # to be written if the row does not wait


def decide(
    logits: Float[Array, "B V"], history: History, numbers: RowParams, config: DecisionConfig
) -> Decision:
    """Process the logits, find the candidates, ask the gate, and make the policy's own choice.

    Args:
      logits: [B, V] float32 of the policy, raw.
      history: of the rows, before the token.
      numbers: theirs.
      config: static.
    """
    steering, index = config.steering, history.index
    finite = jnp.all(jnp.isfinite(logits), axis=-1)
    m = processors.mask_ids(logits, config.num_tokens, numbers.banned_ids, config.unused_ids)
    processed = _process(m, history, numbers)
    # The order of ids knows one zero: a top_k would put -0.0 below 0.0, and a comparison would not.
    processed = jnp.where(processed == 0, 0, processed)
    c = steering.num_candidates
    best, best_ids = filters.largest(processed, min(max(c, 2), processed.shape[-1]))
    candidate_logits, ids = best[:, :c], best_ids[:, :c]
    top = best[:, 0]
    finite &= jnp.isfinite(top)  # not if everything is banned, nor if a penalty has overflowed
    token_keys, gate_keys = gumbel.position_keys(numbers.keys, index)

    if steering.entropy == "candidates":
        entropy = candidate_entropy(candidate_logits)
    else:
        entropy = vocabulary_entropy(processed)
    second = best[:, 1] if best.shape[-1] > 1 else jnp.full_like(top, -jnp.inf)
    features = gates.Features(
        index=index,
        entropy=entropy,
        previous_entropy=history.previous_entropy,
        top_probability=1 / jnp.sum(jnp.exp(processed - top[:, None]), axis=-1),
        logit_gap=top - second,
        uniform=gumbel.uniform(gate_keys, jnp.zeros_like(index)[:, None])[:, 0],
        threshold=numbers.threshold,
        last_token=history.last_token,
    )
    junction = numbers.gate.decide(features, history.gate)
    if not config.steered:
        junction = jnp.zeros_like(junction)
    gate = numbers.gate.advance(features, history.gate, junction)

    allowed = filters.survivors(
        processed,
        candidate_logits,
        ids,
        numbers.temperature,
        numbers.top_k,
        numbers.top_p,
        numbers.min_p,
    )
    kept = jnp.sum(allowed.holds(candidate_logits, ids) & (candidate_logits > -jnp.inf), axis=-1)
    draws = _draws(token_keys, ids, numbers)
    choice = _policy_choice(processed, candidate_logits, ids, kept, allowed, draws, numbers, config)
    found = contest(candidate_logits, kept, draws.candidates, index, numbers, config)
    decided = junction & found.decided

    m_top = jnp.max(m, axis=-1, keepdims=True)
    log_normaliser = jnp.log(jnp.sum(jnp.exp(m - m_top), axis=-1, keepdims=True))

    def policy_logprobs(logits: Array) -> Array:
        return logits - m_top - log_normaliser

    token = jnp.where(decided, pick(ids, found.winner), choice.token)
    asked = jnp.concatenate([ids, token[:, None]], axis=-1)
    logprobs = policy_logprobs(jnp.take_along_axis(m, asked, axis=-1))
    likeliest = None
    if config.top_logprobs:
        top_logits, top_ids = filters.likeliest(m, config.top_logprobs)
        likeliest = TopLogprobs(top_ids, policy_logprobs(top_logits))
    pending = Pending(
        ids=ids,
        logits=candidate_logits,
        policy_logprobs=logprobs[:, :-1],
        kept=kept,
        contenders=jnp.where(junction, found.contenders, 0),
        reads=found.reads,
        entropy=entropy,
        policy_choice=choice.token,
        gate=gate,
        top=likeliest,
    )
    candidates = None
    if config.record_candidates:
        kl = _policy_kl(processed, policy_logprobs(m), choice, allowed, pending, numbers, config)
        candidates = CandidateRecord(
            ids=ids,
            logits=candidate_logits,
            values=jnp.full_like(candidate_logits, jnp.nan),
            policy_logprobs=pending.policy_logprobs,
            logprobs=jnp.where(decided[:, None], _unread_law(pending), _policy_law(pending, choice, numbers)),
            policy_choice=choice.token,
            kl=jnp.where(decided, _unread(-logprobs[:, -1], kept, numbers), kl),
        )
    entry = TokenRecord(
        tokens=token,
        junction=decided,
        shifted=decided & (token != choice.token),
        entropy=entropy,
        policy_logprob=logprobs[:, -1],
        logprob=jnp.where(decided, _unread(jnp.zeros_like(entropy), kept, numbers), choice.logprob),
        value=jnp.full_like(entropy, jnp.nan),
        contenders=pending.contenders,
        values_read=jnp.zeros_like(kept),
        candidates=candidates,
        top=likeliest,
    )
    return Decision(finite, junction, junction & ~decided, pending, entry)


def steer(
    values: Float[Array, "B C"],
    pending: Pending,
    index: Int[Array, " B"],
    prefix_value: Float[Array, " B"],
    numbers: RowParams,
    config: DecisionConfig,
) -> tuple[Int[Array, " B"], TokenRecord, Bool[Array, " B"]]:
    """The steered choice: argmax over A and N of (l_a + tilt_a) / T + g_a, with the policy's own g.

    Where the values of some were not read, those cannot win (`sia_jax.steering.contenders`), and the choice
    is among the others. Logits, tilts and scores are each relative to their largest: an offset common to all
    values, or to all logits, is nothing to the other's digits, and where the tilts are equal the choice is
    the policy's.

    Args:
      values: [B, C] V(s, a), finite; what stands where none was read (`pending.reads`) means nothing.
      pending: the position's candidates.
      index: [B] t.
      prefix_value: [B] V(s), as read of the prefix's last token; not looked at where t = 0, whose V(s) is the
        mean of the values, nor later with a vocabulary head, where it is their mean under the policy.
      numbers: theirs.
      config: static.

    Returns:
      ([B] the place of the choice among the candidates, what to write down, [B] whether the scores are
      numbers: a large beta overflows).
    """
    members = jnp.arange(values.shape[-1]) < pending.kept[:, None]
    allowed = members & pending.reads
    all_read = jnp.all(pending.reads | ~members, axis=-1)
    if not config.reads_candidates:
        prefix_value = expected_value(values, pending.logits, allowed)
    prefix_value = jnp.where(index == 0, mean_value(values, allowed), prefix_value)
    at = Junction(numbers.beta, pending.logits, allowed, prefix_value)
    tilt = numbers.tilt(values, at)
    sound = jnp.all(jnp.isfinite(pending.logits + tilt) | ~allowed, axis=-1)
    relative = numbers.tilt.relative(values, at)
    scores = jnp.where(allowed, pending.logits - pending.logits[:, :1] + relative, -jnp.inf)
    scores -= jnp.max(scores, axis=-1, keepdims=True)
    token_keys, _ = gumbel.position_keys(numbers.keys, index)
    divisor, sampled = numbers.divisor, numbers.sampled
    noise = jnp.where(sampled[:, None], gumbel.gumbel(gumbel.uniform(token_keys, pending.ids)), 0)
    chosen, token = gumbel.lowest_best(scores / divisor[:, None] + noise, pending.ids)
    log_q = jax.nn.log_softmax(scores / divisor[:, None], axis=-1)

    log_q = jnp.where(all_read[:, None], log_q, jnp.nan)
    logprob = jnp.where(sampled, pick(log_q, chosen), 0)
    policy_logprob = pick(pending.policy_logprobs, chosen)
    candidates = None
    if config.record_candidates:
        kl = _divergence(log_q, pending.policy_logprobs)
        kl = jnp.where(sampled, jnp.where(all_read, kl, jnp.nan), -policy_logprob)
        candidates = CandidateRecord(
            ids=pending.ids,
            logits=pending.logits,
            values=jnp.where(pending.reads, values, jnp.nan),
            policy_logprobs=pending.policy_logprobs,
            logprobs=log_q,
            policy_choice=pending.policy_choice,
            kl=kl,
        )
    entry = TokenRecord(
        tokens=token,
        junction=jnp.ones_like(sampled),
        shifted=token != pending.policy_choice,
        entropy=pending.entropy,
        policy_logprob=policy_logprob,
        logprob=logprob,
        value=pick(values, chosen),
        contenders=pending.contenders,
        values_read=jnp.sum(pending.reads, axis=-1, dtype=jnp.int32),
        candidates=candidates,
        top=pending.top,
    )
    return chosen, entry, sound


def neutral(numbers: RowParams, asking: Bool[Array, " B"]) -> RowParams:
    """The numbers of rows that ask, and of the others such as ask for no filter, penalty, bias or draw.

    Args:
      numbers: of rows.
      asking: [B] whose decision anybody will look at.
    """
    return replace(
        numbers,
        temperature=jnp.where(asking, numbers.temperature, 0),
        repetition_penalty=jnp.where(asking, numbers.repetition_penalty, 1),
        presence_penalty=jnp.where(asking, numbers.presence_penalty, 0),
        frequency_penalty=jnp.where(asking, numbers.frequency_penalty, 0),
        min_new_tokens=jnp.where(asking, numbers.min_new_tokens, 0),
        bias=jnp.where(asking[:, None], numbers.bias, 0),
    )


@dataclass(frozen=True)
class _PolicyChoice:
    """The policy's own choice, and the distribution that it was drawn from."""

    token: Int[Array, " B"]
    logprob: Float[Array, " B"]
    log_normaliser: Float[Array, " B"]  # of (l - max l) / T; of l - max l where T is 0


def _process(m: Array, history: History, numbers: RowParams) -> Array:
    """l: the processors, which run if a row asks for any of them."""
    biased = jnp.any(numbers.bias != 0)
    repeats = jnp.any(numbers.repetition_penalty != 1)
    counts = jnp.any((numbers.presence_penalty != 0) | (numbers.frequency_penalty != 0))
    short = jnp.any(history.index < numbers.min_new_tokens)

    def apply(logits: Array) -> Array:
        logits = processors.add_bias(logits, numbers.bias_ids, numbers.bias)
        seen = history.prompt_ids | (history.counts > 0)
        logits = processors.repetition_penalty(logits, seen, numbers.repetition_penalty)
        logits = processors.count_penalties(
            logits, history.counts, numbers.presence_penalty, numbers.frequency_penalty
        )
        return processors.minimum_length(logits, history.index, numbers.min_new_tokens, numbers.stop_ids)

    return run_if(biased | repeats | counts | short, apply, m)


@dataclass(frozen=True)
class _Draws:
    """A position's random numbers: Gumbel ones, 0 at temperature 0, and a uniform one."""

    candidates: Float[Array, "B C"]
    rest: Float[Array, " B"]  # of all ids outside A as one
    place: Float[Array, " B"]  # uniform, of the place in the rest


def _draws(token_keys: Array, ids: Array, numbers: RowParams) -> _Draws:
    special = jnp.array([gumbel.REST, gumbel.PLACE_IN_REST], jnp.uint32)
    keys = jnp.concatenate([ids.astype(jnp.uint32), jnp.broadcast_to(special, (ids.shape[0], 2))], axis=-1)
    uniform = gumbel.uniform(token_keys, keys)
    noise = jnp.where(numbers.temperature[:, None] > 0, gumbel.gumbel(uniform[:, :-1]), 0)
    return _Draws(noise[:, :-1], noise[:, -1], uniform[:, -1])


def _unread(known: Array, kept: Array, numbers: RowParams) -> Array:
    """A number of a token that was decided without values: known if nothing was drawn, or one id might be."""
    return jnp.where((kept > 1) & (numbers.temperature > 0), jnp.nan, known)


def _unread_law(pending: Pending) -> Array:
    """log of the distribution at the candidates where no value was read: known if there is one alone."""
    alone = jnp.where(jnp.arange(pending.ids.shape[-1]) == 0, 0, -jnp.inf)
    return jnp.where(pending.kept[:, None] > 1, jnp.nan, alone)


def _policy_choice(
    processed: Array,
    candidate_logits: Array,
    ids: Array,
    kept: Array,
    allowed: filters.Prefix,
    draws: _Draws,
    numbers: RowParams,
    config: DecisionConfig,
) -> _PolicyChoice:
    """The race of the candidates in N, and of the rest of N as one runner."""
    divisor, sampled = numbers.divisor, numbers.sampled
    top = candidate_logits[:, :1]
    inside = jnp.where(
        jnp.arange(ids.shape[-1]) < kept[:, None], (candidate_logits - top) / divisor[:, None], -jnp.inf
    )
    scores = inside + draws.candidates
    place, token = gumbel.lowest_best(scores, ids)

    log_inside = jax.nn.logsumexp(inside, axis=-1)
    if config.steering.unsteered == "candidates":
        return _PolicyChoice(token, jnp.where(sampled, pick(inside, place) - log_inside, 0), log_inside)

    last = filters.Prefix(candidate_logits[:, -1], ids[:, -1])
    everything = jnp.arange(processed.shape[-1])

    def masses() -> Array:
        """exp(l / T - l_C / T) of N outside A: at most 1, for no logit outside A exceeds the last inside."""
        rest = allowed.holds(processed, everything) & ~last.holds(processed, everything)
        return jnp.where(rest, jnp.exp((processed - last.logit[:, None]) / divisor[:, None]), 0)

    log_rest = jnp.log(jnp.sum(masses(), axis=-1)) + (last.logit - top[:, 0]) / divisor
    log_rest = jnp.where(last.logit > -jnp.inf, log_rest, -jnp.inf)
    rest_wins = sampled & (log_rest + draws.rest > pick(scores, place))

    def draw(token: Array) -> Array:
        return jnp.where(rest_wins, gumbel.place_in(masses(), draws.place), token)

    token = run_if(jnp.any(rest_wins), draw, token)
    log_normaliser = jnp.logaddexp(log_inside, log_rest)
    logit = pick(processed, token) - top[:, 0]
    return _PolicyChoice(token, jnp.where(sampled, logit / divisor - log_normaliser, 0), log_normaliser)


def _policy_kl(
    processed: Array,
    policy_logprobs: Array,
    choice: _PolicyChoice,
    allowed: filters.Prefix,
    pending: Pending,
    numbers: RowParams,
    config: DecisionConfig,
) -> Array:
    """KL(the unsteered distribution || softmax(m)); at temperature 0 that of the one token."""
    divisor, sampled = numbers.divisor, numbers.sampled
    if config.steering.unsteered == "candidates":
        divergence = _divergence(_policy_law(pending, choice, numbers), pending.policy_logprobs)
    else:
        held = allowed.holds(processed, jnp.arange(processed.shape[-1]))
        scaled = (processed - pending.logits[:, :1]) / divisor[:, None] - choice.log_normaliser[:, None]
        divergence = _divergence(jnp.where(held, scaled, -jnp.inf), policy_logprobs)
    policy_logprob = pick(policy_logprobs, choice.token)
    return jnp.where(sampled, divergence, -policy_logprob)


def _policy_law(pending: Pending, choice: _PolicyChoice, numbers: RowParams) -> Array:
    """log of the unsteered distribution at the candidates; -inf for those outside N."""
    divisor = numbers.divisor
    kept = jnp.arange(pending.ids.shape[-1]) < pending.kept[:, None]
    scaled = (pending.logits - pending.logits[:, :1]) / divisor[:, None]
    return jnp.where(kept, scaled - choice.log_normaliser[:, None], -jnp.inf)


def _divergence(log_q: Array, log_p: Array) -> Array:
    """sum_a q_a (log q_a - log p_a), over the ids that q may draw."""
    q = jnp.exp(log_q)
    return jnp.sum(jnp.where(q > 0, q * (log_q - log_p), 0), axis=-1)
