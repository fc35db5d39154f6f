"""Rows that live, driven by hand: requests come, windows follow, replies are gathered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sia_jax.decoding import window as programs
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.params import SteeringParams
from sia_jax.decoding.prompt import Prompt
from sia_jax.decoding.row_params import make_row_params
from sia_jax.decoding.sample import sample
from sia_jax.decoding.schedule import make_schedule
from sia_jax.decoding.state import FinishReason, Samples
from sia_jax.steering.config import Knobs, SteeringConfig
from sia_jax.steering.types import RowParams, TokenRecord, TopLogprobs

WIDTHS = 8, 8
"""Of the buffers of prompts that are admitted, of policy and value model."""


@dataclass(frozen=True)
class Request:
    """What one row is asked for."""

    policy_ids: tuple[int, ...]
    value_ids: tuple[int, ...]
    seed: int
    threshold: float = 1.0
    knobs: Mapping[str, float] = field(default_factory=dict)
    bias: tuple[int, float] = (-1, 0.0)
    """An id, and what is added to its logit."""

    @property
    def key(self) -> jax.Array:
        """The words of its key."""
        return jax.random.key_data(jax.random.key(self.seed, impl="threefry2x32"))


@dataclass(frozen=True)
class Said:
    """One reply: its record [T] and how it ended."""

    record: TokenRecord
    length: int
    finish_reason: int
    policy_tokens: int
    value_tokens: int


def packed(
    requests: Sequence[Request | None], config: SamplerConfig, widths: tuple[int, int] = WIDTHS
) -> tuple[Prompt, RowParams]:
    """Prompts and numbers of requests, an entry each; None: padding."""
    filled = [Request((0,), (0,), 0) if one is None else one for one in requests]
    prompts = Prompt.pack(
        [one.policy_ids for one in filled],
        [one.value_ids for one in filled],
        policy_length=widths[0],
        value_length=widths[1],
    )
    return jax.tree.map(jnp.asarray, prompts), make_row_params(*numbers_of(filled), len(filled), config)


def numbers_of(requests: Sequence[Request]) -> tuple[np.ndarray, jax.Array, Knobs]:
    """Threshold, keys and knobs of requests."""
    names = sorted({name for one in requests for name in one.knobs})
    defaults = SteeringConfig()
    knobs = {n: np.array([one.knobs.get(n, getattr(defaults, n)) for one in requests]) for n in names}
    keys = jax.random.wrap_key_data(jnp.stack([one.key for one in requests]), impl="threefry2x32")
    ids, bias = (np.array([[one.bias[n]] for one in requests]) for n in (0, 1))
    knobs |= {"bias_ids": ids, "bias": bias}
    return np.array([one.threshold for one in requests]), keys, Knobs(**knobs)


def sampled(
    params: SteeringParams,
    config: SamplerConfig,
    requests: Sequence[Request],
    widths: tuple[int, int] = WIDTHS,
) -> list[Said]:
    """The replies that `sample` gives, all in one call."""
    prompts, _ = packed(requests, config, widths)
    threshold, keys, knobs = numbers_of(requests)
    samples = sample(params, prompts, threshold, rng_key=keys, config=config, knobs=knobs)
    return [_said_of(jax.device_get(samples), i) for i in range(len(samples.lengths))]


def _said_of(samples: Samples, row: int) -> Said:
    names = TokenRecord.__dataclass_fields__
    of_row: dict[str, Any] = {n: getattr(samples, n)[row] for n in names if n not in ("candidates", "top")}
    top = jax.tree.map(lambda x: x[row], samples.top)
    return Said(
        TokenRecord(**of_row, candidates=None, top=top),
        *(
            int(getattr(samples, name)[row])
            for name in ("lengths", "finish_reason", "policy_tokens", "value_tokens")
        ),
    )


class Rows:
    """A state that lives, and what its rows have said."""

    def __init__(
        self,
        params: SteeringParams,
        config: SamplerConfig,
        rows: int,
        widths: tuple[int, int] = WIDTHS,
    ):
        self.params, self.config, self.rows, self.widths = params, config.resolve(rows), rows, widths
        self.schedule = make_schedule(None, self.config.schedule)
        tokens = [width + config.max_new_tokens for width in widths]
        _, numbers = packed([None] * rows, self.config)
        self.state = programs.allocate(
            params, numbers, config=self.config, policy_tokens=tokens[0], value_tokens=tokens[1]
        )
        self.holds: dict[int, int] = {}
        self.pieces: dict[int, list[TokenRecord]] = {}
        self.replies: dict[int, Said] = {}

    def admit(self, placed: Mapping[int, tuple[int, Request]], read_values: bool = True) -> None:
        """Put requests (with numbers of their own) into rows; entry i of the call is row i's."""
        rows, prompts, numbers = self._entries({row: one for row, (_, one) in placed.items()})
        self.state = programs.admit(
            self.params, self.state, rows, prompts, numbers, config=self.config, read_values=read_values
        )
        for row, (number, _) in placed.items():
            self.holds[row], self.pieces[number] = number, []

    def extend(
        self, placed: Mapping[int, tuple[int, Request, tuple[int, int]]], read_values: bool = True
    ) -> None:
        """The same of requests whose first ids, so many of each model's, their rows hold already."""
        rest = {
            row: replace(one, policy_ids=one.policy_ids[kept:], value_ids=one.value_ids[value_kept:])
            for row, (_, one, (kept, value_kept)) in placed.items()
        }
        rows, prompts, numbers = self._entries(rest)
        kept = [[placed[row][2][i] if row in placed else 0 for row in range(self.rows)] for i in (0, 1)]
        self.state = programs.extend(
            self.params,
            self.state,
            rows,
            *kept,
            prompts,
            numbers,
            config=self.config,
            read_values=read_values,
        )
        for row, (number, _, _) in placed.items():
            self.holds[row], self.pieces[number] = number, []

    def _entries(self, placed: Mapping[int, Request]) -> tuple[list[int], Prompt, RowParams]:
        """Entry i of a call is row i's, or padding."""
        rows = [row if row in placed else self.rows for row in range(self.rows)]
        return rows, *packed([placed.get(row) for row in range(self.rows)], self.config, self.widths)

    def fork(self, source: Sequence[int], target: Mapping[int, int], keys: Sequence[jax.Array]) -> None:
        """Copy rows `source` over the rows of `target` (row: number of the copy)."""
        self.state = programs.fork(
            self.state,
            jnp.array(source, jnp.int32),
            jnp.array(list(target), jnp.int32),
            jnp.stack(list(keys)),
            config=self.config,
        )
        for one, (row, number) in zip(source, target.items(), strict=True):
            self.pieces[number] = list(self.pieces[self.holds[one]])
            self.holds[row] = number

    def window(self, steps: int, cancel: Sequence[int] = ()) -> Any:
        """Run one, and take what it says; returns the report, on the host."""
        cancelled = jnp.zeros(self.rows, bool).at[jnp.array(cancel, jnp.int32)].set(True)
        self.state, report = programs.window(
            self.params, self.state, self.schedule, steps, cancelled, config=self.config
        )
        report = jax.device_get(report)
        for row, number in list(self.holds.items()):
            count, reason = int(report.counts[row]), int(report.finish_reason[row])
            self.pieces[number].append(jax.tree.map(lambda x, r=row, n=count: x[r, :n], report.said))
            if reason != FinishReason.RUNNING:
                record = jax.tree.map(lambda *parts: np.concatenate(parts), *self.pieces[number])
                self.replies[number] = Said(
                    replace(record, candidates=None),
                    int(report.lengths[row]),
                    reason,
                    int(report.policy_tokens[row]),
                    int(report.value_tokens[row]),
                )
                del self.holds[row]
        return report

    def run(
        self, steps: Sequence[int], requests: Sequence[Request], at_once: int | None = None
    ) -> list[Said]:
        """All replies: free rows take the next request before each window; lengths of windows go round."""
        waiting = list(enumerate(requests))
        for turn in range(1000):
            free = [row for row in range(self.rows) if row not in self.holds][:at_once]
            placed = {row: waiting.pop(0) for row in free if waiting}
            if placed:
                self.admit(placed)
            if not self.holds:
                return [self.replies[number] for number in range(len(requests))]
            self.window(steps[turn % len(steps)])
        raise AssertionError("the rows did not end")


def assert_same(found: Said, expected: Said, exact: bool = False) -> None:
    """Tokens, flags and counts are equal, and numbers agree: to the last bit, or as two programs do."""
    for name in ("length", "finish_reason", "policy_tokens", "value_tokens"):
        assert getattr(found, name) == getattr(expected, name), name
    n = expected.length
    for name in ("tokens", "junction", "shifted"):
        np.testing.assert_array_equal(
            getattr(found.record, name)[:n], getattr(expected.record, name)[:n], err_msg=name
        )
    for name in ("entropy", "policy_logprob", "logprob", "value"):
        one, other = getattr(found.record, name)[:n], getattr(expected.record, name)[:n]
        if exact:
            assert one.tobytes() == other.tobytes(), name
        else:
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=name)
    assert_same_top(found.record.top, expected.record.top, n, exact=exact)


def assert_same_top(
    found: TopLogprobs | None, expected: TopLogprobs | None, n: int, *, exact: bool = False
) -> None:
    """The likeliest ids of the first n tokens are equal, and their numbers as in `assert_same`."""
    assert (found is None) == (expected is None)
    if found is None or expected is None:
        return
    np.testing.assert_array_equal(found.ids[:n], expected.ids[:n])
    one, other = np.asarray(found.logprobs[:n]), np.asarray(expected.logprobs[:n])
    if exact:
        assert one.tobytes() == other.tobytes(), "top"
    else:
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg="top")
