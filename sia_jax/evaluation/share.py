"""What a run does of a comparison: all of it, or the share of a shard.

A shard replies to its prompts by all methods whose gates are known, into a part of the file of replies. What
lies in the file itself, of a merge or of an earlier run, is done, and is only read. A random gate takes the
share that the entropy gate of its ratio came to over all prompts, which no shard knows before the parts are
merged: it waits for the next round, in which all shards read the same merged file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia_jax.data.row_files import put_in_order
from sia_jax.evaluation.gate_numbers import GateNumbers
from sia_jax.evaluation.records import GROWS, Records, Unit
from sia_jax.runs.journal import Journal
from sia_jax.runs.parts import Part, Work
from sia_jax.runs.shards import Shard

FILE = "replies.jsonl"
"""Of all records, in the folder of the results."""

PROGRAM = "decode.evaluate"


@dataclass(frozen=True)
class Share:
    """What one run does.

    Args:
      records: all that are there, whoever made them.
      journal: where the run's own go.
      units: that the run has prompts of; of a shard, those whose gates are known.
      later: those that wait for the next round.
      places: of the run's prompts among all.
      part: of a shard.
    """

    records: Records
    journal: Journal
    units: Sequence[Unit]
    later: Sequence[Unit]
    places: Sequence[int]
    part: Part | None = None

    def missing(self, unit: Unit) -> list[int]:
        """Indices of the run's prompts without a record."""
        return [index for index in self.records.missing(unit) if index in self.places]

    @property
    def total(self) -> int:
        """Records of the run's prompts, made by whomever."""
        return len(self.units) * len(self.places)

    @property
    def lacking(self) -> int:
        """Records that the run has to make."""
        return sum(len(self.missing(unit)) for unit in self.units)

    @property
    def work(self) -> float:
        """The same, in unsteered replies."""
        return sum(unit[0].work * len(self.missing(unit)) for unit in self.units)

    def gate(self, unit: Unit) -> GateNumbers:
        """The gate of a unit.

        Raises:
          ValueError: replies that are there were made with another one.
        """
        return _gate(self.records, unit, self.journal.path)

    def finish(self) -> None:
        """Put the part of a shard, which has all its records, in order, and say that it is whole."""
        assert self.part is not None
        if not self.journal.begun:
            with self.journal:  # of a shard that had nothing to do: the file is there, and has whole lines
                pass
        places = {(method.key, seed): place for place, (method, seed) in enumerate(self.units)}

        def order(record: dict[str, Any]) -> tuple[int, int, str, int]:
            own = record["method"], record["seed"]
            return record["index"], places.get(own, len(places)), *own

        put_in_order(self.journal.path, order)
        self.part.end()


def share_file(out: Path, shard: Shard | None) -> Path:
    """Where a run writes records.

    Args:
      out: the folder of the results.
      shard: None: the run does all.
    """
    return out / FILE if shard is None else shard.part_of(out / FILE)


def whole_share(out: Path, settings: dict[str, Any], records: Records, *, overwrite: bool) -> Share:
    """All of a comparison.

    Args:
      out: the folder of the results.
      settings: of the run.
      records: gets those that are there.
      overwrite: begin anew, whatever is there.

    Raises:
      ValueError: what is there is of another run.
    """
    journal = Journal(out / FILE, settings, records.take, overwrite=overwrite, varying=GROWS)
    return Share(records, journal, records.units, (), range(len(records.ids)))


def shard_share(
    out: Path,
    shard: Shard,
    settings: dict[str, Any],
    records: Records,
    *,
    made_by: dict[str, Any],
    overwrite: bool,
    check: Callable[[Path], None],
) -> Share:
    """The share of a shard, whose part says from now on that it is not whole.

    Args:
      out: the folder of the results.
      shard: which.
      settings: of the run.
      records: gets those that are there.
      made_by: what their bits depend on beside the settings.
      overwrite: begin anew, whatever is there, the merged file included.
      check: what else is wrong with records that are there; given the file, raises ValueError.

    Raises:
      ValueError: what is there is of another run, or was made in another way.
    """
    if not overwrite:
        Journal(out / FILE, settings, records.take, varying=GROWS)  # read, and never written
        check(out / FILE)
    # By the merged file alone: the shards of a round do the same units.
    ready = [unit for unit in records.units if records.is_ready(unit)]
    later = [unit for unit in records.units if unit not in ready]
    path = share_file(out, shard)
    journal = Journal(path, settings, records.take, overwrite=overwrite, varying=GROWS)
    check(path)
    gates = {unit: _gate(records, unit, path) for unit in ready}
    work = Work(
        PROGRAM,
        settings,
        made_by,
        ("index", "id"),
        ("method", "seed"),
        [*enumerate(records.ids)],
        [(method.key, seed) for method, seed in ready],
        GROWS,
        {f"{method.key}, seed {seed}": gate.to_json() for (method, seed), gate in gates.items()},
    )
    part = Part(path, work, shard, "remove it if it is merged")
    part.begin(has_records=len(journal.done) > 0, overwrite=overwrite)
    return Share(records, journal, ready, later, shard.places(len(records.ids)), part)


def waiting_text(units: Sequence[Unit]) -> str:
    """Which units wait for the next round: 'random 20% under seeds 0, 1; random 40% under seed 0'.

    Args:
      units: the waiting ones.
    """
    seeds: dict[str, list[int]] = {}
    for method, seed in units:
        seeds.setdefault(method.name, []).append(seed)
    told = (
        f"{name} under seed{'s' * (len(own) > 1)} {', '.join(map(str, own))}" for name, own in seeds.items()
    )
    return "; ".join(told)


def _gate(records: Records, unit: Unit, path: Path) -> GateNumbers:
    try:
        return records.gate(unit)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; name another folder, or pass --overwrite") from None
