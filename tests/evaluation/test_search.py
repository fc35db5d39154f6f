"""ARGS, Transfer Q* and CBS against plain programs that run one prompt at a time, and their laws."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from scipy.stats import chi2

import sia_jax
from sia_jax.engine.engine import Engine
from sia_jax.engine.sampling_keys import key_of_seed
from sia_jax.evaluation.search.drafts import Continue, Draft, Look
from sia_jax.evaluation.search.expressions import parse_search, text_of
from sia_jax.evaluation.search.methods import Args, ChunkBeam, SearchMethod, TransferQ, choose_token
from sia_jax.evaluation.search.runner import Found, Rated, SearchRunner
from tests.support.engines import make_engine, pair, sampled, tokenizer
from tests.support.oracle_network import NumpyModel

LIMIT = 9
C = 4
REAL_IDS = 346


def reward_of(text: str) -> float | None:
    """Any number that depends on every character; some texts have none."""
    number = sum((i + 1) * ord(character) for i, character in enumerate(text))
    return None if number % 11 == 3 else 2 * math.sin(number)


def rate(places: Sequence[int], drafts: Sequence[Draft], texts: Sequence[str]) -> Rated:
    """`reward_of`, as a reward that reads as many tokens as the text has characters."""
    return Rated([reward_of(text) for text in texts], [len(text) for text in texts], [0.0] * len(texts), 0.0)


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, REAL_IDS, rng.integers(2, 20)).tolist() for _ in range(count)]


def searched(
    method: SearchMethod,
    own: Sequence[list[int]],
    *,
    limit: int = LIMIT,
    engine: Engine,
    at_once: int = 5,
    seeds: Sequence[int] | None = None,
    threshold: float = math.inf,
    temperature: float = 1.0,
    score: Callable[..., Rated] = rate,
) -> list[Found]:
    """What a method finds for each prompt, by the library."""

    def request(place: int, draft: Draft, ask: Continue | Look) -> sia_jax.Request:
        ids = [*own[place], *draft.tokens]
        if isinstance(ask, Look):
            return sia_jax.Request(prompt_ids=ids, threshold=math.inf, temperature=0.0, max_new_tokens=1)
        return sia_jax.Request(
            prompt_ids=ids,
            threshold=threshold,
            temperature=0.0 if ask.greedy else temperature,
            max_new_tokens=ask.limit,
            key=jax.random.wrap_key_data(ask.key, impl="threefry2x32"),
            n=ask.n,
        )

    stops = set(engine.policy.config.eos_token_ids)
    runner = SearchRunner(
        engine,
        request,
        score,
        ends=stops.__contains__,
        tokenizer=tokenizer(),
        limit=limit,
        at_once=at_once,
    )
    seeds = range(len(own)) if seeds is None else seeds
    found = dict(runner.run([method.search(key_of_seed(seed), limit) for seed in seeds]))
    return [found[place] for place in range(len(own))]


def candidate_engine(**options: Any) -> Engine:
    return make_engine(record="candidates", prefix_caching=True, prompt_lengths=(1, 16, 32), **options)


class Plain:
    """The policy as a function of a prefix, in float64, and what it takes to use it."""

    def __init__(self) -> None:
        policy, _ = pair()
        self.model = NumpyModel(jax.device_get(policy.params), policy.config)
        self.stops = set(policy.config.eos_token_ids)
        self.passes = self.read = 0

    def likeliest(self, ids: Sequence[int]) -> list[tuple[int, float]]:
        """(id, log p) of the C likeliest."""
        self.passes += 1
        logits = self.model.logits(list(ids))[:REAL_IDS]
        logp = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        order = sorted(range(REAL_IDS), key=lambda token: (-logp[token], token))[:C]
        return [(token, float(logp[token])) for token in order]

    def greedy(self, ids: list[int], limit: int) -> list[int]:
        """The greedy reply to a prefix."""
        found: list[int] = []
        while len(found) < limit and not (found and found[-1] in self.stops):
            found.append(self.likeliest([*ids, *found])[0][0])
        return found

    def score(self, tokens: Sequence[int]) -> float:
        """The reward of a reply, which it reads; less than any other where there is none."""
        text = tokenizer().decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        self.read += len(text)
        reward = reward_of(text)
        return -1e9 if reward is None else reward


def plain_args(plain: Plain, prompt: list[int], weight: float, limit: int) -> list[int]:
    said: list[int] = []
    while len(said) < limit and not (said and said[-1] in plain.stops):
        options = plain.likeliest([*prompt, *said])
        said.append(max(options, key=lambda one: one[1] + weight * plain.score([*said, one[0]]))[0])
    return said


def plain_transfer(
    plain: Plain, prompt: list[int], weight: float, limit: int, tried: int, rolled: int | None
) -> list[int]:
    said: list[int] = []
    while len(said) < limit and not (said and said[-1] in plain.stops):
        scores = {}
        for token, logp in plain.likeliest([*prompt, *said])[:tried]:
            way = [*said, token]
            if token not in plain.stops and len(way) < limit:
                left = limit - len(way) if rolled is None else min(rolled, limit - len(way))
                way += plain.greedy([*prompt, *way], left)
            scores[token] = logp + weight * plain.score(way)
        said.append(max(scores, key=lambda token: scores[token]))
    return said


@pytest.fixture(scope="module")
def engine() -> Any:
    with candidate_engine() as made:
        yield made


def test_args_says_what_a_plain_loop_says_and_counts_what_it_did(engine: Engine) -> None:
    own = prompts(6)
    shifted = 0
    for place, found in enumerate(searched(Args(weight=1.5), own, engine=engine)):
        plain = Plain()
        tokens = plain_args(plain, own[place], 1.5, LIMIT)
        assert found.draft.tokens == tokens
        assert found.draft.finish_reason.name == ("STOP" if tokens[-1] in plain.stops else "LENGTH")
        assert found.ledger.drawn == plain.passes == len(tokens)
        assert sum(found.ledger.scored) == plain.read
        record = found.draft.record()
        assert record.junction.all()
        greedy = [plain.likeliest([*own[place], *tokens[:t]]) for t in range(len(tokens))]
        assert record.shifted.tolist() == [
            best[0][0] != token for best, token in zip(greedy, tokens, strict=True)
        ]
        logp = [dict(best)[token] for best, token in zip(greedy, tokens, strict=True)]
        np.testing.assert_allclose(record.policy_logprob, logp, atol=1e-4)
        shifted += int(record.shifted.sum())
    assert shifted > 5


@pytest.mark.parametrize(("tried", "rolled"), [(4, None), (2, None), (3, 2)])
def test_transfer_q_says_what_a_plain_loop_says_and_counts_what_it_did(
    engine: Engine, tried: int, rolled: int | None
) -> None:
    own = prompts(4, seed=tried)
    method = TransferQ(weight=1.0, candidates=tried, rollout_tokens=rolled)
    for place, found in enumerate(searched(method, own, limit=6, engine=engine)):
        plain = Plain()
        tokens = plain_transfer(plain, own[place], 1.0, 6, tried, rolled)
        assert found.draft.tokens == tokens
        assert found.ledger.drawn == plain.passes
        assert sum(found.ledger.scored) == plain.read


def plain_beam(
    prompt: list[int], seed: int, method: ChunkBeam, limit: int, draw: Callable[..., list[int]]
) -> tuple[list[int], int]:
    """CBS of one prompt, one continuation at a time; (the reply, tokens drawn)."""
    stops = Plain().stops
    key = jax.random.key(seed, impl="threefry2x32")
    kept: list[list[int]] = [[]]
    drawn, turn = 0, 0

    def whole(said: list[int]) -> bool:
        return len(said) == limit or (bool(said) and said[-1] in stops)

    def value(said: list[int]) -> float:
        return Plain().score(said)

    while not all(whole(said) for said in kept):
        pool = [said for said in kept if whole(said)]
        n = method.width * method.samples if turn == 0 else method.samples
        for j, said in enumerate(said for said in kept if not whole(said)):
            own = jax.random.fold_in(jax.random.fold_in(key, turn), j)
            for branch in range(n):
                branch_key = own if n == 1 else jax.random.fold_in(own, branch)
                more = draw([*prompt, *said], branch_key, min(method.length, limit - len(said)))
                drawn += len(more)
                pool.append([*said, *more])
        pool.sort(key=value, reverse=True)  # stable: the first of equal ones
        kept, turn = pool[: method.width], turn + 1
    return kept[0], drawn


@pytest.mark.parametrize("sizes", [(2, 2, 3), (1, 3, 4), (3, 1, 2), (1, 2, LIMIT), (2, 3, 50)])
@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_cbs_keeps_what_a_plain_loop_keeps_and_counts_what_it_drew(
    engine: Engine, sizes: tuple[int, int, int], temperature: float
) -> None:
    own, method = prompts(3, seed=sum(sizes)), ChunkBeam(*sizes)

    def draw(ids: list[int], key: jax.Array, limit: int) -> list[int]:
        request = sia_jax.Request(
            prompt_ids=ids, threshold=math.inf, temperature=temperature, max_new_tokens=limit, key=key
        )
        return sampled(engine, [request], at_once=1, longest=32)[0].tokens.tolist()

    found = searched(method, own, engine=engine, temperature=temperature)
    for place, one in enumerate(found):
        tokens, drawn = plain_beam(own[place], place, method, LIMIT, draw)
        assert one.draft.tokens == tokens
        assert one.ledger.drawn == drawn


def test_one_chunk_of_the_whole_length_is_best_of_n(engine: Engine) -> None:
    own = prompts(4, seed=9)
    for place, one in enumerate(searched(ChunkBeam(1, 5, LIMIT), own, engine=engine)):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(place, impl="threefry2x32"), 0), 0)
        reply = engine.generate(
            sia_jax.Request(
                prompt_ids=own[place], threshold=math.inf, max_new_tokens=LIMIT, temperature=1.0, key=key, n=5
            )
        )
        found = [reward_of(choice.text) for choice in reply.choices]
        scores = [-1e9 if reward is None else reward for reward in found]
        best = max(range(5), key=scores.__getitem__)
        assert one.draft.tokens == reply.choices[best].tokens.tolist()
        assert one.text == reply.choices[best].text


def test_what_a_search_finds_depends_on_no_other_search(engine: Engine) -> None:
    own = prompts(5, seed=3)
    for method in (Args(temperature=1.0), TransferQ(candidates=2, greedy=False), ChunkBeam(2, 2, 3)):
        together = searched(method, own, limit=5, engine=engine)
        alone = [
            searched(method, [prompt], limit=5, engine=engine, at_once=1, seeds=[place])[0]
            for place, prompt in enumerate(own)
        ]
        assert [one.draft.tokens for one in together] == [one.draft.tokens for one in alone]
        assert [one.ledger.draws for one in together] == [one.ledger.draws for one in alone]


def test_a_choice_has_the_law_of_the_tilted_candidates() -> None:
    """Chi-squared of 50,000 choices; and a candidate without a reward is never said."""
    logprobs = np.array([-0.5, -1.2, -2.0, -2.5])
    rewards = [0.3, 1.0, None, -0.2]
    given = np.array([-np.inf if reward is None else 0.8 * reward for reward in rewards])
    scores = (logprobs + given) / 0.7
    law = np.exp(scores) / np.exp(scores).sum()
    count = 50_000
    chosen = Counter(choose_token(logprobs, rewards, 0.8, 0.7, key_of_seed(seed)) for seed in range(count))
    observed = np.array([chosen[place] for place in range(4)])
    assert observed[2] == 0
    kept = law > 0
    statistic = float(np.sum((observed[kept] - count * law[kept]) ** 2 / (count * law[kept])))
    assert statistic < 13.8  # of 2 degrees of freedom, 1 in 1,000
    wrong = np.exp(scores * 0.7) / np.exp(scores * 0.7).sum()  # without the temperature
    assert float(np.sum((observed[kept] - count * wrong[kept]) ** 2 / (count * wrong[kept]))) > 100


def test_nothing_has_a_reward_and_the_policys_own_choice_is_said() -> None:
    logprobs = np.array([-1.5, -1.2, -np.inf])
    assert choose_token(logprobs, [None, None, None], 1.0, 0.0, key_of_seed(0)) == 1
    assert choose_token(logprobs, [0.0, 0.0, 99.0], 1.0, 0.0, key_of_seed(0)) == 1


@pytest.mark.long
def test_sampled_args_and_cbs_have_the_laws_that_enumeration_gives() -> None:
    """Two tokens by ARGS at temperature 1, and two chunks of one token by CBS, of 4,000 seeds each."""
    count, prompt, limit = 4000, [5, 17, 40], 2
    plain = Plain()
    args_law: Counter[tuple[int, ...]] = Counter()
    for first, p in _tilted(plain, prompt, []):
        if first in plain.stops:
            args_law[first,] += p
            continue
        for second, q in _tilted(plain, prompt, [first]):
            args_law[first, second] += p * q
    with candidate_engine(rows=16) as engine:
        own = [prompt] * count
        found = searched(Args(temperature=1.0), own, limit=limit, engine=engine, at_once=64)
        _assert_law(Counter(tuple(one.draft.tokens) for one in found), args_law, count)
        # Of CBS (1, 2, 1) under top_k = 2 there are few replies, and all can be written down.
        beam = searched(ChunkBeam(1, 2, 1), own, limit=limit, engine=engine, at_once=64, temperature=0.6)
        tops = Counter(tuple(one.draft.tokens) for one in beam)
        _assert_law(tops, _beam_law(plain, prompt, 0.6), count)


def _tilted(plain: Plain, prompt: list[int], said: list[int]) -> list[tuple[int, float]]:
    options = plain.likeliest([*prompt, *said])
    scores = np.array([logp + plain.score([*said, token]) for token, logp in options])
    law = np.exp(scores - scores.max())
    return [(token, float(p)) for (token, _), p in zip(options, law / law.sum(), strict=True)]


def _beam_law(plain: Plain, prompt: list[int], temperature: float) -> "Counter[tuple[int, ...]]":
    """Of the better of two draws of a token, twice."""

    def law(said: list[int]) -> np.ndarray:
        logits = plain.model.logits([*prompt, *said])[:REAL_IDS] / temperature
        p = np.exp(logits - logits.max())
        return np.asarray(p / p.sum())

    def better(said: list[int]) -> Counter[int]:
        p, found = law(said), Counter[int]()
        scores = [plain.score([*said, token]) for token in range(REAL_IDS)]
        likely = [token for token in range(REAL_IDS) if p[token] > 1e-7]
        for one, other in itertools.product(likely, likely):
            found[one if scores[one] >= scores[other] else other] += p[one] * p[other]
        return found

    whole: Counter[tuple[int, ...]] = Counter()
    for first, p in better([]).items():
        if p * 4000 < 0.05:
            whole[first, -1] += p
        elif first in plain.stops:
            whole[first,] += p
        else:
            for second, q in better([first]).items():
                whole[first, second] += p * q
    return whole


def _assert_law(seen: "Counter[Any]", law: "Counter[Any]", count: int) -> None:
    """Chi-squared at 1 in 10,000 over cells of 5 or more expected; the others are one cell."""
    cells = [key for key, p in law.items() if p * count >= 5]
    expected = [law[key] * count for key in cells]
    observed = [float(seen[key]) for key in cells]
    expected.append(count - sum(expected))
    observed.append(count - sum(observed))
    kept = [(o, e) for o, e in zip(observed, expected, strict=True) if e > 1]
    statistic = sum((o - e) ** 2 / e for o, e in kept)
    assert len(kept) > 3
    assert statistic < chi2.ppf(1 - 1e-4, len(kept) - 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Args(weight=0.0),
        lambda: Args(weight=math.inf),
        lambda: Args(temperature=-1.0),
        lambda: TransferQ(candidates=0),
        lambda: TransferQ(rollout_tokens=0),
        lambda: ChunkBeam(width=0),
        lambda: ChunkBeam(length=0),
    ],
)
def test_numbers_that_cannot_be_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("args", Args()),
        ("args(1.5)", Args(1.5)),
        (" args ( 2 , temperature = 0.5 ) ", Args(2.0, 0.5)),
        ("transfer_q(1, candidates=3, rollout_tokens=5, greedy=false)", TransferQ(1.0, 3, 0.0, 5, False)),
        ("transfer_q(rollout_tokens=none)", TransferQ()),
        ("cbs(4, 3, 8)", ChunkBeam(4, 3, 8)),
        ("cbs(length=9)", ChunkBeam(length=9)),
    ],
)
def test_a_search_is_read_from_its_text(text: str, method: SearchMethod) -> None:
    assert parse_search(text) == method
    assert parse_search(text_of(method)) == method


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("beam(2)", "expected one of them"),
        ("cbs(2, 2, 2, 2)", "no place for '2'"),
        ("cbs(2, width=3)", "no place for 'width=3'"),
        ("cbs(wide=3)", "no place"),
        ("cbs(1.5)", "width must be a whole number, got '1.5'"),
        ("cbs(none)", "width must be a whole number"),
        ("cbs(0)", "width must be 1 or more, got 0"),
        ("args(inf)", "weight must be a positive number"),
        ("args(true)", "weight must be a number"),
        ("transfer_q(greedy=1)", "greedy must be true or false"),
        ("transfer_q(rollout_tokens=true)", "rollout_tokens must be a whole number or none"),
        ("args(1,)", "is no number"),
        ("args(1", "expected one of them"),
        ("args(__import__('os'))", "expected one of them"),
        ("", "expected one of them"),
    ],
)
def test_another_text_is_refused_with_what_there_is(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)) as error:
        parse_search(text)
    assert "transfer_q(weight=1.0, candidates=4" in str(error.value)


def test_methods_that_differ_have_names_and_keys_that_differ() -> None:
    methods = [
        *(Args(w, t) for w in (1.0, 2.0) for t in (0.0, 1.0)),
        *(TransferQ(1.0, c, 0.0, r, g) for c in (2, 4) for r in (None, 3) for g in (True, False)),
        *(ChunkBeam(w, k, l_) for w in (1, 2) for k in (1, 2) for l_ in (4, 8)),
    ]
    assert len({method.key for method in methods}) == len({method.name for method in methods}) == len(methods)


def test_steered_chunks_count_the_value_models_tokens_once(engine: Engine) -> None:
    """Of a tree of chunks, each token that must be read is, once, with the candidates at junctions."""
    own = prompts(5, seed=5)
    found = searched(ChunkBeam(2, 2, 3), own, engine=engine, threshold=1.3)
    read = behind = 0
    for one in found:
        chunks = one.ledger.chunks
        tree = {id(chunk): before for chunk, before in chunks}
        paths = {}
        for chunk, _ in chunks:  # the tokens before each place at which values were read, by who they are
            for place in np.flatnonzero(np.asarray(chunk.record.values_read)):
                needed = [(id(chunk), t) for t in range(place + 1)]
                before = tree[id(chunk)]
                while before is not None:
                    needed += [(id(before), t) for t in range(len(before.record.tokens))]
                    before = tree[id(before)]
                paths |= dict.fromkeys(needed)
        counted = {
            (id(chunk), t)
            for (chunk, _), part in zip(chunks, one.ledger.read_chunks(), strict=True)
            for t in range(part.last)
        }
        assert counted == set(paths)
        read += len(paths)
        behind += len(counted) - sum(
            int(np.flatnonzero(np.asarray(chunk.record.values_read))[-1]) + 1
            for chunk, _ in chunks
            if np.any(chunk.record.values_read)
        )
    assert read > 20
    assert behind >= 5  # tokens behind the last junction of their chunk, read for one that comes later


def test_a_policy_whose_numbers_fail_ends_its_search_and_no_other() -> None:
    policy, value = pair()
    broken = jax.tree.map(lambda x: x, policy.params)
    embedding = np.array(broken["model"]["embed_tokens"]["weight"])
    embedding[7] = np.nan
    broken["model"]["embed_tokens"]["weight"] = embedding
    with candidate_engine(models=(replace(policy, params=broken), value)) as engine:
        for method in (Args(), TransferQ(candidates=2), ChunkBeam(2, 2, 2)):
            found = searched(method, [[7, 8], [9, 10, 11]], limit=4, engine=engine)
            assert found[0].draft.finish_reason.name == "NON_FINITE"
            assert found[1].draft.finish_reason.name in ("STOP", "LENGTH")
