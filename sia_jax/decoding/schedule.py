"""Schedules: when and how rows that wait at a junction are served: how fast a reply comes, not what it is."""

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self, cast

import jax
import jax.numpy as jnp
import numpy as np

from sia_jax.arguments import check_kind, check_whole
from sia_jax.steering.numbers import Number


class Schedule:
    """One of the two: how steps of the policy and of the value model follow one another."""

    def rows_a_pass(self, batch: int, ratio: float) -> float:
        """How many rows a value pass is laid out for: those that come to a junction in a step, r B.

        Args:
          batch: B, rows.
          ratio: r, the share of positions at which values are read.
        """
        return ratio * batch

    def resolve(self, batch: int, ratio: float) -> Self:
        """This schedule with what was left to the rule filled in.

        Args:
          batch: as of `rows_a_pass`.
          ratio: as of `rows_a_pass`.
        """
        return self


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Burst(Schedule):
    """Policy steps until min(min_waiting, rows still running) rows wait, then one value pass for them.

    For any two models. A pass also comes when the oldest row has waited `max_wait` policy steps, or when no
    row can advance. The numbers are traced: as many calls as there are values share one compiled program.
    """

    min_waiting: Any = None
    """Rows, of all devices, that wait before a value pass runs, unless fewer are left; 1 is the plain order.
    None: 0.6 B sqrt(r), of B rows with junctions at a share r of their tokens."""
    max_wait: Any = 4
    """Policy steps for which a row waits at most while others run."""

    def rows_a_pass(self, batch: int, ratio: float) -> float:
        """Those that wait when a pass comes, or that arrive in a step if they are more."""
        return max(ratio * batch, self._waiting(batch, ratio))

    def resolve(self, batch: int, ratio: float) -> Self:
        """This schedule, `min_waiting` by the rule if it is None.

        Examples:
          >>> Burst().resolve(batch=16, ratio=0.2)
          Burst(min_waiting=4, max_wait=4)
        """
        return replace(self, min_waiting=max(1, round(self._waiting(batch, ratio))))

    def _waiting(self, batch: int, ratio: float) -> float:
        """`min_waiting`, or by the rule 0.6 B sqrt(r).

        With k rows a pass, r B a / k of a step goes into what each pass begins with, of a steps, and a row
        idles for k / 2 B of its time. The sum is least at k = B sqrt(2 a r): a is 0.18 on two CPU cores.
        """
        return 0.6 * batch * math.sqrt(ratio) if self.min_waiting is None else self.min_waiting


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Shared(Schedule):
    """Every step is one pass of both models: the running rows' next tokens, and what those that wait bring.

    For a value model that is a LoRA over the policy's own weights, which are read once for both. Its places
    for spans and candidates are there in each step, filled or not, so that what a row says does not depend on
    who waits beside it. See `sia_jax.decoding.shared`.
    """

    look_ahead: bool = field(default=False, metadata={"static": True})
    """Whether the policy reads the candidates in the same pass: a row that is served then has its next logits
    at once, and a junction costs no step, for as many tokens more as there are candidates to read."""


_NUMBERS = {
    "min_waiting": Number(low=1, whole=True, expected="1 or more"),
    "max_wait": Number(low=0, whole=True, expected="0 or more"),
}


def _numbers_of(schedule: Schedule) -> dict[str, Number]:
    return _NUMBERS if isinstance(schedule, Burst) else {}


def check_schedule(schedule: Any) -> None:
    """A schedule of a configuration: hashable, of Python's whole numbers.

    Raises:
      TypeError: something else than a schedule, or numbers of another kind.
      ValueError: a number out of its range.
    """
    check_kind("schedule", schedule, Schedule, "a schedule such as Burst(min_waiting=2)")
    for name, row in _numbers_of(schedule).items():
        number = getattr(schedule, name)
        if name == "min_waiting" and number is None:
            continue
        check_whole(name, number)
        row.check(name, number)


def make_schedule(given: Any, default: Schedule | None) -> Schedule:
    """The numbers of a call's schedule as typed arrays [], so that no Python number compiles anything.

    Args:
      given: `Knobs.schedule`, whose numbers may be tracers; None: the default, as is a number of None.
      default: of the configuration, resolved.

    Raises:
      TypeError: another kind of schedule than the configuration's, which is another program.
      ValueError: a number out of its range, or no scalar, or another static field.
    """
    assert default is not None, "the configuration is not resolved"
    if given is not None:
        kind = type(default)
        check_kind("knobs.schedule", given, kind, f"a {kind.__name__}, as config.schedule is")
        static = [f.name for f in fields(cast(Any, default)) if f.metadata.get("static")]
        if any(getattr(given, name) != getattr(default, name) for name in static):
            raise ValueError(
                f"knobs.schedule must have the {' and '.join(static)} of config.schedule, {default}, got "
                f"{given}: another is another program"
            )
    numbers = {}
    for name, row in _numbers_of(default).items():
        number = None if given is None else getattr(given, name)
        number = row.check(name, getattr(default, name) if number is None else number)
        if np.shape(number) != ():
            raise ValueError(f"{name} must be a scalar, got shape {np.shape(number)}")
        numbers[name] = jnp.asarray(number, jnp.int32)
    return cast(Schedule, replace(cast(Any, default), **numbers))
