"""Schedules: when rows that wait at a junction are served; how fast a reply comes, and never what it is."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sia_jax.arguments import check_kind, check_whole
from sia_jax.steering.numbers import Number


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Burst:
    """Policy steps until min(min_waiting, rows still running) rows wait, then one value pass for them.

    A pass also comes when the oldest row has waited `max_wait` policy steps, or when no row can advance. The
    numbers are traced: as many calls as there are values share one compiled program.
    """

    min_waiting: Any = None
    """Rows, of all devices, that wait before a value pass runs, unless fewer are left; 1 is the plain order.
    None: the rule of `SamplerConfig.auto`."""
    max_wait: Any = 4
    """Policy steps for which a row waits at most while others run."""

    def resolve(self, arrivals: float) -> "Burst":
        """This schedule with what was left to the rule filled in.

        Args:
          arrivals: r B, the rows that come to a junction in a policy step. A pass for fewer would be filled
            with padding; for more, rows would idle, and a row that waits costs as much as one that speaks.
        """
        if self.min_waiting is not None:
            return self
        return replace(self, min_waiting=max(1, round(arrivals)))


_NUMBERS = {
    "min_waiting": Number(low=1, whole=True, expected="1 or more"),
    "max_wait": Number(low=0, whole=True, expected="0 or more"),
}


def check_schedule(schedule: Any) -> None:
    """A schedule of a configuration: hashable, of Python's whole numbers.

    Raises:
      TypeError: something else than a schedule, or numbers of another kind.
      ValueError: a number out of its range.
    """
    check_kind("schedule", schedule, Burst, "a schedule such as Burst(min_waiting=2)")
    for name, row in _NUMBERS.items():
        number = getattr(schedule, name)
        if name == "min_waiting" and number is None:
            continue
        check_whole(name, number)
        row.check(name, number)


def make_schedule(given: Any, default: Burst) -> Burst:
    """The numbers of a call's schedule as typed arrays [], so that no Python number compiles anything.

    Args:
      given: `Knobs.schedule`, whose numbers may be tracers; None: the default, as is a number of None.
      default: of the configuration, resolved.

    Raises:
      TypeError: another kind of schedule than the configuration's.
      ValueError: a number out of its range, or no scalar.
    """
    if given is not None:
        kind = type(default)
        check_kind("knobs.schedule", given, kind, f"a {kind.__name__}, as config.schedule is")
    numbers = {}
    for name, row in _NUMBERS.items():
        number = None if given is None else getattr(given, name)
        number = row.check(name, getattr(default, name) if number is None else number)
        if np.shape(number) != ():
            raise ValueError(f"{name} must be a scalar, got shape {np.shape(number)}")
        numbers[name] = jnp.asarray(number, jnp.int32)
    return Burst(**numbers)
