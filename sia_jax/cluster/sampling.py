"""Replies to prompts, by actors that hold an engine."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np

import sia_jax
from sia_jax.data.prompts import PromptLine
from sia_jax.runs import runner
from sia_jax.runs.compilation_cache import keep_compiled
from sia_jax.runs.engines import Row, completed, make_base, make_engine, missing_replies
from sia_jax.runs.options import SamplingArgs
from sia_jax.runs.prompt_ids import key_of_draws
from sia_jax.runs.provenance import made_here

_REPLIES = 2
"""Of a block, for each row of an engine: while the last of one block end, those of the next begin."""


@dataclass(frozen=True)
class Unit:
    """Replies to a prompt that a run lacks.

    Args:
      prompt: without its text and ids.
      method: "base" or "steered", which engine makes them.
      branches: which replies.
      policy_ids: int32 [P], what the policy reads.
      value_ids: int32 [Q], what the value model reads.
      draws: of `sia_jax.runs.prompt_ids.draws_of`.
      threshold: nats.
    """

    prompt: PromptLine
    method: str
    branches: tuple[int, ...]
    policy_ids: np.ndarray
    value_ids: np.ndarray
    draws: str
    threshold: float

    @staticmethod
    def of(
        prompt: PromptLine,
        method: str,
        branches: tuple[int, ...],
        policy_ids: Sequence[int],
        value_ids: Sequence[int],
        draws: str,
        threshold: float,
    ) -> "Unit":
        """The unit of a prompt as it was read; the arguments are its own."""
        slim = replace(prompt, messages=None, policy_ids=None, value_ids=None)
        read, valued = (np.asarray(ids, np.int32) for ids in (policy_ids, value_ids))
        return Unit(slim, method, branches, read, valued, draws, threshold)


@dataclass(frozen=True)
class Made:
    """A reply.

    Args:
      key: its prompt's index, its branch and the method.
      reply: as of `Reply.to_json`.
    """

    key: tuple[int, int, str]
    reply: dict[str, Any]


@dataclass(frozen=True)
class SamplingRecipe:
    """What an actor's engine is made of: that of a run without Ray, on the actor's devices.

    Args:
      args: of the run; models where every machine finds them.
      samples: replies to each prompt.
      rows: replies at a time.
      longest: ids of the longest prompt of the whole input.
      methods: "base", "steered" or both.
      record: "candidates" records them.
      settings: of the run, as the driver's models say.
      keeps_compiled: whether what is compiled is kept for the next process.
      smaller: what makes the work smaller where the memory is full.
    """

    args: SamplingArgs
    samples: int
    rows: int
    longest: int
    methods: tuple[str, ...]
    record: Literal["candidates"] | None
    settings: Mapping[str, Any]
    keeps_compiled: bool
    smaller: str
    calls: int = 2

    @property
    def units(self) -> int:
        """Prompts of a block."""
        return max(1, _REPLIES * self.rows // self.samples)

    def make(self) -> "Sampler":
        """Load the models into engines.

        Raises:
          FileNotFoundError, ValueError: models that are not here, or others than the driver's; a mesh of
            other devices than this actor's.
        """
        if self.keeps_compiled:
            keep_compiled()
        check_same(runner.run_identity(self.args), self.settings)
        models = runner.load_models(self.args)
        ids = [0] * self.longest  # all that an engine asks of prompts is their length
        rows = [Row(ids, ids, runner.own_key(0), runner.threshold(self.args))]
        engine = make_engine(models, self.args, self.rows, rows, record=self.record)
        engines = dict.fromkeys(self.methods, engine)
        if len(self.methods) > 1:
            unsteered = [Row(ids, ids, runner.own_key(0), math.inf)]
            engines["base"] = make_base(engine, models, self.args, unsteered, record=self.record)
        made_by = made_here(rows=engine.rows, mesh=list(self.args.mesh))
        return Sampler(self, engines, made_by)


@dataclass(frozen=True)
class Sampler:
    """A recipe's engines.

    Args:
      recipe: what they were made of.
      engines: by the method.
      made_by: what replies' bits depend on.
    """

    recipe: SamplingRecipe
    engines: Mapping[str, sia_jax.Engine]
    made_by: dict[str, Any]

    def work(self, units: Sequence[Unit]) -> list[Made]:
        """All replies to a block of prompts; from several threads at a time, which share the rows."""
        return [made for method in self.engines for made in self._replies(method, units)]

    def _replies(self, method: str, units: Sequence[Unit]) -> list[Made]:
        own, args = [unit for unit in units if unit.method == method], self.recipe.args
        rows = [self._row(unit) for unit in own]
        missing = missing_replies(rows, args, self.recipe.samples, lambda i, j: j not in own[i].branches)
        return [
            Made((own[place].prompt.index, branch, method), reply.to_json())
            for place, branch, reply in completed(self.engines[method], missing)
        ]

    def _row(self, unit: Unit) -> Row:
        key = key_of_draws(unit.prompt, unit.draws, self.recipe.args.seed, self.recipe.samples)
        return Row(unit.policy_ids.tolist(), unit.value_ids.tolist(), key, unit.threshold)


def sampling_args(args: SamplingArgs) -> SamplingArgs:
    """The options of a program that its engines depend on, as every machine knows their class."""
    return SamplingArgs(**{field.name: getattr(args, field.name) for field in fields(SamplingArgs)})


def check_same(here: Mapping[str, Any], driver: Mapping[str, Any]) -> None:
    """The models of this machine are those of the driver's.

    Args:
      here: settings as this machine's files say.
      driver: of the run; it may have more.

    Raises:
      ValueError: they are not, and which differ.
    """
    for name, value in here.items():
        if name in driver and driver[name] != value:
            raise ValueError(
                f"{name} is {value!r} on its machine and {driver[name]!r} where the program was started; all"
                " machines must have the same models and modules at the same paths"
            )
