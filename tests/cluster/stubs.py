"""Work of a pool that needs no model: it doubles numbers, and fails as it is told to."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Doubling:
    """What a worker is made of.

    Args:
      dies_at: the number at which the process ends, as if something had killed it.
      once: made then, and a process does not end where it is there; None: each ends.
      wrong: what the worker finds wrong with its files.
      unlike: whether results depend on the process.
      seconds: that a block takes.
      padding: characters beside each result.
    """

    dies_at: int | None = None
    once: str | None = None
    wrong: str | None = None
    unlike: bool = False
    seconds: float = 0.0
    padding: int = 0
    units: int = 4
    calls: int = 1
    smaller: str = "give fewer numbers"

    def make(self) -> "Doubler":
        if self.wrong is not None:
            raise ValueError(self.wrong)
        return Doubler(self, {"process": os.getpid() if self.unlike else "any"})


@dataclass(frozen=True)
class Doubler:
    recipe: Doubling
    made_by: dict[str, Any]

    def work(self, units: Sequence[int]) -> list[tuple[int, str]]:
        time.sleep(self.recipe.seconds)
        if self.recipe.dies_at in units and not (self.recipe.once and Path(self.recipe.once).exists()):
            if self.recipe.once:
                Path(self.recipe.once).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [(2 * unit, "x" * self.recipe.padding) for unit in units]
