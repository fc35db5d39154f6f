"""What the sampler compiles to: one program for all numbers, no branch, no host, no copy of a cache."""

import functools
from collections.abc import Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax import (
    Burst,
    Knobs,
    LoraConfig,
    Prompt,
    SamplerConfig,
    SteeringConfig,
    SteeringParams,
    ValueConfig,
)
from sia_jax.costs.compiled import moves_of_at_least, while_bodies
from sia_jax.decoding import sample as module
from sia_jax.decoding.row_params import make_row_params
from sia_jax.decoding.rows import begin
from sia_jax.decoding.schedule import make_schedule
from sia_jax.steering import entropy, filters, gates, gumbel, processors, tilts
from sia_jax.steering.gates import Bernoulli, Budget, Entropy, Position
from sia_jax.steering.tilts import Clipped
from tests.support import oracle_parts as oracle
from tests.support.checkpoints import tiny_policy, tiny_value_model
from tests.support.marks import long

pytestmark = pytest.mark.optimised

ROWS, T = 4, 6
GATE = (Entropy() & Position(4)) | Bernoulli(0.2) | Budget(0.3)


def gate(first: Any, rate: Any, share: Any) -> gates.Gate:
    """`GATE` with other numbers."""
    return (Entropy() & Position(first)) | Bernoulli(rate) | Budget(share)


@functools.cache
def models():
    policy = tiny_policy(num_layers=1)
    return policy, tiny_value_model(policy)


def config_of(**fields: Any) -> SamplerConfig:
    policy, value = models()
    defaults = {
        "policy": policy.config,
        "value": value.config,
        "steering": SteeringConfig(num_candidates=3),
        "max_new_tokens": T,
    }
    return SamplerConfig(**(defaults | fields))


def params_of(config: SamplerConfig) -> SteeringParams:
    policy, value = models()
    if config.value is None:
        return SteeringParams(policy.params)
    if config.value.head == "vocab":
        value = tiny_value_model(policy, head="vocab")
    if config.value.lora is None:
        return SteeringParams(policy.params, {"model": policy.params["model"], **value.params})
    return SteeringParams(policy.params, value.params)


def packed(rows: int, length: int) -> Prompt:
    prompt = Prompt.pack([[5, 6, 7]] * rows, policy_length=length, value_length=length)
    return jax.tree.map(jnp.asarray, prompt)


def numbers_of(threshold: float, rows: int, config: SamplerConfig) -> tuple[Any, Any]:
    key = jax.random.key(0, impl="threefry2x32")
    numbers = make_row_params(threshold, key, Knobs(), rows, config)
    return numbers, make_schedule(None, config.schedule)


def arguments(config: SamplerConfig, rows: int = ROWS, length: int = 4) -> tuple[Any, ...]:
    """Of the jitted function."""
    return params_of(config), packed(rows, length), *numbers_of(np.inf, rows, config)


# One program


def test_all_numbers_in_all_forms_run_in_one_compiled_program(monkeypatch):
    config = config_of(steering=SteeringConfig(num_candidates=3, gate=GATE, tilt=Clipped(2.0)))
    traced_once = chex.assert_max_traces(module._sample.__wrapped__, n=1)
    monkeypatch.setattr(module, "_sample", jax.jit(traced_once, static_argnames="config"))

    def sample(prompt: Any, threshold: Any, key: Any, **knobs: Any) -> np.ndarray:
        samples = module.sample(
            params_of(config), prompt, threshold, rng_key=key, config=config, knobs=Knobs(**knobs)
        )
        return np.asarray(samples.tokens)

    prompt = Prompt.pack([[5, 6, 7], [8], [9, 10], [11]], policy_length=4, value_length=4)
    key = jax.random.key(0, impl="threefry2x32")
    first = sample(prompt, 1.0, key)
    numbers = {
        "beta": 2.5,
        "temperature": 0.7,
        "top_k": 5,
        "top_p": 0.9,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.1,
        "min_new_tokens": 2,
        "max_new_tokens": 5,
        "schedule": Burst(3, 1),
    }
    traced = [sample(prompt, 1.0, key, **{name: value}) for name, value in numbers.items()]
    traced.append(sample(prompt, 1.0, key, gate=gate(2, 0.5, 0.1), tilt=Clipped(0.5)))
    traced.append(sample(prompt, 0, key, gate=gate(2.0, np.float32(0.5), jnp.float32(0.1))))
    for form in (int, float, np.float64, np.float32, np.int32, jnp.float32, jnp.int32):
        traced.append(sample(prompt, form(1), key, beta=form(2), temperature=form(1), top_p=form(1)))
    for many in (np.full, jnp.full):
        rows = {name: many(ROWS, value) for name, value in numbers.items() if name != "schedule"}
        traced.append(sample(prompt, many(ROWS, 1.0), key, **rows))
        traced.append(
            sample(
                prompt,
                np.inf,
                key,
                gate=gate(many(ROWS, 1), 0.5, many(ROWS, 0.2)),
                tilt=Clipped(many(ROWS, 1)),
            )
        )
    traced.append(sample(prompt, -np.inf, jax.random.split(key, ROWS)))
    traced.append(sample(jax.tree.map(jnp.asarray, prompt), 1.0, jax.random.key(3, impl="threefry2x32")))
    for ids in ([2, 3], np.array([5, -1]), jnp.full((ROWS, 2), 7)):
        traced.append(sample(prompt, 1.0, key, stop_ids=ids))
    assert sum(not np.array_equal(tokens, first) for tokens in traced) > 12


def test_under_a_callers_jit_every_number_may_be_a_tracer():
    config = config_of(steering=SteeringConfig(num_candidates=3, gate=GATE))

    def tokens(prompt, threshold, key, knobs):
        return module.sample(
            params_of(config), prompt, threshold, rng_key=key, config=config, knobs=knobs
        ).tokens

    prompt = Prompt.pack([[5, 6, 7]] * ROWS)
    key = jax.random.key(0, impl="threefry2x32")
    row, ids = np.ones(ROWS, np.float32), np.full((ROWS, 3), -1)
    knobs = Knobs(
        beta=1.0, temperature=row, top_k=3, top_p=row, max_new_tokens=2, stop_ids=ids, banned_ids=ids[0],
        bias_ids=ids, bias=np.zeros((ROWS, 3)), gate=gate(row, 0.5, 0.1), schedule=Burst(2, 1),
    )  # fmt: skip
    assert jax.eval_shape(tokens, prompt, row, key, knobs).shape == (ROWS, T)


# No branch and no host


def equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a jaxpr, of those in it, and so on."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr):
            if is_jaxpr(value):
                yield from equations(getattr(value, "jaxpr", value))


def is_jaxpr(x: Any) -> bool:
    return hasattr(x, "eqns") or hasattr(getattr(x, "jaxpr", None), "eqns")


def primitives(function: Any, *arguments: Any) -> set[str]:
    return {equation.primitive.name for equation in equations(jax.make_jaxpr(function)(*arguments).jaxpr)}


CONFIGS = {
    "scalar": {},
    "no value model": {"value": None},
    "vocab": {"value": "vocab"},
    "own weights": {"value": "own weights"},
    "branches and a record": {"branches": 2, "record": "candidates", "num_tokens": 60},
    "gates": {"steering": SteeringConfig(num_candidates=3, gate=GATE, unsteered="candidates")},
    "vocabulary entropy": {
        "steering": SteeringConfig(num_candidates=1, entropy="vocabulary", tilt=Clipped(1.0))
    },
}


def variant(name: str) -> SamplerConfig:
    fields, config = CONFIGS[name], models()[0].config
    if fields.get("value") == "vocab":
        return config_of(value=ValueConfig(config, "vocab", 3, LoraConfig(rank=4, alpha=8.0)))
    if fields.get("value") == "own weights":
        return config_of(value=ValueConfig(config))
    return config_of(**fields)


@pytest.mark.parametrize("name", CONFIGS)
def test_no_equation_at_any_depth_is_a_branch_or_calls_the_host(name):
    config = variant(name).resolve(ROWS)
    found = primitives(functools.partial(module._sample, config=config), *arguments(config))
    assert {"while", "dot_general", "top_k"} <= found
    assert not {x for x in found if x == "cond" or "callback" in x or "infeed" in x or "outfeed" in x}


def test_without_likeliest_ids_nothing_of_them_is_traced_or_carried(monkeypatch):
    def leaves(**fields: Any) -> int:
        config = config_of(**fields).resolve(ROWS)
        numbers, _ = numbers_of(np.inf, ROWS, config)
        return len(jax.tree.leaves(begin(packed(ROWS, 4), numbers, config, 10, 10)))

    def trace(**fields: Any) -> None:
        # Of a length that no other test has: what was traced before is not traced again.
        config = config_of(max_new_tokens=T + 3, **fields).resolve(ROWS)
        module.lower(*arguments(config), config=config)

    def refuse(*_: Any) -> None:
        raise AssertionError("the likeliest ids were sought")

    assert leaves(top_logprobs=2) == leaves() + 4  # ids and numbers, of what is pending and of the record
    monkeypatch.setattr(filters, "likeliest", refuse)
    trace()
    with pytest.raises(AssertionError, match="the likeliest ids were sought"):
        trace(top_logprobs=2)


def test_the_search_finds_branches_and_callbacks_at_any_depth():
    def branch(x):
        return jax.lax.cond(x > 0, jnp.sin, jnp.cos, x)

    def host(x):
        jax.debug.print("{}", x)
        return jax.pure_callback(np.asarray, x, x, vmap_method="sequential")

    def deep(function, x):
        inner = jax.jit(lambda x: jax.lax.scan(lambda c, _: (function(c), None), x, length=2)[0])
        return jax.vmap(lambda x: jax.lax.while_loop(lambda c: c < 1, lambda c: inner(c) * 0, x))(x)

    assert "cond" in primitives(lambda x: jax.lax.while_loop(lambda c: c < 1, branch, x), 0.0)
    assert "cond" in primitives(lambda x: jax.lax.map(lambda _: branch(x[0]), jnp.arange(2)), jnp.ones(3))
    assert "cond" not in primitives(functools.partial(deep, jnp.sin), jnp.ones(3))
    found = primitives(functools.partial(deep, host), jnp.ones(3))
    assert {"pure_callback", "debug_callback"} & found


# No copy of a cache


@pytest.mark.parametrize("batch", [long(1), 4])
def test_no_loop_copies_or_transposes_a_layers_cache(batch):
    # Long replies to short prompts: a layer's cache is the largest array, but for what prefill does once.
    length, steps = 8, 504
    policy = tiny_policy(head_dim=16, max_position_embeddings=1024)
    value = tiny_value_model(policy)
    config = SamplerConfig(
        policy=policy.config,
        value=value.config,
        steering=SteeringConfig(num_candidates=2),
        max_new_tokens=steps,
        slots=max(1, batch // 2),
        pass_tokens=6,
        row_tokens=4,
        schedule=Burst(1),
    )
    params = SteeringParams(policy.params, value.params)
    lowered = module._sample.lower(
        params, packed(batch, length), *numbers_of(1.0, batch, config), config=config
    )
    bodies = while_bodies(lowered.compile().as_text())
    for model in ("policy", "value"):
        assert any(f"/{model}/" in body for body in bodies.values()), f"no loop of the {model} was found"
    cache = batch * policy.config.num_kv_heads * policy.config.head_dim * (length + steps)
    for name, body in bodies.items():
        assert moves_of_at_least(body, cache) == [], name


# The parts, compiled or not


def rng_logits(shape: tuple[int, ...], seed: int = 0, ties: bool = True) -> np.ndarray:
    """Normal; rounded to halves, so that many are equal, and with some -inf."""
    rng = np.random.default_rng([seed, *shape])
    x = rng.normal(0, 2, shape)
    if ties:
        x = np.round(x * 2) / 2 + 0.0  # no -0.0
        x[rng.random(shape) < 0.1] = -np.inf
        x[..., 0] = 1.0
    return x.astype(np.float32)


def falling(logits: np.ndarray) -> np.ndarray:
    """Ids in the order (logit falling, id rising)."""
    return np.argsort(-logits, axis=-1, kind="stable")


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(np.float64(x) - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def kept_by_sort(l: np.ndarray, temperature: float, top_k: int, top_p: float) -> tuple[np.ndarray, float]:
    """Which ids of l [V] survive, by a sort; and how near top_p is to a sum that decides."""
    order = falling(l)
    kept = np.zeros(len(l), bool)
    if temperature == 0:
        return np.ones_like(kept), np.inf
    order = order[: top_k or None]
    sums = np.cumsum(softmax(l[order] / temperature))
    count = len(order) if top_p == 1 else int(np.sum(sums < top_p)) + 1
    kept[order[:count]] = True
    return kept, np.abs(sums - top_p).min()


class PartsTest(chex.TestCase):
    """Each part of a step against NumPy, with and without `jit`."""

    def of(self, function: Any, **options: Any) -> Any:
        """The function in this test's variant, for NumPy arrays."""
        variant = self.variant(function, **options)

        def to_jax(x: Any) -> Any:
            return jnp.asarray(x) if isinstance(x, np.ndarray) else x

        return lambda *arguments: variant(*jax.tree.map(to_jax, arguments))

    @chex.variants(with_jit=True, without_jit=True)
    def test_largest_is_a_stable_sort_for_whole_and_blocked_vocabularies_and_ties(self):
        find = self.of(filters.largest, static_argnums=1)
        for vocabulary, count in ((6, 6), (64, 10), (1280, 3), (1290, 3), (2560, 10), (2688, 1)):
            for ties in (True, False):
                l = rng_logits((4, vocabulary), ties=ties)
                l[3] = 2.0
                values, ids = find(l, count)
                order = falling(l)[:, :count]
                np.testing.assert_array_equal(ids, order)
                np.testing.assert_array_equal(values, np.take_along_axis(l, order, -1))

    @chex.variants(with_jit=True, without_jit=True)
    def test_survivors_are_those_of_a_sort(self):
        cases = [(1.0, k, p) for k in (0, 1, 3, 5, 6, 40, 999) for p in (1.0, 1e-6, 0.3, 0.77, 0.999)]
        cases += [(0.3, 0, 0.9), (2.5, 20, 0.9), (0.0, 3, 0.2), (1e-3, 0, 0.9)]
        temperature, top_k, top_p = (np.array(x) for x in zip(*cases, strict=True))

        def survivors(l, *numbers):
            values, ids = filters.largest(l, 5)
            return filters.survivors(l, values, ids, *numbers).holds(l, jnp.arange(l.shape[-1]))

        compute = self.of(survivors)
        for seed, ties in ((0, True), (1, False)):
            l = rng_logits((len(cases), 200), seed, ties)
            off = np.zeros(len(cases), np.float32)  # min_p has tests of its own
            numbers = temperature.astype(np.float32), top_k, top_p.astype(np.float32), off
            actual = np.asarray(compute(l, *numbers))
            for row, case in enumerate(cases):
                expected, margin = kept_by_sort(l[row], *case)
                is_real = l[row] > -np.inf
                assert margin > 1e-6 or case[2] in (1.0, 0.999), case
                np.testing.assert_array_equal(actual[row][is_real], expected[is_real], err_msg=str(case))

    @chex.variants(with_jit=True, without_jit=True)
    def test_a_place_in_the_rest_is_numpys_searchsorted(self):
        compute = self.of(gumbel.place_in)
        for vocabulary in (5, 128, 300, 1280):
            rng = np.random.default_rng(vocabulary)
            # Multiples of 1/64 add up without rounding, in any order.
            masses = rng.integers(0, 65, (50, vocabulary)) / 64 * (rng.random((50, vocabulary)) < 0.4)
            masses[:, rng.integers(vocabulary)] = 1.0
            u = rng.integers(1, 2**10, 50) / 2**10
            places = compute(masses.astype(np.float32), u.astype(np.float32))
            for row in range(50):
                sums = np.cumsum(masses[row])
                expected = np.searchsorted(sums, u[row] * sums[-1], side="right")
                assert places[row] == expected
                assert masses[row, expected] > 0

    @chex.variants(with_jit=True, without_jit=True)
    def test_a_place_in_the_rest_has_mass_wherever_rounding_puts_the_goal(self):
        """Sums of empty blocks may differ by a rounding; a goal between two of them must not stop there."""
        rng = np.random.default_rng(0)
        rows, blocks = 64, 300
        masses = rng.random((rows, blocks, 128)).astype(np.float32) * (rng.random((rows, blocks, 1)) < 0.1)
        masses[:, 7] = rng.random((rows, 128)) * (rng.random((rows, 128)) < 0.1)
        masses[:, 7, 3] = 0.5
        flat = masses.reshape(rows, -1).astype(np.float32)
        compute = self.of(gumbel.place_in)
        before = np.asarray(jnp.cumsum(jnp.sum(jnp.asarray(masses, jnp.float32), axis=-1), axis=-1))
        for block in range(0, blocks, 4):
            u = np.clip(before[:, block] / before[:, -1], 2.0**-24, 1 - 2.0**-24).astype(np.float32)
            for goal in (np.nextafter(u, 0), u, np.nextafter(u, 1)):
                place = np.asarray(compute(flat, goal.astype(np.float32)))
                assert (flat[np.arange(rows), place] > 0).all()

    @chex.variants(with_jit=True, without_jit=True)
    def test_where_sums_fall_and_rise_over_places_without_mass_none_of_these_is_taken(self):
        sums = np.array([[0.0, 1.0, 1.0000001, 0.9999999, 1.0000002, 2.0, 2.0, 2.0000002]], np.float32)
        masses = np.array([[0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]], np.float32)
        compute = self.of(gumbel._first_above)
        for goal, expected in (
            (0.5, 1),
            (0.9999999, 1),
            (1.0, 5),
            (1.0000001, 5),
            (1.9, 5),
            (2.0, 5),
            (3.0, 5),
        ):
            assert compute(sums, np.array([goal], np.float32), masses).tolist() == [expected], goal

    @chex.variants(with_jit=True, without_jit=True)
    def test_the_best_of_equal_scores_has_the_lowest_id(self):
        scores = np.array([[1.0, 2.0, 2.0, -np.inf], [3.0, 0.0, 3.0, 3.0]], np.float32)
        place, token = self.of(gumbel.lowest_best)(scores, np.array([[9, 8, 7, 1], [5, 6, 4, 8]]))
        np.testing.assert_array_equal(place, [2, 2])
        np.testing.assert_array_equal(token, [7, 4])

    @chex.variants(with_jit=True, without_jit=True)
    def test_random_numbers_are_those_of_the_hash_whatever_jaxs_generators(self):
        words = np.array([[7, 11], [2**32 - 1, 3]], np.uint32)
        numbers = np.array([[0, 5, gumbel.REST, gumbel.PLACE_IN_REST]] * 2, np.uint32)
        expected = np.zeros((2, 2, 4), np.float32)  # for the token and for the gate
        for row, (key, t) in enumerate(zip(words.tolist(), (0, 9), strict=True)):
            for use in (0, 1):
                here = oracle.fold_in(oracle.fold_in(tuple(key), t), use)
                expected[use, row] = [oracle.uniform(here, n) for n in numbers[row].tolist()]
        for impl in ("threefry2x32", "rbg"):
            for partitionable in (True, False):
                with jax.default_prng_impl(impl), jax.threefry_partitionable(partitionable):

                    def draw(words, index, numbers):
                        return [gumbel.uniform(keys, numbers) for keys in gumbel.position_keys(words, index)]

                    actual = self.of(draw)(words, np.array([0, 9]), numbers)
                np.testing.assert_array_equal(actual, expected)

    @chex.variants(with_jit=True, without_jit=True)
    def test_entropies_are_those_of_float64(self):
        for function in (entropy.candidate_entropy, entropy.vocabulary_entropy):
            l = np.concatenate([rng_logits((6, 50)), np.full((1, 50), -np.inf, np.float32)])
            l[-1, 3], l[0] = 5.0, 0.0
            p = softmax(l)
            expected = -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0), axis=-1)
            np.testing.assert_allclose(self.of(function)(l), expected, rtol=1e-5, atol=1e-6)

    @chex.variants(with_jit=True, without_jit=True)
    def test_gates_open_where_numpy_says(self):
        n = 40
        rng = np.random.default_rng(0)
        now, before, top, gap, u = rng.uniform(0, 1.4, (5, n)).astype(np.float32)
        now[:4], before[:4] = 0.0, [0.0, 1e-9, 1.0, 1e-6]
        gap[4:7] = np.inf
        index, last = np.arange(n) % 5, np.arange(n) % 7 - 1
        features = gates.Features(index, now, before, top, gap, u, np.full(n, 0.7, np.float32), last)
        seen = (now, np.where(index > 0, before, 0), top, np.minimum(gap, 20), index)
        weights = (1.5, -0.5, 1.0, -0.25, 0.125)
        score = sum(w * np.float64(x) for w, x in zip(weights, seen, strict=True)) - 1.3
        assert np.abs(score).min() > 1e-5
        ratio = np.log(np.maximum(np.float64(now), 1e-6) / np.maximum(np.float64(before), 1e-6))
        expected = {
            gates.Entropy(): now >= np.float32(0.7),
            gates.EntropyRatio(0.1): (ratio >= 0.1) & (index > 0),
            gates.Position(3): index < 3,
            gates.Bernoulli(0.4): u < 0.4,
            gates.TopProbability(0.5): top <= 0.5,
            gates.LogitGap(0.6): gap <= 0.6,
            gates.Linear(-1.3, *weights): score >= 0,
            gates.After((3,)): last == 3,
            gates.After((3, 4)): np.zeros(n, bool),
            gates.After((3, 4), started=1): np.ones(n, bool),
            gates.Budget(0.3): now >= np.float32(0.7),
            gates.Always(): np.ones(n, bool),
            gates.Never(): np.zeros(n, bool),
        }
        for gate, opens in expected.items():
            traced = jax.tree.map(lambda x: np.full(n, x, np.float32), gate)

            def step(gate, features):
                state = gate.init(features.threshold)
                verdict = gate.decide(features, state)
                return verdict, gate.advance(features, state, verdict)

            actual, state = self.of(step)(traced, features)
            np.testing.assert_array_equal(actual, opens, err_msg=repr(gate))
            if isinstance(gate, gates.Budget):
                np.testing.assert_allclose(state, 0.7 + 0.25 * (opens - 0.3), rtol=1e-6)
            if isinstance(gate, gates.After):
                np.testing.assert_array_equal(state, np.where(opens, len(gate.tokens), last == 3))

    @chex.variants(with_jit=True, without_jit=True)
    def test_tilts_are_those_of_numpy_over_the_allowed_alone(self):
        rng = np.random.default_rng(0)
        values = rng.normal(0, 2, (5, 6)).astype(np.float32)
        values[4] = 0.3  # all equal: no deviation to divide by
        beta = rng.normal(1, 0.5, 5).astype(np.float32)
        allowed = np.arange(6) < np.array([6, 1, 4, 2, 3])[:, None]
        cases = [
            (tilt, of)
            for of in (tilts.Additive(), tilts.Centred(), tilts.Standardised())
            for tilt in (of, tilts.Clipped(0.5, of))
        ]
        for tilt, of in cases:
            traced = jax.tree.map(lambda x: np.full(5, x, np.float32), tilt)
            at = tilts.Junction(beta, np.zeros_like(values), allowed, np.zeros(5, np.float32))
            actual = np.asarray(self.of(lambda tilt, values, at: tilt(values, at))(traced, values, at))
            for row in range(5):
                v = np.float64(values[row][allowed[row]])
                if not isinstance(of, tilts.Additive):
                    v = v - v.mean()
                if isinstance(of, tilts.Standardised):
                    std = v.std() if row not in (1, 4) else np.inf
                    v = v / std
                expected = beta[row] * v
                if tilt is not of:
                    expected = np.clip(expected, -0.5, 0.5)
                np.testing.assert_allclose(actual[row][allowed[row]], expected, rtol=2e-5, atol=1e-5)

    @chex.variants(with_jit=True, without_jit=True)
    def test_processors_are_those_of_numpy(self):
        rng = np.random.default_rng(0)
        l = jnp.asarray(rng.normal(0, 2, (3, 8)), jnp.float32)
        rows = np.arange(3)
        ids = np.array([[1, -1, 5], [-1, -1, -1], [7, 7, 0]])
        inf = np.zeros(l.shape, np.float32)
        for row in rows:
            inf[row, [a for a in ids[row] if a >= 0]] = -np.inf

        masked = self.of(processors.mask_ids, static_argnums=1)(l, 6, ids)
        np.testing.assert_array_equal(masked, np.where(np.arange(8) < 6, l + inf, -np.inf))

        added = self.of(processors.add_bias)(l, ids, np.full((3, 3), 0.5, np.float32))
        amounts = [[np.sum(ids[row] == a) * 0.5 for a in range(8)] for row in rows]
        np.testing.assert_allclose(added, l + np.array(amounts), rtol=1e-6)

        seen, counts = rng.random((3, 8)) < 0.5, rng.integers(0, 3, (3, 8))
        numbers = np.array([1.3, 1.0, 0.7], np.float32), np.array([0.2, 0.0, -0.5], np.float32)
        r = np.where(l > 0, 1 / numbers[0][:, None], numbers[0][:, None])
        repeated = self.of(processors.repetition_penalty)(l, seen, numbers[0])
        np.testing.assert_allclose(repeated, np.where(seen, l * r, l), rtol=1e-6)
        counted = self.of(processors.count_penalties)(l, counts, numbers[1], numbers[0])
        expected = l - numbers[1][:, None] * (counts > 0) - numbers[0][:, None] * counts
        np.testing.assert_allclose(counted, expected, rtol=1e-5, atol=1e-6)

        held = self.of(processors.minimum_length)(l, np.array([1, 1, 2]), np.array([2, 2, 2]), ids)
        np.testing.assert_array_equal(held, np.where(rows[:, None] < 2, l + inf, l))
