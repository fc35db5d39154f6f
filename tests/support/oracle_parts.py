"""The rules of Sparse Inference-time Alignment, one equation a function, in float64 and for one row.

NumPy and the standard library only. Gates and tilts are read by the names of their classes and fields; no
function of the library is called. `tests.support.oracle` makes replies of these.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Key = tuple[int, int]
Expression = tuple[Any, ...]
"""A gate or a tilt as ("Name", *numbers, *operands), such as ("And", ("Entropy",), ("Budget", 0.2)).

The ids of an After are a list before its number, ("After", [1, 2], 0.0).
"""

MUTATIONS = (
    "candidate_position",  # the candidates' rotary position is one too high; no matter to a vocab head
    "policy_prompt",  # the value model has the policy's prompt in front
    "value_prompt",  # a head on the policy's states has the value model's prompt in front
    "unwritten",  # later tokens of the value model do not see the tokens chosen at junctions
    "step_key",  # the key counts policy and value steps, not tokens
    "late_penalty",  # penalties come after the tilt; gates and candidates do not see them
    "filtered_entropy",  # gates see what temperature and filters leave
    "waiting_gate",  # the gate's state advances twice at a junction
    "early_verdict",  # a gate's state gets the verdict of the nearest & or | around it, not of the whole
    "late_marker",  # a gate hears of each token of the reply one token late
    "prefix_value_shifted",  # V(s) is read one token too early
    "stale_prefix_value",  # V(s) is that of the token chosen at the last junction, whatever came since
    "half_reach",  # a candidate contends within b / T of the best, not within 2 b / T
    "own_where_decided",  # where one candidate contends, the policy's own choice is said
    "adapted_policy",  # the value model's adapter acts on tokens that the policy reads behind a junction
    "policy_unwritten",  # later tokens of the policy do not see the tokens chosen at junctions
    "neighbour_state",  # behind a junction the policy goes on from another candidate than the one chosen
    "unread_as_read",  # what was decided without a value is in the value model's cache, and no span
    "processed_top",  # the likeliest ids are those of l, after bias and penalties
    "late_top",  # where values were read, the likeliest ids are those of the position after
)

BUDGET_STEP = 0.25
"""eta, nats."""
REST, PICK = 2**32 - 1, 2**32 - 2
"""What the Gumbel and the uniform of the ids outside the candidates are keyed by."""


@dataclass(frozen=True)
class Settings:
    """What one row is sampled with, as plain numbers."""

    key: Key
    """The row's own key: the two words of its key data."""
    threshold: float
    max_new_tokens: int
    num_tokens: int | None = None
    """Ids from here on have no token; None: all have."""
    num_candidates: int = 10
    entropy: str = "candidates"
    gate: Any = ("Entropy",)
    """An Expression, or an object that `expression_of` can read."""
    gate_numbers: Sequence[float] | None = None
    """In place of the gate's own numbers, left to right."""
    tilt: Any = ("Additive",)
    tilt_numbers: Sequence[float] | None = None
    unsteered: str = "policy"
    beta: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    min_new_tokens: int = 0
    read_all: int = 0
    top_logprobs: int = 0
    stop_ids: Sequence[int] = ()
    """Here and in banned_ids, a negative id is none."""
    banned_ids: Sequence[int] = ()
    bias: Mapping[int, float] = field(default_factory=dict)
    mutation: str | None = None

    def __post_init__(self) -> None:
        """Refuse a misspelt word, which would silently test something else."""
        assert self.mutation in (None, *MUTATIONS), self.mutation
        assert self.entropy in ("candidates", "vocabulary"), self.entropy
        assert self.unsteered in ("policy", "candidates"), self.unsteered

    @classmethod
    def of(cls, steering: Any, **row: Any) -> "Settings":
        """The fields that `steering` has under the same names, and those of `row` over them."""
        names = [f.name for f in dataclasses.fields(cls) if hasattr(steering, f.name)]
        return cls(**({name: getattr(steering, name) for name in names} | row))


# Random numbers


def threefry2x32(key: Key, x0: Any, x1: Any) -> tuple[Any, Any]:
    """Twenty rounds of Threefry-2x32 (Salmon et al. 2011) on two 32-bit words; integers or uint64 arrays."""
    mask = 2**32 - 1
    k = (key[0], key[1], key[0] ^ key[1] ^ 0x1BD11BDA)
    x0, x1 = (x0 + k[0]) & mask, (x1 + k[1]) & mask
    for i in range(5):
        for bits in ((13, 15, 26, 6), (17, 29, 16, 24))[i % 2]:
            x0 = (x0 + x1) & mask
            x1 = (((x1 << bits) | (x1 >> (32 - bits))) & mask) ^ x0
        x0, x1 = (x0 + k[(i + 1) % 3]) & mask, (x1 + k[(i + 2) % 3] + i + 1) & mask
    return x0, x1


def fold_in(key: Key, data: Any) -> tuple[Any, Any]:
    """threefry2x32(key, [0, data])."""
    return threefry2x32(key, 0, data)


def uniform(key: Key, a: Any) -> Any:
    """((word >> 9) + 1/2) 2^-23 in (0, 1), of the first word of fold_in(key, a)."""
    return ((fold_in(key, a)[0] >> 9) + 0.5) * 2.0**-23


def gumbel(key: Key, a: Any) -> np.ndarray:
    """-log(-log(uniform))."""
    return -np.log(-np.log(uniform(key, np.asarray(a, np.uint64))))


# Logits


def logsumexp(x: np.ndarray) -> float:
    """log(sum(exp(x))); -inf of nothing."""
    largest = x.max(initial=-np.inf)
    return float(largest + np.log(np.exp(x - largest).sum())) if np.isfinite(largest) else -math.inf


def entropy_of(x: np.ndarray) -> float:
    """-sum(p log p) of p = softmax(x), nats."""
    log_p = x[np.isfinite(x)] - logsumexp(x)
    return float(-(np.exp(log_p) * log_p).sum())


def allowed(m: np.ndarray, s: Settings) -> np.ndarray:
    """m [V] with -inf at ids that have no token and at banned ones."""
    m = m.copy()
    if s.num_tokens is not None:
        m[s.num_tokens :] = -np.inf
    m[real(s.banned_ids)] = -np.inf
    return m


def penalise(l: np.ndarray, ids: np.ndarray, prompt: list[int], reply: list[int], s: Settings) -> np.ndarray:
    """The logits l of some ids after the repetition, presence and frequency penalties.

    l / r if l > 0 else l r, of ids in the prompt or the reply; then l - presence [count > 0] - frequency
    count, counted in the reply alone.
    """
    seen = np.isin(ids, prompt + reply)
    repeated = np.where(l > 0, l / s.repetition_penalty, l * s.repetition_penalty)
    count = np.array([reply.count(a) for a in ids.tolist()])
    return np.where(seen, repeated, l) - s.presence_penalty * (count > 0) - s.frequency_penalty * count


def processed(m: np.ndarray, prompt: list[int], reply: list[int], s: Settings) -> np.ndarray:
    """l [V]: bias, then penalties, then no stop id before the minimum length."""
    l = m.copy()
    for a, bias in s.bias.items():
        l[a] += bias
    l = penalise(l, np.arange(len(l)), prompt, reply, s)
    if len(reply) < s.min_new_tokens:
        l[real(s.stop_ids)] = -np.inf
    return l


@dataclass(frozen=True)
class View:
    """Logits and what is chosen from: A, its `candidates`, and N, the ids that it `keep`s."""

    l: np.ndarray  # [V]
    candidates: np.ndarray  # [C]
    keep: np.ndarray  # [V] bool
    distances: dict[str, float]

    @property
    def members(self) -> np.ndarray:
        """The ids in A and N."""
        return self.candidates[self.keep[self.candidates]]


def view_of(l: np.ndarray, s: Settings) -> View:
    """The C largest logits, and the prefix of the order (l falling, id rising) that the filters leave."""
    order = np.lexsort((np.arange(len(l)), -l))
    ranked = l[order]
    distances = {"candidates": _gap(ranked, s.num_candidates)}
    kept = int(np.isfinite(l).sum())
    if s.temperature > 0 and 0 < s.top_k < kept:
        kept = s.top_k
        distances["top_k"] = _gap(ranked, kept)
    if s.temperature > 0 and s.top_p < 1:
        scaled = ranked[:kept] / s.temperature
        mass = np.cumsum(np.exp(scaled - logsumexp(scaled)))
        kept = min(int(np.sum(mass < s.top_p)) + 1, kept)
        bounds = np.abs(mass[max(kept - 2, 0) : kept] - s.top_p)
        distances["top_p"] = min(float(bounds.min()), _gap(ranked, kept))
    if s.temperature > 0 and s.min_p > 0:
        # p >= min_p max p, on the logits; the best one is always kept, so it is near no border.
        over = ranked[:kept] - (ranked[0] + s.temperature * math.log(s.min_p))
        distances["min_p"] = float(np.abs(over[1:]).min(initial=math.inf))
        kept = 1 + int(np.sum(over[1:] >= 0))
    keep = np.zeros(len(l), bool)
    keep[order[:kept]] = True
    return View(l, order[: s.num_candidates], keep, distances)


def _gap(ranked: np.ndarray, i: int) -> float:
    """ranked[i - 1] - ranked[i]; inf where there is no choice between two finite logits."""
    is_choice = i < len(ranked) and np.isfinite(ranked[i])
    return float(ranked[i - 1] - ranked[i]) if is_choice else math.inf


def real(ids: Iterable[int]) -> list[int]:
    """The ids that are not negative."""
    return [a for a in ids if a >= 0]


def likeliest_of(m: np.ndarray, s: Settings) -> tuple[list[int], list[float], float]:
    """The K likeliest ids of softmax(m), log-probability falling and id rising, and how near the next is.

    -1 and -inf where no id is left that may be.
    """
    order = np.lexsort((np.arange(len(m)), -m))[: s.top_logprobs]
    logprobs = (m - logsumexp(m))[order]
    ids = np.where(np.isfinite(logprobs), order, -1)
    gap = _gap(np.sort(m)[::-1], s.top_logprobs) if s.top_logprobs else math.inf
    return ids.tolist(), logprobs.tolist(), gap


# Gates and tilts


def expression_of(node: Any) -> Expression:
    """An object's class name, its number and its operands as an Expression; an Expression as it is."""
    if isinstance(node, tuple):
        return node
    if hasattr(node, "started"):
        return (type(node).__name__, list(node.tokens), float(node.started))
    weights = ("bias", "entropy", "previous_entropy", "top_probability", "logit_gap", "position")
    names = ("at_least", "first", "rate", "at_most", "tokens", "bound", *weights)
    numbers = [getattr(node, name) for name in names if hasattr(node, name)]
    operands = [getattr(node, name) for name in ("left", "right", "inner", "of") if hasattr(node, name)]
    return (type(node).__name__, *map(float, numbers), *map(expression_of, operands))


def with_numbers(expression: Expression, numbers: Iterator[float]) -> Expression:
    """The expression with its numbers replaced, left to right."""
    name, *parts = expression
    parts = [
        p if isinstance(p, list) else with_numbers(p, numbers) if isinstance(p, tuple) else next(numbers)
        for p in parts
    ]
    return (name, *parts)


def numbered(node: Any, numbers: Sequence[float] | None) -> Expression:
    """`expression_of(node)`, with other numbers unless they are None."""
    expression = expression_of(node)
    return expression if numbers is None else with_numbers(expression, map(float, numbers))


def initial_state(gate: Expression, threshold: float) -> list[float]:
    """A number for each gate that remembers, left to right.

    q_0 of a Budget, -1 (none) of a Refractory, of an After how many ids of its marker there are.
    """
    own = {"Budget": [threshold], "Refractory": [-1.0], "After": [0.0]}.get(gate[0], [])
    if gate[0] == "After" and gate[2] > 0:
        own = [float(len(gate[1]))]
    return own + [x for part in gate if isinstance(part, tuple) for x in initial_state(part, threshold)]


def reads_prefix_value(tilt: Expression) -> bool:
    """Whether V(s) is part of a tilt."""
    return tilt[0] == "Advantage" or any(reads_prefix_value(p) for p in tilt if isinstance(p, tuple))


def limit_of(tilt: Expression) -> float:
    """The nats by which a tilt moves a logit at most."""
    return min(tilt[1], limit_of(tilt[2])) if tilt[0] == "Clipped" else math.inf


def is_separable(tilt: Expression) -> bool:
    """Whether it adds to a candidate what depends on that one's value and numbers of the row."""
    return is_separable(tilt[2]) if tilt[0] == "Clipped" else tilt[0] in ("Additive", "Advantage")


def contenders_of(
    view: "View", tilt: Expression, key: Key, s: Settings
) -> tuple[np.ndarray, dict[str, float]]:
    """Which of the candidates [C] win for some values; and how near that was to being otherwise.

    The float32 sampler has a little more of them, by a millionth of the size of the terms.
    """
    inside = view.keep[view.candidates]
    if not math.isfinite(limit_of(tilt)):
        return inside, {}
    t = s.temperature or 1.0
    noise = gumbel(key, view.candidates) * (s.temperature > 0)
    scaled = view.l[view.candidates] / t
    best = np.argmax(np.where(inside, scaled + noise, -np.inf))
    reach = (1 if s.mutation == "half_reach" else 2) * limit_of(tilt) / t
    gap = scaled + noise + reach - (scaled + noise)[best]
    size = np.abs(scaled - scaled[0]) + np.abs(noise) + reach
    nearest = np.abs(gap) - 2e-6 * (size + size[best])
    nearest = nearest[inside & (np.arange(len(gap)) != best)]
    return inside & (gap >= 0), {"contenders": max(float(nearest.min(initial=math.inf)), 0.0)}


@dataclass(frozen=True)
class Features:
    """What gates see of a row."""

    t: int
    threshold: float
    entropy: float
    previous_entropy: float  # meaningless at t = 0
    uniform: float
    top_probability: float
    logit_gap: float
    reply: tuple[int, ...] = ()  # y_0 .. y_{t-1}


def features_of(
    reply: Sequence[int], l: np.ndarray, candidates: np.ndarray, previous: float, key: Key, s: Settings
) -> Features:
    """The features of logits l [V]; softmax over the vocabulary, entropy as configured."""
    best, second = np.sort(l)[:-3:-1]
    return Features(
        t=len(reply),
        reply=tuple(reply[:-1] if s.mutation == "late_marker" else reply),
        threshold=s.threshold,
        entropy=entropy_of(l if s.entropy == "vocabulary" else l[candidates]),
        previous_entropy=previous,
        uniform=uniform(fold_in(key, 1), 0),
        top_probability=math.exp(best - logsumexp(l)),
        logit_gap=float(best - second),
    )


@dataclass(frozen=True)
class Verdict:
    """What a gate says, and how near its closest comparison was to a tie."""

    is_open: bool
    distance: float = math.inf


def evaluate(gate: Expression, f: Features, state: Iterator[float]) -> Verdict:
    """Evaluate every leaf, left to right; `state` gives each that remembers its own number."""
    name, *parts = gate
    if parts and isinstance(parts[0], tuple):
        verdicts = [evaluate(part, f, state) for part in parts]
        opens = [verdict.is_open for verdict in verdicts]
        return Verdict(
            {"And": all(opens), "Or": any(opens), "Not": not opens[0]}[name],
            min(verdict.distance for verdict in verdicts),
        )
    if name == "Budget":
        q = next(state)
        return Verdict(f.entropy >= q, abs(f.entropy - q))
    if name == "Refractory":
        last = next(state)
        return Verdict(last < 0 or f.t - last > parts[0])
    if name == "After":
        next(state)
        return Verdict(_matched(gate, f) == len(parts[0]))
    return _leaf(gate, f)


def advance(
    gate: Expression, f: Features, state: Iterator[float], is_junction: bool, *, early: bool = False
) -> list[float]:
    """The state for the next token: a Budget counts its own verdicts, a Refractory the junctions.

    What an After remembers only tells of the reply, which it reads anew each time.

    Args:
      gate: the expression, or a part of it.
      f: as it was evaluated with.
      state: likewise.
      is_junction: the verdict of the whole.
      early: the mutation of that name.
    """
    name, *parts = gate
    if parts and isinstance(parts[0], tuple):
        own = [next(state) for _ in initial_state(gate, 0.0)]
        if early and name != "Not":
            is_junction = evaluate(gate, f, iter(own)).is_open
        state = iter(own)
        return [x for part in parts for x in advance(part, f, state, is_junction, early=early)]
    if name == "Budget":
        q = next(state)
        return [q + BUDGET_STEP * ((f.entropy >= q) - parts[0])]
    if name == "Refractory":
        last = next(state)
        return [float(f.t) if is_junction else last]
    if name == "After":
        next(state)
        return [float(_matched(gate, f))]
    return []


def _matched(gate: Expression, f: Features) -> int:
    """n, if the marker of n ids is in the reply or was in the prompt; else how many of them end the reply."""
    _, marker, started = gate
    n, reply = len(marker), list(f.reply)
    if started > 0 or any(reply[i : i + n] == marker for i in range(len(reply))):
        return n
    return next(k for k in range(n - 1, -1, -1) if reply[len(reply) - k :] == marker[:k])


def _leaf(gate: Expression, f: Features) -> Verdict:
    """A gate without state or operands; an exact comparison is never near a tie."""
    match gate:
        case ("Entropy",):
            return Verdict(f.entropy >= f.threshold, abs(f.entropy - f.threshold))
        case ("EntropyRatio", tau) if f.t > 0:
            now, before = max(f.entropy, 1e-6), max(f.previous_entropy, 1e-6)
            ratio = math.log(now / before)
            # In nats of entropy: a logarithm magnifies the entropies' own errors by 1 / H.
            return Verdict(ratio >= tau, abs(ratio - tau) * min(now, before, 1.0))
        case ("EntropyRatio", _):
            return Verdict(False)
        case ("Position", n):
            return Verdict(f.t < n)
        case ("Bernoulli", rate):
            return Verdict(f.uniform < rate, abs(f.uniform - rate))
        case ("TopProbability", at_most):
            return Verdict(f.top_probability <= at_most, abs(f.top_probability - at_most))
        case ("LogitGap", at_most):
            return Verdict(f.logit_gap <= at_most, abs(f.logit_gap - at_most))
        case ("Linear", bias, *weights):
            before = f.previous_entropy if f.t > 0 else 0.0
            seen = (f.entropy, before, f.top_probability, min(f.logit_gap, 20.0), f.t)
            score = bias + sum(w * x for w, x in zip(weights, seen, strict=True))
            # In nats of the features: their errors grow with their weights.
            return Verdict(score >= 0, abs(score) / max(1.0, sum(map(abs, weights[:-1]))))
        case ("Always",) | ("Never",):
            return Verdict(gate == ("Always",))
    raise ValueError(f"no gate {gate}")


def tilt_of(tilt: Expression, values: np.ndarray, beta: float, prefix_value: float = math.nan) -> np.ndarray:
    """What is added to the logits of the ids in A and N, of which these are the values."""
    match tilt:
        case ("Additive",):
            return beta * values
        case ("Centred",):
            return beta * (values - values.mean())
        case ("Advantage",):
            return beta * (values - prefix_value)
        case ("Standardised",):
            if values.max() == values.min():  # the mean's rounding would make a std of it
                return np.zeros_like(values)
            return beta * (values - values.mean()) / values.std()
        case ("Clipped", bound, of):
            return np.clip(tilt_of(of, values, beta, prefix_value), -bound, bound)
    raise ValueError(f"no tilt {tilt}")


# Choices


def best_of(scores: np.ndarray, ids: np.ndarray) -> tuple[int, float]:
    """The id of the largest score, the lowest of equals, and the gap to the second."""
    order = np.lexsort((ids, -scores))
    return int(ids[order[0]]), _gap(scores[order], 1)


def own_choice(view: View, key: Key, s: Settings) -> tuple[int, dict[str, float]]:
    """The policy's own token: a Gumbel race of the members and of all the rest of N as one."""
    if s.temperature == 0:
        token, gap = best_of(view.l, np.arange(len(view.l)))
        return token, {"own": gap}
    members = view.members
    outside = outside_of(view, s)
    scaled = view.l[outside] / s.temperature
    scores = [
        *(view.l[members] / s.temperature + gumbel(key, members)),
        logsumexp(scaled) + gumbel(key, REST),
    ]
    token, gap = best_of(np.array(scores), np.array([*members, REST]))
    if token != REST:
        return token, {"own": gap}
    mass = np.cumsum(np.exp(scaled - logsumexp(scaled)))
    u = uniform(key, PICK) * mass[-1]
    # The last bound is no choice: u is below it.
    nearest = float(np.abs(mass[:-1] - u).min(initial=math.inf))
    return int(outside[np.sum(mass <= u)]), {"own": gap, "rest": nearest}


def steered_choice(scores: np.ndarray, members: np.ndarray, key: Key, s: Settings) -> tuple[int, float]:
    """argmax of score / T + g over the members with the Gumbels of the policy's own race; T = 0: of score."""
    if s.temperature == 0:
        return best_of(scores, members)
    return best_of(scores / s.temperature + gumbel(key, members), members)


def outside_of(view: View, s: Settings) -> np.ndarray:
    """The ids in N outside A, rising; none where unsteered tokens come from the candidates too."""
    if s.unsteered == "candidates":
        return np.zeros(0, int)
    return np.setdiff1d(np.flatnonzero(view.keep), view.candidates)


def drawn_from(
    token: int, ids: np.ndarray, scores: np.ndarray, policy: np.ndarray, s: Settings
) -> tuple[float, float]:
    """log q(token) and sum(q (log q - log p)), q = softmax(scores / T) on ids, p = softmax(policy [V])."""
    log_p = policy - logsumexp(policy)
    if s.temperature == 0:
        return 0.0, float(-log_p[token])
    log_q = scores / s.temperature - logsumexp(scores / s.temperature)
    return float(log_q[ids == token][0]), float((np.exp(log_q) * (log_q - log_p[ids])).sum())
