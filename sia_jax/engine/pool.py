"""Rows of one length on the device, driven from the host: who comes into which row, and what rows say.

The host knows of the device what reports tell it. One window runs while the last one's report is worked on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sia_jax.decoding import window as programs
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.params import SteeringParams
from sia_jax.decoding.prompt import Prompt
from sia_jax.decoding.schedule import make_schedule
from sia_jax.decoding.state import DecodeState, FinishReason, empty_record
from sia_jax.decoding.window import Report
from sia_jax.engine.job import Job, stacked
from sia_jax.steering.types import TokenRecord

SMALLEST_BUCKET = 16
"""Ids of the smallest buffer of prompts."""


@dataclass(frozen=True)
class Entry:
    """A request on its way into a row."""

    row: int
    job: Job
    key: np.ndarray  # [2]
    kept: tuple[int, int] = (0, 0)
    """Ids of the prompts of policy and value model that the row holds already."""

    @property
    def unread(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids of both prompts that are to be read; of the value model's, where it reads none, any one."""
        value_ids = self.job.value_ids[self.kept[1] :] if self.job.reads_values else self.job.value_ids[:1]
        return self.job.policy_ids[self.kept[0] :], value_ids


@dataclass(frozen=True)
class Held:
    """What a free row still has of the reply that ended there."""

    policy_ids: np.ndarray  # prompt and reply
    value_ids: np.ndarray
    policy_held: int
    """Of them in the policy's cache, from the first on."""
    value_held: int
    since: float
    """When the reply ended."""

    def keepable(self, job: Job) -> tuple[int, int]:
        """Ids of a request's prompts that need not be read again."""
        return (
            programs.keepable(self.policy_held, self.policy_ids, job.policy_ids),
            programs.keepable(self.value_held, self.value_ids, job.value_ids),
        )


class Kind(NamedTuple):
    """Which program admits a request."""

    bucket: int
    """Ids of its buffers."""
    reads_values: bool
    extends: bool
    """Whether the row holds the beginning of the prompt."""


@dataclass(eq=False)
class Pool:
    """B rows that hold `length` tokens of prompt and reply each.

    Buffers of prompts are of few lengths, and each takes so many requests at a time as make
    `admission_tokens` ids; so the programs are few, and which of them a request runs in does not depend on
    what else is there.
    """

    params: SteeringParams
    config: SamplerConfig
    """Resolved."""
    length: int
    rows: int
    blank: Job
    """What an entry without a request holds."""
    admission_tokens: int
    prompt_lengths: tuple[int, ...] | None = None
    """Ids of the buffers of prompts; None: 16, 32, 64, ... Up to the rows' length, which is always one."""
    state: DecodeState | None = None
    """None: not allocated yet."""
    report: Report | None = None
    """Of the window that was dispatched last; None: none is under way."""
    alive: np.ndarray = field(init=False)
    """[B] whether the device is still at the row's reply, as far as the host knows."""
    held: list[Held | None] = field(init=False)
    """By row, of free ones."""
    compiled: set[Kind] = field(default_factory=set)
    """The admissions that have run."""

    def __post_init__(self) -> None:
        self.alive = np.zeros(self.rows, bool)
        self.held = [None] * self.rows
        self._schedule = make_schedule(None, self.config.schedule)

    @property
    def buckets(self) -> list[int]:
        """Ids of the buffers of prompts."""
        if self.prompt_lengths is not None:
            return [*(size for size in self.prompt_lengths if size < self.length), self.length]
        sizes = [SMALLEST_BUCKET]
        while sizes[-1] < self.length:
            sizes.append(2 * sizes[-1])
        return [min(size, self.length) for size in sizes]

    def bucket_of(self, entry: Entry) -> int:
        """Ids of the buffers that what is to be read goes into."""
        longest = max(map(len, entry.unread))
        return next(size for size in self.buckets if longest <= size)

    def kind_of(self, entry: Entry) -> Kind:
        """Which program admits it."""
        return Kind(self.bucket_of(entry), entry.job.reads_values, entry.kept != (0, 0))

    def kinds(self, jobs: Sequence[Job] | None, *, extending: bool) -> list[Kind]:
        """The programs that admit these requests, whatever rows hold; those that read whole prompts first.

        Args:
          jobs: of rows of any length; None: all that there may be.
          extending: whether requests go on from what rows hold.
        """
        if jobs is None:
            reads = (True, False) if self.config.value_passes else (False,)
            asked = {(bucket, read) for bucket in self.buckets for read in reads}
        else:
            own = [job for job in jobs if job.length == self.length]
            asked = {(self.bucket_of(Entry(0, job, job.keys[0])), job.reads_values) for job in own}
        rest = {(b, read) for whole, read in asked for b in self.buckets if extending and _pays(b, whole)}
        return [
            *(Kind(*one, extends=False) for one in sorted(asked)),
            *(Kind(*one, extends=True) for one in sorted(rest)),
        ]

    def choose(self, job: Job, key: np.ndarray, free: Sequence[int], *, copied: bool) -> Entry:
        """Where a request goes, as rows stand.

        It is the row that saves most reading, if that is half of it or more; else one that holds nothing, or
        what has not been wanted for longest.

        Args:
          job: the request.
          key: [2] of this reply to it.
          free: rows, one at least.
          copied: the row is copied from another, and nothing is read.
        """
        chosen = Entry(min(free, key=self._held_since), job, key)
        holding = [(row, held) for row in free if (held := self.held[row]) is not None]
        if holding and not copied:
            entries = [Entry(row, job, key, held.keepable(job)) for row, held in holding]
            best = min(entries, key=self.bucket_of)
            if _pays(self.bucket_of(best), self.bucket_of(chosen)):
                chosen = best
        return chosen

    def place(self, job: Job, key: np.ndarray, free: list[int], *, copied: bool) -> Entry:
        """Take the row that `choose` says out of the free ones."""
        chosen = self.choose(job, key, free, copied=copied)
        free.remove(chosen.row)
        self.held[chosen.row] = None
        return chosen

    def _held_since(self, row: int) -> float:
        held = self.held[row]
        return -math.inf if held is None else held.since

    def entries(self, bucket: int) -> int:
        """N, requests that are admitted at a time; a multiple of the mesh's groups."""
        groups = self.config.row_groups
        return groups * max(1, min(self.rows, self.admission_tokens // bucket) // groups)

    def group(self, row: int) -> int:
        """The group of devices that holds a row."""
        return row // (self.rows // self.config.row_groups)

    def allocate(self) -> None:
        """Make room on the device, unless it is there."""
        if self.state is not None:
            return
        state = programs.allocate(
            self.params,
            stacked([self.blank.numbers] * self.rows),
            config=self.config,
            policy_tokens=self.length,
            value_tokens=self.length,
        )
        if self.config.mesh is None:
            # As the state that a window returns is, over weights that are. One that is not committed to its
            # device is another kind of argument, for which all would be compiled twice.
            state = jax.device_put(state, jax.tree.leaves(self.params.policy)[0].sharding)
        self.state = state

    def admit(self, entries: Sequence[Entry]) -> int:
        """Put requests into rows, whatever these held; returns how many calls that took.

        Args:
          entries: of rows that nobody uses.
        """
        waiting: dict[tuple[Kind, int], list[Entry]] = {}
        for entry in entries:
            waiting.setdefault((self.kind_of(entry), self.group(entry.row)), []).append(entry)
        calls = 0
        for kind in dict.fromkeys(kind for kind, _ in waiting):
            groups = [waiting.get((kind, g), []) for g in range(self.config.row_groups)]
            own = self.entries(kind.bucket) // self.config.row_groups
            while any(groups):
                self._admit([group[:own] for group in groups], kind)
                groups = [group[own:] for group in groups]
                calls += 1
            self.compiled.add(kind)
        for entry in entries:
            self.alive[entry.row] = True
        return calls

    def _admit(self, groups: Sequence[Sequence[Entry]], kind: "Kind") -> None:
        """One call: the entries of each group of devices, filled up with blanks."""
        own = self.entries(kind.bucket) // self.config.row_groups
        nobody = Entry(self.rows, self.blank, self.blank.keys[0])
        filled = [entry for group in groups for entry in [*group, *[nobody] * (own - len(group))]]
        keys: Any = np.stack([entry.key for entry in filled])
        numbers = replace(stacked([entry.job.numbers for entry in filled]), keys=keys)
        rows = np.array([entry.row for entry in filled], np.int32)
        prompts = _prompts(filled, kind.bucket)
        options: Any = {"config": self.config, "read_values": kind.reads_values}
        assert self.state is not None
        if kind.extends:
            policy, value = np.array([entry.kept for entry in filled], np.int32).T
            self.state = programs.extend(
                self.params, self.state, rows, policy, value, prompts, numbers, **options
            )
        else:
            self.state = programs.admit(self.params, self.state, rows, prompts, numbers, **options)

    def fork(self, source: Sequence[int], target: Sequence[int], keys: Sequence[np.ndarray]) -> None:
        """Copy rows over others, under other keys, as many pairs at a time as there are rows."""
        assert self.state is not None
        room = self.rows - len(source)
        self.state = programs.fork(
            self.state,
            np.array([*source, *[0] * room], np.int32),
            np.array([*target, *[self.rows] * room], np.int32),
            np.stack([*keys, *[np.zeros(2, np.uint32)] * room]),
            config=self.config,
        )
        self.alive[list(target)] = True

    def dispatch(self, steps: int, cancel: np.ndarray) -> None:
        """Begin a window.

        Args:
          steps: policy steps at most.
          cancel: [B] rows whose replies nobody waits for any more.
        """
        assert self.state is not None
        assert self.report is None
        self.state, self.report = programs.window(
            self.params, self.state, self._schedule, np.int32(steps), cancel, config=self.config
        )
        self.alive &= ~cancel

    def read(self) -> Report | None:
        """The report of the window that is under way, on the host, once it is there; None: there is none."""
        if self.report is None:
            return None
        report: Report = jax.device_get(self.report)
        self.report = None
        self.alive &= report.finish_reason == FinishReason.RUNNING
        return report

    @cached_property
    def empty_record(self) -> TokenRecord:
        """[0] of a reply that says nothing; made once, and without a program of its own."""
        recorded = self.config.steering.num_candidates if self.config.record == "candidates" else None
        shapes = jax.eval_shape(lambda: empty_record(1, 0, recorded, self.config.top_logprobs))
        of_row: TokenRecord = jax.tree.map(lambda x: np.zeros(x.shape[1:], x.dtype), shapes)
        return of_row

    def free(self) -> None:
        """Let go of all that is on the device."""
        self.state = self.report = None

    def compile(self, kinds: Sequence["Kind"], *, forks: bool) -> None:
        """Run every program once, on nobody's behalf, with no row in use.

        Args:
          kinds: of admissions that are to be compiled.
          forks: whether to compile `fork`.
        """
        self.read()  # of a window in which nobody's reply was left
        self.allocate()
        for kind in kinds:
            self._admit([[]] * self.config.row_groups, kind)
        if forks:
            self.fork([], [], [])
        self.dispatch(1, np.zeros(self.rows, bool))
        self.read()
        self.compiled.update(kinds)


def _pays(rest: int, whole: int) -> bool:
    """Whether a row is gone on from: buffers of `rest` ids are read instead of `whole`."""
    return 2 * rest <= whole


def _prompts(entries: Sequence[Entry], bucket: int) -> Prompt:
    """The ids of a call that are read, padded to the bucket."""
    arrays: list[Any] = []
    for ids in zip(*[entry.unread for entry in entries], strict=True):
        padded = np.zeros((len(entries), bucket), np.int32)
        for row, own in zip(padded, ids, strict=True):
            row[: len(own)] = own
        arrays += [padded, np.array([len(own) for own in ids], np.int32)]
    return Prompt(*arrays)


def state_bytes(pool: Pool) -> int:
    """Bytes of a pool's state, on all devices together; nothing is allocated."""
    shapes = jax.eval_shape(
        lambda params, numbers: programs.allocate(
            params,
            numbers,
            config=pool.config,
            policy_tokens=pool.length,
            value_tokens=pool.length,
        ),
        pool.params,
        jax.tree.map(jnp.asarray, stacked([pool.blank.numbers] * pool.rows)),
    )
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
