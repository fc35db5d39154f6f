"""The searches: ARGS, Transfer Q* and chunk-level beam search, each as its authors define it.

    ARGS          a = argmax over A of log p(a | s) + w R(s a)                    Khanov et al., ICLR 2024
    Transfer Q*   a = argmax over A of log p(a | s) + w R(s a y), y ~ p(. | s a)  Chakraborty et al., 2024
    CBS           the W of W K chunks of L tokens whose R is largest, again and again      Zhou et al., 2024

A: the C likeliest ids. With a temperature T the first two draw from softmax(score / T) over A. R is any
reward of a conversation that may break off: a trajectory reward, as these methods use it on partial replies.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sia_jax.engine.sampling_keys import fold_in
from sia_jax.evaluation.search.drafts import Continue, Draft, Look, Outlook, Score, Search

_TOKEN, _ROLLOUT = 0, 1
"""What keys of one position are for."""


@dataclass(frozen=True)
class Args:
    """ARGS: each token by the policy's log-probability and the reward of the reply so far.

    Raises:
      ValueError: a weight that is no positive number, or a temperature below 0.
    """

    weight: float = 1.0
    """w, nats for each unit of reward."""
    temperature: float = 0.0
    """T; 0: the best."""

    def __post_init__(self) -> None:
        _check_choice(self.weight, self.temperature)

    @property
    def name(self) -> str:
        """'ARGS (w 1)', in tables."""
        return f"ARGS (w {self.weight:g}{_at(self.temperature)})"

    @property
    def key(self) -> str:
        """'args-1', in files."""
        return f"args-{self.weight:g}" + (f"-t-{self.temperature:g}" if self.temperature else "")

    @property
    def work(self) -> float:
        """Replies' worth of the policy's work, roughly."""
        return 2.0

    def search(self, key: np.ndarray, limit: int) -> Search:
        """The search of one prompt.

        Args:
          key: [2] words, of the prompt.
          limit: tokens of a reply at most, 1 or more.
        """
        draft = Draft()
        while not draft.ended:
            (outlook,) = yield [Look(draft)]
            if outlook.failed is not None:
                return outlook.failed
            rewards = yield [Score(one) for one in outlook.drafts]
            own = _key(key, len(draft), _TOKEN)
            draft = _say(outlook, outlook.logprobs, rewards, self.weight, self.temperature, own)
        return draft


@dataclass(frozen=True)
class TransferQ:
    """Transfer Q*: each token by the reward of a whole reply that the policy writes from there on.

    Raises:
      ValueError: numbers that cannot be.
    """

    weight: float = 1.0
    """w, nats for each unit of reward."""
    candidates: int = 4
    """Of the likeliest ids those that are tried."""
    temperature: float = 0.0
    """T of the choice; 0: the best."""
    rollout_tokens: int | None = None
    """Tokens of a rollout at most; None: to the end of the reply."""
    greedy: bool = True
    """Whether rollouts are greedy, as the authors' are; else drawn as replies are."""

    def __post_init__(self) -> None:
        _check_choice(self.weight, self.temperature)
        _check_counts(candidates=self.candidates, rollout_tokens=self.rollout_tokens)

    @property
    def name(self) -> str:
        """'Transfer Q* (w 1, 4 candidates)', in tables."""
        how = "" if self.greedy else ", drawn"
        cut = "" if self.rollout_tokens is None else f", rollouts of {self.rollout_tokens}"
        return (
            f"Transfer Q* (w {self.weight:g}, {self.candidates} candidates{cut}{how}{_at(self.temperature)})"
        )

    @property
    def key(self) -> str:
        """'transfer-q-1-of-4', in files."""
        cut = "" if self.rollout_tokens is None else f"-rollouts-{self.rollout_tokens}"
        how = "" if self.greedy else "-drawn"
        drawn = f"-t-{self.temperature:g}" if self.temperature else ""
        return f"transfer-q-{self.weight:g}-of-{self.candidates}{cut}{how}{drawn}"

    @property
    def work(self) -> float:
        """Replies' worth of the policy's work, roughly: of rollouts from the middle of a reply."""
        return 1.0 + self.candidates * (self.rollout_tokens or 32) / 2

    def search(self, key: np.ndarray, limit: int) -> Search:
        """The search of one prompt; see `Args.search`."""
        draft = Draft()
        while not draft.ended:
            (outlook,) = yield [Look(draft)]
            if outlook.failed is not None:
                return outlook.failed
            options = list(outlook.drafts[: self.candidates])
            ways = list(options)  # each as far as it is known
            going = [place for place, option in enumerate(options) if not option.ended]
            if going:
                left = limit - len(draft) - 1
                if self.rollout_tokens is not None:
                    left = min(left, self.rollout_tokens)
                keys = fold_in(_key(key, len(draft), _ROLLOUT), np.arange(len(options)))
                rollouts = yield [
                    Continue(options[place], left, keys[place], greedy=self.greedy) for place in going
                ]
                for place, (rolled,) in zip(going, rollouts, strict=True):
                    ways[place] = rolled
            rewards = yield [Score(way) for way in ways]
            logprobs, own = outlook.logprobs[: len(options)], _key(key, len(draft), _TOKEN)
            draft = _say(outlook, logprobs, rewards, self.weight, self.temperature, own)
        return draft


@dataclass(frozen=True)
class ChunkBeam:
    """CBS: W drafts, each continued K times by L tokens, of which the W with the largest reward stay.

    A whole reply stays among the drafts with its reward, as one of them. With W = 1 and L as long as the
    reply it is best-of-K.

    Raises:
      ValueError: a number below 1.
    """

    width: int = 2
    """W, drafts that are kept."""
    samples: int = 2
    """K, continuations of each."""
    length: int = 16
    """L, tokens of a chunk."""

    def __post_init__(self) -> None:
        _check_counts(width=self.width, samples=self.samples, length=self.length)

    @property
    def name(self) -> str:
        """'CBS (2, 2, 16)', in tables."""
        return f"CBS ({self.width}, {self.samples}, {self.length})"

    @property
    def key(self) -> str:
        """'cbs-2-2-16', in files."""
        return f"cbs-{self.width}-{self.samples}-{self.length}"

    @property
    def work(self) -> float:
        """Replies' worth of the policy's work, roughly."""
        return float(self.width * self.samples)

    def search(self, key: np.ndarray, limit: int) -> Search:
        """The search of one prompt; see `Args.search`.

        The first chunk is drawn W K times from the prompt. In round i draft j of those that go on draws with
        fold_in(fold_in(key, i), j).
        """
        kept: list[tuple[float | None, Draft]] = [(None, Draft())]
        turn, n = 0, self.width * self.samples
        while any(not draft.ended for _, draft in kept):
            going = [draft for _, draft in kept if not draft.ended]
            keys = fold_in(_fold(key, turn), np.arange(len(going)))
            left = min(self.length, limit - len(going[0]))  # all that go on are of one length
            answers = yield [Continue(draft, left, own, n) for draft, own in zip(going, keys, strict=True)]
            found = [draft for drafts in answers for draft in drafts]
            rewards = yield [Score(draft) for draft in found]
            pool = [one for one in kept if one[1].ended] + list(zip(rewards, found, strict=True))
            order = sorted(range(len(pool)), key=lambda place: _rank(*pool[place]))  # the first of equal ones
            kept = [pool[place] for place in order[: self.width]]
            turn, n = turn + 1, self.samples
        return kept[0][1]


SearchMethod = Args | TransferQ | ChunkBeam
"""How a reply is searched for."""


def choose_token(
    logprobs: np.ndarray,
    rewards: Sequence[float | None],
    weight: float,
    temperature: float,
    key: np.ndarray,
) -> int:
    """Which candidate is said: argmax of (log p + w R) / T + g, g standard Gumbel; without g where T is 0.

    A candidate without a reward is not said, unless none has one: then all count as equal.

    Args:
      logprobs: [C] nats, of the likeliest first; -inf: an id that is never said.
      rewards: [C].
      weight: w.
      temperature: T.
      key: [2] words, of this position.

    Returns:
      Its place; of equal ones the first.
    """
    known = np.array([reward is not None for reward in rewards])
    given = np.array([0.0 if reward is None else reward for reward in rewards])
    scores = np.asarray(logprobs, np.float64) + weight * given
    if known.any():
        scores = np.where(known, scores, -np.inf)
    if temperature > 0:
        scores = scores / temperature + _gumbel(key, len(scores))
    return int(np.argmax(scores))


def _say(
    outlook: Outlook,
    logprobs: np.ndarray,
    rewards: Sequence[float | None],
    weight: float,
    temperature: float,
    key: np.ndarray,
) -> Draft:
    """The draft with the candidate that is chosen; the policy's own choice is that of equal rewards."""
    own = choose_token(logprobs, [0.0] * len(logprobs), weight, temperature, key)
    return outlook.chosen(choose_token(logprobs, rewards, weight, temperature, key), own)


def _gumbel(key: np.ndarray, count: int) -> np.ndarray:
    """[count] standard Gumbel numbers, of 64 random bits each."""
    words = fold_in(key, np.arange(count)).astype(np.uint64)
    uniform = ((words[:, 0] << np.uint64(20)) + (words[:, 1] >> np.uint64(12))) / 2.0**52
    return np.asarray(-np.log(-np.log(uniform + 2.0**-53)))


def _rank(reward: float | None, draft: Draft) -> tuple[bool, bool, float]:
    """Small is good: those that failed behind those without a reward, and these behind the others."""
    return draft.failed, reward is None, 0.0 if reward is None else -reward


def _fold(key: np.ndarray, number: int) -> np.ndarray:
    folded: np.ndarray = fold_in(key, np.array([number]))[0]
    return folded


def _key(key: np.ndarray, place: int, use: int) -> np.ndarray:
    """That of a use at a position: fold_in(fold_in(key, place), use)."""
    return _fold(_fold(key, place), use)


def _check_choice(weight: float, temperature: float) -> None:
    if not 0 < weight < np.inf:
        raise ValueError(f"weight must be a positive number, got {weight}")
    if not 0 <= temperature < np.inf:
        raise ValueError(f"temperature must be 0 or more, got {temperature}")


def _check_counts(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{name} must be 1 or more, got {count}")


def _at(temperature: float) -> str:
    return f", T {temperature:g}" if temperature else ""
