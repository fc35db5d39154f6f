"""Methods of several evaluations beside one another: with other value models, tilts or strengths.

What can be paired is paired: the evaluations replied to the same prompts under the same seeds, and the same
rewards judge them all.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia_jax.evaluation.claims import MARGIN
from sia_jax.evaluation.comparison import Comparison, Measure, Measured, Record, tokens_per_second
from sia_jax.evaluation.methods import Method
from sia_jax.evaluation.records import check_record
from sia_jax.evaluation.search.expressions import parse_search
from sia_jax.evaluation.statistics import Interval
from sia_jax.files.reading import check_file, read_bytes
from sia_jax.files.shown import shown_value
from sia_jax.files.strict_json import parse_object, stream_lines
from sia_jax.runs.rewards import SETTINGS
from sia_jax.steering.numbers import with_absent

SHARED = ("prompts_sha256", "reward_fingerprint", *SETTINGS, "gold")
"""Settings in which evaluations that are compared are alike."""
_OF_FILES = ("_fingerprint", "_files")


@dataclass(frozen=True, eq=False)
class Entry:
    """One method of one evaluation."""

    folder: str
    """Name of the evaluation's folder."""
    settings: dict[str, Any]
    """Of the evaluation."""
    measured: Measured

    @property
    def key(self) -> str:
        """'additive/entropy-0.2': the folder's name and the method's key."""
        return f"{self.folder}/{self.measured.method.key}"

    @property
    def tokens_per_second(self) -> float | None:
        """Of the replies that were chosen, over the time of all that the method did."""
        seconds = sum(record["seconds"] for record in self.measured.records)
        return tokens_per_second(self.measured.tokens, seconds)

    @property
    def flops_per_token(self) -> float:
        """Of all models, for each token of the replies that were chosen; without padding."""
        total = sum(sum(record["flops"].values()) for record in self.measured.records)
        return float(total) / max(self.measured.tokens, 1)

    @property
    def contenders(self) -> float | None:
        """Candidates of a steered token that may win under a bounded tilt; None where all are read.

        Those that were read, and one for each token that was decided without. At a reply's first token V(s)
        is the mean of all values, which are read: it counts with all of them.
        """
        read, decided, junctions = (
            sum(record.get(name, 0) for record in self.measured.records)
            for name in ("values_read", "sampled_decided", "sampled_junctions")
        )
        return (read + decided) / junctions if decided else None


class SideBySide:
    """The methods of some evaluations, in the order of the folders.

    Args:
      folders: of `decode.evaluate`, complete ones, whose names differ.
      resamples: of the bootstrap.

    Raises:
      FileNotFoundError, ValueError: what is wrong with a folder, or in what two of them are not alike.
    """

    def __init__(self, folders: Sequence[Path], *, resamples: int = 10_000):
        names = [folder.name for folder in folders]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"expected folders of different names, got {', '.join(names) or 'none'}")
        self.entries: list[Entry] = []
        self.commits: set[str] = set()
        self.machines: set[str] = set()
        for folder in folders:
            self._take(folder)
        first = self.entries[0]
        self._check_alike(first)
        self._comparison = Comparison(
            [first.measured.method],
            {first.measured.method.key: first.measured.records},
            resamples=resamples,
        )
        self.measures = self._comparison.measures

    @property
    def differing(self) -> list[str]:
        """The settings that tell the evaluations apart, but for fingerprints of what their names tell."""
        names = dict.fromkeys(name for entry in self.entries for name in entry.settings)
        return [
            name
            for name in names
            if not name.endswith(_OF_FILES)
            and len({repr(entry.settings.get(name)) for entry in self.entries}) > 1
        ]

    def find(self, key: str) -> Entry:
        """The entry of a key.

        Raises:
          ValueError: there is none.
        """
        for entry in self.entries:
            if entry.key == key:
                return entry
        raise ValueError(f"there is no {key!r}, only {', '.join(entry.key for entry in self.entries)}")

    def mean(self, one: Entry, measure: Measure) -> Interval:
        """Of an entry's rewards."""
        return self._comparison.mean(one.measured, measure)

    def difference(self, one: Entry, other: Entry, measure: Measure) -> Interval:
        """By how much an entry earns more than another, paired by prompt and seed."""
        return self._comparison.difference(one.measured, other.measured, measure)

    def kept(self, one: Entry, rival: Entry, measure: Measure) -> Interval | None:
        """By how much an entry earns more than nine tenths of what its rival gains over the base.

        None without a base among the entries. As `sia_jax.evaluation.claims` has it: above 0 the rival is
        matched.
        """
        base = next((entry for entry in self.entries if entry.measured.method.key == "base"), None)
        if base is None:
            return None
        needed = (1 - MARGIN) * rival.measured.rewards(measure) + MARGIN * base.measured.rewards(measure)
        return self._comparison.beyond(one.measured, needed, measure)

    def _take(self, folder: Path) -> None:
        results = folder / "results.json"
        remedy = "run decode.evaluate to its end"
        whole = parse_object(read_bytes(results, "results of an evaluation", remedy), str(results))
        try:
            methods = [_method_of(row) for row in whole["rows"]]
            settings, seeds, count = whole["settings"], whole["seeds"], whole["prompts"]["count"]
            settings = with_absent(settings)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{results}: this is no results.json of decode.evaluate ({error}); {remedy}"
            ) from None
        found = self._records(folder, gold=bool(settings.get("gold")))
        for method in methods:
            records = sorted(found[method.key], key=lambda record: (record["index"], record["seed"]))
            pairs = [(record["index"], record["seed"]) for record in records]
            if pairs != [(index, seed) for index in range(count) for seed in sorted(seeds)]:
                raise ValueError(f"{folder}: {method.name} has not one reply to each prompt under each seed")
            self.entries.append(Entry(folder.name, settings, Measured(method, records)))

    def _records(self, folder: Path, *, gold: bool) -> dict[str, list[Record]]:
        file = folder / "replies.jsonl"
        check_file(file, "file of replies", "run decode.evaluate to its end")
        found: dict[str, list[Record]] = defaultdict(list)
        with file.open("rb") as lines:
            for number, line in stream_lines(lines, str(file)):
                place = f"{file}, line {number}"
                record = parse_object(line, place, is_line=True)
                try:
                    check_record(record, gold=gold)
                except (KeyError, TypeError, ValueError) as error:
                    raise ValueError(f"{place}: this is no reply of decode.evaluate ({error})") from None
                self.commits.add(record["commit"])
                self.machines.add(record["machine"])
                found[record["method"]].append(record)
        return found

    def _check_alike(self, first: Entry) -> None:
        pairs = [(record["index"], record["seed"]) for record in first.measured.records]
        for entry in self.entries:
            for name in SHARED:
                ours, theirs = first.settings.get(name), entry.settings.get(name)
                if ours != theirs:
                    raise ValueError(
                        f"{entry.folder} has {name} {shown_value(theirs, 60)}, and {first.folder} "
                        f"{shown_value(ours, 60)}: their replies are no pairs"
                    )
            if [(record["index"], record["seed"]) for record in entry.measured.records] != pairs:
                raise ValueError(
                    f"{entry.folder} has other seeds or numbers of prompts than {first.folder}: their "
                    "replies are no pairs"
                )


def _method_of(row: dict[str, Any]) -> Method:
    search = None if "search" not in row or row["search"] is None else parse_search(row["search"])
    method = Method(row["kind"], row["asked_ratio"], row["n"], row["chooser"], search, row.get("bound"))
    if method.key != row["key"]:
        raise ValueError(f"{shown_value(row['key'], 60)} is no key of {method}")
    return method
