"""Records of a comparison, by actors that hold an engine and all that judges replies."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sia_jax.cluster.sampling import check_same
from sia_jax.evaluation.gate_numbers import GateNumbers
from sia_jax.evaluation.judges import JudgeOptions, Loaded, find_judges
from sia_jax.evaluation.methods import Method
from sia_jax.evaluation.record_maker import Asked, RecordMaker, machine
from sia_jax.runs import runner
from sia_jax.runs.compilation_cache import keep_compiled
from sia_jax.runs.options import SamplingArgs
from sia_jax.runs.provenance import made_here


@dataclass(frozen=True)
class Reply:
    """A record that a run lacks.

    Args:
      method: by which it is made.
      seed: under which.
      gate: of the two.
      index: of the prompt.
    """

    method: Method
    seed: int
    gate: GateNumbers
    index: int

    @property
    def key(self) -> tuple[str, int, int]:
        """By which a journal knows the record."""
        return self.method.key, self.seed, self.index


@dataclass(frozen=True)
class ComparingRecipe:
    """What an actor's engine and judges are made of: those of a run without Ray, on the actor's devices.

    Args:
      args: of the run; models where every machine finds them.
      judges: what is judged by; models and modules that every machine has.
      prompts: all of the run's, for engines have rows for the longest.
      batch: replies at a time.
      official: whether records hold what the official form of results tells of a reply.
      commit: that the program was started at.
      settings: of the run, as the driver's models say.
      keeps_compiled: whether what is compiled is kept for the next process.
      smaller: what makes the work smaller where the memory is full.
    """

    args: SamplingArgs
    judges: JudgeOptions
    prompts: Sequence[Asked]
    batch: int
    official: bool
    commit: str
    settings: Mapping[str, Any]
    keeps_compiled: bool
    smaller: str
    calls: int = 1

    @property
    def units(self) -> int:
        """Replies of a block, so that the rows of an engine are full but for its end."""
        return 2 * self.batch

    def make(self) -> "Comparer":
        """Load all models.

        Raises:
          FileNotFoundError, ValueError: models or modules that are not here, or others than the driver's; a
            mesh of other devices than this actor's.
          MissingExtraError: a function's package is missing.
        """
        if self.keeps_compiled:
            keep_compiled()
        judges = find_judges(self.judges)
        check_same(runner.run_identity(self.args) | judges.settings(), self.settings)
        maker = RecordMaker(
            Loaded.of(self.args, judges),
            judges,
            self.args,
            self.prompts,
            self.batch,
            lambda _: nullcontext(),
            made={"commit": self.commit, "machine": machine(self.args)},
            official=self.official,
        )
        rows = runner.whole_rows(self.args, self.batch)
        return Comparer(maker, made_here(rows=rows, mesh=list(self.args.mesh)))


@dataclass(frozen=True)
class Comparer:
    """A recipe's models.

    Args:
      maker: of records.
      made_by: what records' bits depend on.
    """

    maker: RecordMaker
    made_by: dict[str, Any]

    def work(self, units: Sequence[Reply]) -> list[dict[str, Any]]:
        """The records of a block, method by method as they stand in it."""
        found = []
        for (method, seed, gate), own in groupby(units, lambda unit: (unit.method, unit.seed, unit.gate)):
            for records in self.maker.run((method, seed), gate, [unit.index for unit in own]):
                found += records
        return found
