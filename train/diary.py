"""The diary of a program that goes through stages, each of which is a program that can go on by itself."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sia_jax.checkpoints.values import is_number
from sia_jax.files.lock import LOCK
from sia_jax.files.reading import read_object
from sia_jax.files.shown import shown_value
from sia_jax.files.writing import UNFINISHED, write_text
from sia_jax.runs.console import Terminal

REMEDY = "name another --out"


@dataclass
class Diary:
    """Which stages are done, by which software, how long they took, and under which settings."""

    path: Path
    what: str
    """That is made: "world"."""
    settings: dict[str, object]
    seconds: dict[str, float] = field(default_factory=dict)
    made_by: dict[str, str] = field(default_factory=dict)
    """Of each stage; not of "begun", the time of those that were interrupted."""

    @classmethod
    def of(cls, path: Path, what: str, settings: dict[str, object]) -> "Diary":
        """The diary in a folder, or a new one.

        Args:
          path: of the diary, in the folder that everything is made in.
          what: is made.
          settings: JSON.

        Raises:
          OSError, ValueError: the folder holds one of other settings, or something else.
        """
        diary, folder = cls(path, what, settings), path.parent
        if path.exists():
            diary._go_on(read_object(path, f"diary of {_a(what)}", REMEDY))
        elif folder.exists() and any(map(_is_foreign, folder.iterdir())):
            raise ValueError(f"{folder} holds something else than {_a(what)}; {REMEDY}")
        return diary

    def _go_on(self, found: dict[str, Any]) -> None:
        """Take over what a diary says.

        Raises:
          ValueError: it is the diary of something of other settings, or none.
        """
        settings, seconds, made_by = found.get("settings"), found.get("seconds"), found.get("made_by", {})
        if not (
            (isinstance(settings, dict) and isinstance(seconds, dict) and isinstance(made_by, dict))
            and all(map(is_number, seconds.values()))
            and all(isinstance(by, str) for by in made_by.values())
        ):
            raise ValueError(
                f"{self.path}: expected the settings, seconds and made_by of {_a(self.what)}, got "
                f"{shown_value(found, 100)}; {REMEDY}"
            )
        if differing := _differing(settings, self.settings):
            changes = ", ".join(
                f"{name} {shown_value(settings.get(name))} (now {shown_value(self.settings.get(name))})"
                for name in differing
            )
            raise ValueError(
                f"{self.path.parent} holds {_a(self.what)} of other settings: {changes}; {REMEDY}"
            )
        self.seconds = seconds
        done = (stage for stage in seconds if stage != "begun")
        self.made_by = dict.fromkeys(done, "software that was not noted") | made_by

    def begin(self) -> None:
        """Make the folder and the diary in it, before anything else stands there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.note("begun", 0.0)

    def note(self, stage: str, seconds: float, made_by: str | None = None) -> None:
        """A stage is done, or was begun for so long."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        if made_by is not None:
            self.made_by[stage] = made_by
        content = {"settings": self.settings, "seconds": self.seconds, "made_by": self.made_by}
        write_text(self.path, json.dumps(content, indent=2) + "\n")

    def go_through(
        self,
        stages: Mapping[str, tuple[str, Callable[[], None]]],
        made_by: Callable[[], str],
        console: Terminal,
    ) -> None:
        """Do the stages that are not done yet.

        Args:
          stages: by name, in their order: what each does, in words, and itself.
          made_by: the software of this process.
          console: for what is done.
        """
        for number, (name, (what, stage)) in enumerate(stages.items(), start=1):
            if name in self.seconds:
                continue
            console.print(f"{number} of {len(stages)}: {what}", style="bold", highlight=False)
            begin = time.perf_counter()
            try:
                stage()
            except BaseException:
                self.note("begun", time.perf_counter() - begin)  # it is not done, but it took its time
                raise
            self.note(name, time.perf_counter() - begin, made_by())


def _is_foreign(path: Path) -> bool:
    """Whether it is neither the lock nor what a run that was killed in its first moment has left."""
    return path.name != LOCK and not path.name.startswith(UNFINISHED)


def _a(what: str) -> str:
    return f"{'an' if what[0] in 'aeiou' else 'a'} {what}"


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of what differs, those that one of the two lacks among them."""
    missing = object()
    return [name for name in {**before, **now} if before.get(name, missing) != now.get(name, missing)]
