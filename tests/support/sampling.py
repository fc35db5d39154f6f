"""Tiny samplers next to their oracle: rows of numbers in, replies of both out, and where the two differ."""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sia_jax.decoding import sample as sampler
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.params import SteeringParams
from sia_jax.decoding.prompt import Prompt
from sia_jax.decoding.row_params import make_row_params
from sia_jax.decoding.schedule import Burst, Schedule, Shared, make_schedule
from sia_jax.decoding.state import FinishReason, Samples
from sia_jax.models.config import Family, ValueConfig
from sia_jax.models.lora import merge_lora
from sia_jax.pretrained import Policy, ValueModel
from sia_jax.steering.config import Knobs, SteeringConfig
from sia_jax.steering.numbers import NUMBERS
from sia_jax.types import Params
from tests.support.checkpoints import tiny_policy, tiny_value_model
from tests.support.oracle import SMALL_MARGIN, NumpyModel, Reply, Settings, generate
from tests.support.oracle_parts import fold_in

PROMPT_LENGTH, VALUE_PROMPT_LENGTH = 9, 11
"""P and P': the buffers of all prompts here."""

IDS = 4
"""Width of every list of ids."""

TOLERANCE, FLOOR = 1e-4, 0.1
"""Floats agree within so much of their magnitude; magnitudes below the floor count as the floor."""


@dataclass(frozen=True)
class Row:
    """One request: prompts, key, and all numbers that may differ from row to row."""

    prompt: tuple[int, ...]
    value_prompt: tuple[int, ...]
    key: tuple[int, int]
    """The words of its threefry2x32 key."""
    threshold: float
    max_new_tokens: int
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
    stop_ids: tuple[int, ...] = (2, 3)
    banned_ids: tuple[int, ...] = ()
    bias: tuple[tuple[int, float], ...] = ()
    gate: tuple[float, ...] | None = None
    """Numbers of the gate, left to right; None: its own."""
    tilt: tuple[float, ...] | None = None


@dataclass(frozen=True, eq=False)
class Program:
    """A sampler's configuration and weights, and the oracle's two models of the same weights."""

    config: SamplerConfig
    params: SteeringParams
    policy: NumpyModel
    value: NumpyModel | None
    exact_ties: bool = False
    """Whether logits that are equal in float64 are so in float32: a margin of exactly 0 is then no danger."""

    @property
    def has_state(self) -> bool:
        """Whether its gate has a state, which is then looked at."""
        return bool(jax.tree.leaves(self.config.steering.gate.init(jnp.zeros(1))))


@dataclass(frozen=True)
class Outcome:
    """What a call of the sampler gave."""

    samples: Samples
    gate: tuple[np.ndarray, ...] | None = field(default=None)
    """[B] each: the final state of every Budget, where there is one."""


# Networks


def make_program(
    steering: SteeringConfig | None = None,
    *,
    family: Family = "qwen3",
    head: str = "scalar",
    merged: bool = False,
    backbone: Policy | None = None,
    steered: bool = True,
    spread: float = 1.6,
    seed: int = 0,
    vocab_size: int = 48,
    num_layers: int = 2,
    change: Callable[[Params], Params] | None = None,
    exact_ties: bool = False,
    **fields: Any,
) -> Program:
    """A sampler over random weights.

    Args:
      steering: C = 6 and the defaults, if None.
      family: of the policy.
      head: of the value model, as `tiny_value_model` takes it.
      merged: its LoRA is merged into weights of its own.
      backbone: what the value model is made over, if not over the policy; it is merged then.
      steered: whether there is a value model.
      spread: factor on the policy's logits.
      seed: of all weights.
      vocab_size: V of the policy.
      num_layers: of the policy.
      change: of the policy's params, before anybody sees them.
      exact_ties: see `Program`.
      **fields: of SamplerConfig.
    """
    policy = tiny_policy(family, seed, vocab_size=vocab_size, num_layers=num_layers)
    # The final norm scales the logits of tied and untied heads alike.
    norm = policy.params["model"]["norm"]["weight"] * spread
    params = policy.params | {"model": policy.params["model"] | {"norm": {"weight": norm}}}
    policy = replace(policy, params=change(params) if change else params)
    steering = steering or SteeringConfig(num_candidates=6)
    fields = {"max_new_tokens": 14, "record": "candidates"} | fields
    model = NumpyModel(policy.params, policy.config)
    if not steered:
        config = SamplerConfig(policy=policy.config, steering=steering, **fields)
        return Program(config, SteeringParams(policy.params), model, None, exact_ties)
    value = tiny_value_model(backbone or policy, seed, head=head)
    oracle = NumpyModel(value.params, value.config, value.base)
    config, params = value.config, value.params
    if merged or backbone:
        config, params = merged_value(value)
    return Program(
        SamplerConfig(policy=policy.config, value=config, steering=steering, **fields),
        SteeringParams(policy.params, params),
        model,
        oracle,
        exact_ties,
    )


def merged_value(value: ValueModel) -> tuple[ValueConfig, Params]:
    """A value model whose LoRA is merged into weights of its own."""
    assert value.config.lora is not None
    params = {
        "model": merge_lora(value.base, value.params["lora"], value.config.lora),
        "value_head": value.params["value_head"],
    }
    return replace(value.config, lora=None), params


# Both sides


def random_row(program: Program, rng: np.random.Generator, **numbers: Any) -> Row:
    """A row with random prompts, of any length from 1 on, and a random key; `numbers` are its fields."""
    config = program.config
    real = config.real_tokens

    def ids(longest: int) -> tuple[int, ...]:
        return tuple(rng.integers(0, real, rng.integers(1, longest + 1)).tolist())

    drawn = {
        "prompt": ids(PROMPT_LENGTH),
        "value_prompt": ids(VALUE_PROMPT_LENGTH),
        "key": tuple(rng.integers(2**32, size=2).tolist()),
        "threshold": np.inf,
        "max_new_tokens": config.max_new_tokens,
    }
    return Row(**(drawn | numbers))


def clear_row(program: Program, *seed: int, **numbers: Any) -> tuple[Row, int]:
    """The first random row whose replies hang on no small margin, and how many were passed over for it."""
    for attempt in itertools.count():
        row = random_row(program, np.random.default_rng([*seed, attempt]), **numbers)
        if all(
            first_small_margin(program, reply) == len(reply.margins) for reply in replies_of(program, row)
        ):
            return row, attempt
    raise AssertionError


def run(
    program: Program, rows: Sequence[Row], *, min_waiting: int | None = None, max_wait: int | None = None
) -> Outcome:
    """Call the sampler; every call with as many rows runs one compiled program."""
    config = program.config

    def ids(lists: list[tuple[int, ...]]) -> np.ndarray:
        return np.array([(*ids, *[-1] * (IDS - len(ids))) for ids in lists], np.int32)

    knobs = Knobs(
        **{name: np.array([getattr(row, name) for row in rows]) for name in NUMBERS},
        max_new_tokens=np.array([row.max_new_tokens for row in rows]),
        stop_ids=ids([row.stop_ids for row in rows]),
        banned_ids=ids([row.banned_ids for row in rows]),
        bias_ids=ids([tuple(a for a, _ in row.bias) for row in rows]),
        bias=np.array([[*[b for _, b in row.bias], *[0.0] * (IDS - len(row.bias))] for row in rows]),
        gate=_of_rows(config.steering.gate, [row.gate for row in rows]),
        tilt=_of_rows(config.steering.tilt, [row.tilt for row in rows]),
        schedule=None if isinstance(config.schedule, Shared) else Burst(min_waiting, max_wait),
    )
    prompt = Prompt.pack(
        [row.prompt for row in rows],
        [row.value_prompt for row in rows],
        policy_length=PROMPT_LENGTH,
        value_length=VALUE_PROMPT_LENGTH,
    )
    threshold = np.array([row.threshold for row in rows])
    keys = jax.random.wrap_key_data(np.array([row.key for row in rows], np.uint32), impl="threefry2x32")
    if not program.has_state:
        samples = sampler.sample(program.params, prompt, threshold, rng_key=keys, config=config, knobs=knobs)
        return Outcome(jax.device_get(samples))
    config = config.resolve(len(rows) * config.branches)
    numbers = make_row_params(threshold, keys, knobs, len(rows), config)
    schedule = make_schedule(knobs.schedule, config.schedule)
    prompt = jax.tree.map(jnp.asarray, prompt)
    return Outcome(
        *jax.device_get(_sample_and_gate(program.params, prompt, numbers, schedule, config=config))
    )


@functools.partial(jax.jit, static_argnames="config")
def _sample_and_gate(
    params: SteeringParams, prompts: Prompt, numbers: Any, schedule: Schedule, *, config: SamplerConfig
) -> tuple[Samples, Any]:
    """What `sample` does, and the last state of the gate."""
    state = sampler.start(params, prompts, numbers, config)
    state = sampler.finish(params, state, schedule, config)
    return sampler.collect(state, config), state.gate


def _of_rows(expression: Any, numbers: Sequence[tuple[float, ...] | None]) -> Any:
    """A gate or a tilt with the numbers of each row, left to right; None: its own."""
    own, structure = jax.tree.flatten(expression)
    columns = zip(*(own if of_row is None else of_row for of_row in numbers), strict=True)
    return jax.tree.unflatten(structure, [np.array(column) for column in columns])


def replies_of(program: Program, row: Row, mutation: str | None = None) -> list[Reply]:
    """The oracle's reply to a row, or one for each branch."""
    return [reply_of(program, branch, mutation) for branch in branches_of(program, row)]


def branches_of(program: Program, row: Row) -> list[Row]:
    """A row, or the rows that its branches are, each with a key of its own."""
    n = program.config.branches
    return [row] if n == 1 else [replace(row, key=fold_in(row.key, j)) for j in range(n)]


@functools.cache
def reply_of(program: Program, row: Row, mutation: str | None = None) -> Reply:
    """The oracle's reply.

    Args:
      program: of its configuration only the steering and the ids that have a token matter.
      row: the request.
      mutation: one of MUTATIONS.
    """
    settings = Settings.of(
        program.config.steering,
        key=row.key,
        threshold=row.threshold,
        max_new_tokens=row.max_new_tokens,
        num_tokens=program.config.real_tokens,
        top_logprobs=program.config.top_logprobs,
        **{name: getattr(row, name) for name in NUMBERS},
        stop_ids=row.stop_ids,
        banned_ids=row.banned_ids,
        bias=dict(row.bias),
        gate_numbers=row.gate,
        tilt_numbers=row.tilt,
        mutation=mutation,
    )
    return generate(program.policy, program.value, row.prompt, row.value_prompt, settings)


def first_small_margin(program: Program, reply: Reply) -> int:
    """The first index that float32 may decide otherwise; the number of margins if there is none."""
    if not program.exact_ties:
        return reply.first_small_margin()
    small = [any(0 < distance < SMALL_MARGIN for distance in step.values()) for step in reply.comparisons]
    return [*small, True].index(True)


# Where they differ


def difference(program: Program, outcome: Outcome, i: int, reply: Reply) -> str:
    """The first thing in which row i of the sampler is not the oracle's reply; "" if there is none.

    Tokens, flags and floats are compared up to the first small margin, and what is said of the whole reply
    if there is none.

    Args:
      program: whose they are.
      outcome: of the sampler.
      i: row of it.
      reply: the oracle's.
    """
    samples = outcome.samples
    cut = first_small_margin(program, reply)
    whole, end = cut >= len(reply.margins), min(cut, len(reply.tokens))
    length = int(samples.lengths[i])
    if length < end:
        return f"length {length}, expected at least {end}"
    found = [
        _first_unequal(name, actual[:end], expected[:end])
        for name, actual, expected in _columns(samples, i, reply)
    ]
    if whole:
        found += [
            "" if actual == expected else f"{name} {actual}, expected {expected}"
            for name, actual, expected in [
                ("length", length, len(reply.tokens)),
                ("finish reason", FinishReason(samples.finish_reason[i]).name.lower(), reply.finish_reason),
                ("policy tokens", int(samples.policy_tokens[i]), reply.policy_tokens),
                ("value tokens", int(samples.value_tokens[i]), reply.value_tokens),
                ("padding", is_padded(samples, i), True),
            ]
        ]
        if outcome.gate is not None and reply.finish_reason != "non_finite":
            state = np.array([q[i] for q in jax.tree.leaves(outcome.gate)])
            found.append(_first_unequal("gate state", state, np.array(reply.gate_state[-1])))
    return next(filter(None, found), "")


def is_padded(samples: Samples, i: int) -> bool:
    """Whether past its length row i holds pad ids, False, NaN and -1, and nothing else."""
    n = int(samples.lengths[i])
    floats = [samples.entropy, samples.policy_logprob, samples.logprob, samples.value]
    empty = [samples.tokens[i, n:] == 0, ~samples.junction[i, n:], ~samples.shifted[i, n:]]
    empty += [samples.contenders[i, n:] == 0, samples.values_read[i, n:] == 0]
    if samples.candidates is not None:
        of = samples.candidates
        floats += [of.logits, of.values, of.policy_logprobs, of.logprobs, of.kl]
        empty += [of.ids[i, n:] == -1, of.policy_choice[i, n:] == -1]
    if samples.top is not None:
        floats.append(samples.top.logprobs)
        empty.append(samples.top.ids[i, n:] == -1)
    return all(np.all(x) for x in [*empty, *[np.isnan(x[i, n:]) for x in floats]])


def _columns(samples: Samples, i: int, reply: Reply) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(name, the sampler's [T], the oracle's [n]); decisions first, for floats follow from them."""
    names = ["tokens", "junction", "shifted", "contenders", "values_read"]
    names += ["entropy", "policy_logprob", "logprob", "value"]
    columns = [(name, getattr(samples, name)[i], np.array(getattr(reply, name))) for name in names]
    columns += _top_columns(samples, i, reply)
    of = samples.candidates
    if of is None:
        return columns
    shape = (len(reply.tokens), of.ids.shape[-1])
    mine = np.argsort(of.ids[i], axis=-1)  # two candidates whose logits are all but equal may change places
    ids = np.array(reply.candidate_ids, int).reshape(shape)
    theirs = np.argsort(ids, axis=-1)
    columns.append(("own choice", of.policy_choice[i], np.array(reply.own_choice)))
    columns.append(("kl", of.kl[i], np.array(reply.kl)))
    falling = np.all(of.logits[i, :, :-1] >= of.logits[i, :, 1:], axis=-1)
    columns.append(("order", falling, np.ones(len(reply.tokens), bool)))
    for name, actual, expected in [
        ("candidates", of.ids, ids),
        ("candidate logits", of.logits, reply.candidate_logits),
        ("candidate values", of.values, reply.candidate_values),
        ("candidates' policy logprobs", of.policy_logprobs, reply.candidate_policy_logprobs),
        ("candidates' logprobs", of.logprobs, reply.candidate_logprobs),
    ]:
        ordered = np.take_along_axis(np.array(expected).reshape(shape), theirs, axis=-1)
        columns.append((name, np.take_along_axis(actual[i], mine, axis=-1), ordered))
    return columns


def _top_columns(samples: Samples, i: int, reply: Reply) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """The same of the likeliest ids."""
    of = samples.top
    if of is None:
        return []
    shape = (len(reply.tokens), of.ids.shape[-1])
    mine = np.argsort(of.ids[i], axis=-1, kind="stable")  # as of candidates
    ids = np.array(reply.top_ids, int).reshape(shape)
    theirs = np.argsort(ids, axis=-1, kind="stable")
    higher, lower = of.logprobs[i, :, :-1], of.logprobs[i, :, 1:]
    rising = (of.ids[i, :, :-1] < of.ids[i, :, 1:]) | (lower == -np.inf)
    in_order = np.all((higher > lower) | ((higher == lower) & rising), axis=-1)
    return [
        ("top order", in_order, np.ones(len(reply.tokens), bool)),
        ("top ids", np.take_along_axis(of.ids[i], mine, -1), np.take_along_axis(ids, theirs, -1)),
        (
            "top logprobs",
            np.take_along_axis(of.logprobs[i], mine, -1),
            np.take_along_axis(np.array(reply.top_logprobs).reshape(shape), theirs, -1),
        ),
    ]


def _first_unequal(name: str, actual: np.ndarray, expected: np.ndarray) -> str:
    if expected.dtype.kind == "f":
        same = np.isclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE * FLOOR, equal_nan=True)
    else:
        same = actual == expected
    if np.all(same):
        return ""
    t = int(np.argwhere(~same)[0, 0])
    return f"{name} at {t}: {actual[t]}, expected {expected[t]}"
