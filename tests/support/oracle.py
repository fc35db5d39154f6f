"""Sparse Inference-time Alignment in float64: one row, one token after the other, nothing cached.

The sampler's second opinion. What a float32 sampler may decide differently is reported: every comparison that
a token rests on, with its distance from a tie. `Settings.mutation` builds in a known error, to show that a
comparison with the sampler would find it.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.support.oracle_network import NumpyModel
from tests.support.oracle_parts import (
    MUTATIONS,
    Key,
    Settings,
    View,
    advance,
    allowed,
    contenders_of,
    drawn_from,
    evaluate,
    features_of,
    fold_in,
    initial_state,
    is_separable,
    likeliest_of,
    logsumexp,
    numbered,
    outside_of,
    own_choice,
    penalise,
    processed,
    reads_prefix_value,
    real,
    steered_choice,
    tilt_of,
    view_of,
)

__all__ = ["MUTATIONS", "NumpyModel", "Reply", "Settings", "generate"]


SMALL_MARGIN = 1e-5
"""Nats, or units of the reward: nearer to a tie than this, float32 may decide otherwise than float64."""


@dataclass
class Reply:
    """The record of one reply: in each list, one entry a token."""

    tokens: list[int] = field(default_factory=list)
    junction: list[bool] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    policy_logprob: list[float] = field(default_factory=list)
    logprob: list[float] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    contenders: list[int] = field(default_factory=list)
    values_read: list[int] = field(default_factory=list)
    shifted: list[bool] = field(default_factory=list)
    candidate_ids: list[list[int]] = field(default_factory=list)
    candidate_logits: list[list[float]] = field(default_factory=list)
    candidate_values: list[list[float]] = field(default_factory=list)
    candidate_policy_logprobs: list[list[float]] = field(default_factory=list)
    candidate_logprobs: list[list[float]] = field(default_factory=list)
    top_ids: list[list[int]] = field(default_factory=list)
    top_logprobs: list[list[float]] = field(default_factory=list)
    own_choice: list[int] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    gate_state: list[list[float]] = field(default_factory=list)
    """After the token, left to right: q of every Budget, the last junction of every Refractory, and of every
    After how many ids of its marker were there before the token."""
    comparisons: list[dict[str, float]] = field(default_factory=list)
    """By name, how far each comparison was from a tie. One entry more if a value that is not finite ended
    the reply, because a gate had asked for it."""
    finish_reason: str = ""
    policy_tokens: int = 0
    value_tokens: int = 0

    @property
    def margins(self) -> list[float]:
        """For each index the smallest distance from a tie."""
        return [min(distances.values()) for distances in self.comparisons]

    def first_small_margin(self, limit: float = SMALL_MARGIN) -> int:
        """The first index whose margin is under `limit`; the number of margins if there is none."""
        return next((t for t, margin in enumerate(self.margins) if margin < limit), len(self.margins))


def generate(
    policy: NumpyModel,
    value: NumpyModel | None,
    policy_prompt: Sequence[int],
    value_prompt: Sequence[int],
    settings: Settings,
) -> Reply:
    """Sample one reply.

    Args:
      policy: asked for its logits at every token.
      value: asked for its values at every junction; None: no position is a junction.
      policy_prompt: ids in front of the reply for the policy; the repetition penalty counts them.
      value_prompt: ids in front of the reply for the value model.
      settings: of this row.
    """
    row = _Row(policy, value, list(policy_prompt), list(value_prompt), settings)
    for t in range(settings.max_new_tokens):
        row.reply.policy_tokens = len(policy_prompt) + t
        row.reply.finish_reason = row.step(t)
        if row.reply.finish_reason:
            return row.reply
    row.reply.finish_reason = "length"
    return row.reply


class _Row:
    """A reply on its way, and the state of its gate."""

    def __init__(
        self,
        policy: NumpyModel,
        value: NumpyModel | None,
        policy_prompt: list[int],
        value_prompt: list[int],
        settings: Settings,
    ):
        self.policy, self.value, self.settings = policy, value, settings
        self.policy_prompt, self.value_prompt = policy_prompt, value_prompt
        self.reply = Reply()
        self.key = (int(settings.key[0]), int(settings.key[1]))
        self.gate = numbered(settings.gate, settings.gate_numbers)
        self.tilt = numbered(settings.tilt, settings.tilt_numbers)
        self.state = initial_state(self.gate, settings.threshold)
        self.previous_entropy = math.nan

    def step(self, t: int) -> str:
        """Append token t to the reply if all is finite; the reason if the reply ends here, else nothing."""
        s, reply = self.settings, self.reply
        key = fold_in(self.key, t + (sum(reply.junction) if s.mutation == "step_key" else 0))
        raw = self._policy_logits()
        m = allowed(raw, s)
        l = processed(m, self.policy_prompt, reply.tokens, s)
        if not np.isfinite(raw).all() or not np.isfinite(l).any():
            return "non_finite"
        view = view_of(l, s)
        asked = view_of(self._without_penalties(m), s) if s.mutation == "late_penalty" else view
        is_junction, entropy, distance = self._ask_gate(asked, key)
        if is_junction:
            view = asked
        own, distances = own_choice(view, fold_in(key, 0), s)
        top_ids, top_logprobs, top_gap = likeliest_of(l if s.mutation == "processed_top" else m, s)
        distances |= {"gate": distance, "top": top_gap} | view.distances
        reply.comparisons.append(distances)
        contends, read = self._contest(t, view, fold_in(key, 0), is_junction, distances)
        # The values of all of A decide, whichever of them are read: that is what is promised.
        values = self._values(t, view.candidates, read, is_junction)
        prefix_value = self._prefix_value(t, view, values) if is_junction else 0.0
        if read.any() and not np.isfinite([*values[read], prefix_value]).all():
            return "non_finite"
        if is_junction:
            ids, scores = view.members, self._scores(view, values, prefix_value)
            token, distances["steered"] = steered_choice(scores, ids, fold_in(key, 0), s)
            if s.mutation == "own_where_decided" and not read.any() and own not in ids:
                token, ids, scores = own, np.append(ids, own), np.append(scores, l[own])
        else:
            token, ids = own, np.union1d(view.members, outside_of(view, s))
            scores = l[ids]
        self._record(token, m, view, is_junction=is_junction, entropy=entropy, own=own)
        if s.mutation == "late_top" and read.any():
            top_ids, top_logprobs, _ = likeliest_of(allowed(self._policy_logits(), s), s)
        reply.top_ids.append(top_ids)
        reply.top_logprobs.append(top_logprobs)
        reply.contenders.append(int(contends.sum()))
        reply.values_read.append(int(read.sum()))
        known = np.where(read, values, math.nan)
        reply.value.append(float(known[view.candidates == token][0]) if read.any() else math.nan)
        reply.candidate_values.append(known.tolist())
        logprob, kl = drawn_from(token, ids, scores, m, s)
        log_q = np.full(len(m), -math.inf)
        scaled = scores / (s.temperature or 1)
        log_q[ids] = scaled - logsumexp(scaled)
        law = log_q[view.candidates]
        if is_junction and len(view.members) > 1 and not read[view.keep[view.candidates]].all():
            law = np.full(len(law), math.nan)  # it hangs on values that were not read
            if s.temperature > 0:
                logprob = kl = math.nan
        reply.logprob.append(logprob)
        reply.kl.append(kl)
        reply.candidate_logprobs.append(law.tolist())
        return "stop" if token in real(s.stop_ids) else ""

    def _contest(
        self, t: int, view: View, key: Key, is_junction: bool, distances: dict[str, float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which of the candidates [C] contend, and which are read."""
        s, tilt = self.settings, self.tilt
        none = np.zeros(len(view.candidates), bool)
        if not is_junction:
            return none, none
        contends, near = contenders_of(view, tilt, key, s)
        distances |= near
        inside = view.keep[view.candidates]
        assert self.value is not None
        if s.read_all or tilt[0] != "Clipped" or self.value.on_policy:
            return contends, ~none
        if contends.sum() == 1:
            return contends, none
        if self.value.head_kind == "vocab":
            return contends, ~none
        mean = t == 0 and reads_prefix_value(tilt)
        return contends, contends if is_separable(tilt) and not mean else inside

    def _policy_logits(self) -> np.ndarray:
        """m [V], of the policy's own network behind all of prompt and reply."""
        s, reply, prompt = self.settings, self.reply, self.policy_prompt
        read = [n > 0 for n in reply.values_read]
        tokens, unwritten, network = prompt + reply.tokens, [], None
        if s.mutation == "policy_unwritten":
            unwritten = [len(prompt) + i for i, was_read in enumerate(read[:-1]) if was_read]
        if s.mutation == "adapted_policy" and read and read[-1]:
            network = self.value
        if s.mutation == "neighbour_state" and read and read[-1]:
            ids = reply.candidate_ids[-1]
            tokens = [*tokens[:-1], ids[(ids.index(tokens[-1]) + 1) % len(ids)]]
        return self.policy.logits(tokens, unwritten=unwritten, network=network)

    def _ask_gate(self, view: View, key: Key) -> tuple[bool, float, float]:
        """Whether the next token is a junction, the entropy, the distance from a tie; advances the state."""
        s, l = self.settings, view.l
        if s.mutation == "filtered_entropy":
            l = np.where(view.keep, l / (s.temperature or 1), -np.inf)
        f = features_of(self.reply.tokens, l, view.candidates, self.previous_entropy, key, s)
        verdict = evaluate(self.gate, f, iter(self.state))
        is_junction = verdict.is_open and self.value is not None
        self.previous_entropy = f.entropy
        for _ in range(1 + (is_junction and s.mutation == "waiting_gate")):
            self.state = advance(
                self.gate, f, iter(self.state), is_junction, early=s.mutation == "early_verdict"
            )
        return is_junction, f.entropy, verdict.distance

    def _values(self, t: int, candidates: np.ndarray, read: np.ndarray, is_junction: bool) -> np.ndarray:
        """The values of all candidates at a junction, else NaN; counts the tokens that reading some takes."""
        s, reply = self.settings, self.reply
        if self.value is None or not is_junction:
            return np.full(len(candidates), math.nan)
        if self.value.on_policy:  # whose prefix is the policy's, which has read it: no tokens
            prompt = self.value_prompt if s.mutation == "value_prompt" else self.policy_prompt
            return self.value.candidate_values(prompt + reply.tokens, candidates)
        prompt = self.policy_prompt if s.mutation == "policy_prompt" else self.value_prompt
        junctions = [len(prompt) + i for i, junction in enumerate(reply.junction) if junction]
        # Tokens chosen where values were read were candidates, and are in the cache since then.
        readings = sum(n > 0 for n in reply.values_read)
        if s.mutation == "unread_as_read":
            readings = len(junctions)
        spans_and_candidates = t - readings + sum(reply.values_read) + int(read.sum())
        if read.any():
            reply.value_tokens = len(prompt) + (
                t if self.value.head_kind == "vocab" else spans_and_candidates
            )
        return self.value.candidate_values(
            prompt + reply.tokens,
            candidates,
            unwritten=junctions if s.mutation == "unwritten" else (),
            shift=int(s.mutation == "candidate_position"),
        )

    def _prefix_value(self, t: int, view: View, values: np.ndarray) -> float:
        """V(s): the head at the prefix's last token; at t = 0 the mean of the members' values.

        Later, with a vocab head, sum(p Q) over the members, p = softmax(l). 0 where no tilt asks for it.
        """
        s, tokens, value = self.settings, self.reply.tokens, self.value
        if value is None or not reads_prefix_value(self.tilt):
            return 0.0
        of_members = values[view.keep[view.candidates]]
        if t == 0:
            return float(of_members.mean())
        if value.head_kind == "vocab":
            l = view.l[view.members]
            return float((np.exp(l - logsumexp(l)) * of_members).sum())
        prompt = self.policy_prompt if s.mutation == "policy_prompt" else self.value_prompt
        junctions = [i for i, junction in enumerate(self.reply.junction) if junction]
        read = len(tokens)
        if s.mutation == "prefix_value_shifted":
            read -= 1
        elif s.mutation == "stale_prefix_value":
            read = junctions[-1] + 1 if junctions else 0
        *prefix, last = prompt + tokens[:read]
        unwritten = [len(prompt) + i for i in junctions if len(prompt) + i < len(prefix)]
        return float(
            value.candidate_values(prefix, [last], unwritten=unwritten if s.mutation == "unwritten" else ())[
                0
            ]
        )

    def _scores(self, view: View, values: np.ndarray, prefix_value: float) -> np.ndarray:
        """score_a = l_a + tilt(V)_a of the members."""
        s, ids = self.settings, view.members
        of_members = values[view.keep[view.candidates]]
        scores = view.l[ids] + tilt_of(self.tilt, of_members, s.beta, prefix_value)
        if s.mutation == "late_penalty":
            return penalise(scores, ids, self.policy_prompt, self.reply.tokens, s)
        return scores

    def _without_penalties(self, m: np.ndarray) -> np.ndarray:
        """l [V] as it were if no penalty were set."""
        s = dataclasses.replace(
            self.settings, repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0
        )
        return processed(m, self.policy_prompt, self.reply.tokens, s)

    def _record(
        self,
        token: int,
        m: np.ndarray,
        view: View,
        *,
        is_junction: bool,
        entropy: float,
        own: int,
    ) -> None:
        """Append what is known of a token, save its own probability."""
        reply = self.reply
        reply.tokens.append(token)
        reply.junction.append(is_junction)
        reply.entropy.append(entropy)
        reply.policy_logprob.append(float(m[token] - logsumexp(m)))
        reply.shifted.append(is_junction and token != own)
        reply.candidate_ids.append(view.candidates.tolist())
        reply.candidate_logits.append(view.l[view.candidates].tolist())
        reply.candidate_policy_logprobs.append((m - logsumexp(m))[view.candidates].tolist())
        reply.own_choice.append(own)
        reply.gate_state.append(self.state)
