r"""Make the embedded world: a tokenizer, a policy, a reward model, and value models, from one seed, on a CPU.

    python -m train.world --out out/world                  # all of it, within two hours on two cores
    python -m train.world --out out/tiny --size tiny       # three minutes: that everything runs

    # Steer with what was made:
    python -m decode.generate --policy out/world/models/policy --value out/world/models/value \
        --prompts out/world/models/prompts/test.jsonl --out out/replies.jsonl --record

The policy learns to write from the grammar's dialogues, good ones and bad ones (sia_jax.world); the reward
model from noisy preferences between replies; the value models, as the paper has it, from replies of the
policy itself with the reward model's rewards, by train.prepare --generate, train.label and train.value_model.

--out holds models/, which is all that is needed later (MODEL_CARD.md in it says what the models score), and
beside it the runs and data that they came from. Stop it at any moment, and start the same command again: it
goes on. The same seed gives the same bytes of tokenizer, prompts and dialogues anywhere, and the same weights
on the same machine with the same versions.
"""

import dataclasses
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sia_jax.checkpoints.values import is_number
from sia_jax.data.prompts import check_seed
from sia_jax.files.lock import LOCK, locked
from sia_jax.files.outputs import check_outputs
from sia_jax.files.reading import read_object
from sia_jax.files.shown import shown_value
from sia_jax.files.writing import write_text
from sia_jax.runs.cli import Count, program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.progress import waiting
from train.world_card import software, write_card
from train.world_stages import STAGES, World


@dataclass(frozen=True, kw_only=True)
class Args:
    """Make a world."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Where it is made. One that is there is continued."""
    seed: Count = 0
    """Of everything random; the prompts and their splits are always the same."""
    size: Literal["full", "tiny"] = "full"
    """tiny: of everything less, to see that it runs; nothing is to be learned from its results."""


def main(args: Args) -> None:
    """Make a world; exits with 1 if something is wrong with the folder, with 130 or 143 if interrupted."""
    kept = "interrupted; the same command goes on"
    with program("train.world", FloatingPointError, interrupted=lambda: kept) as console:
        check_outputs(inputs={}, folders={"--out": args.out})
        with locked(folders=(args.out,)):
            make(World(args.out, args.seed, args.size), console)


@dataclass
class Diary:
    """Which stages are done, by which software, how long they took, and under which settings: world.json."""

    path: Path
    settings: dict[str, object]
    seconds: dict[str, float] = field(default_factory=dict)
    made_by: dict[str, str] = field(default_factory=dict)
    """Of each stage; not of "begun", the time of those that were interrupted."""

    @classmethod
    def of(cls, world: World) -> "Diary":
        """The diary in a world's folder, or a new one.

        Raises:
          OSError, ValueError: the folder holds a world of other settings, or something else.
        """
        size = dataclasses.asdict(world.size)
        diary = cls(world.out / "world.json", {"seed": world.seed, "size": size})
        if diary.path.exists():
            diary._go_on(read_object(diary.path, "diary of a world", "name another --out"))
        elif world.out.exists() and {path.name for path in world.out.iterdir()} - {LOCK}:
            raise ValueError(f"{world.out} holds something else than a world; name another --out")
        return diary

    def _go_on(self, found: dict[str, Any]) -> None:
        """Take over what a diary says.

        Raises:
          ValueError: it is the diary of a world of other settings, or none.
        """
        settings, seconds, made_by = found.get("settings"), found.get("seconds"), found.get("made_by", {})
        if not (
            (isinstance(settings, dict) and isinstance(seconds, dict) and isinstance(made_by, dict))
            and all(map(is_number, seconds.values()))
            and all(isinstance(by, str) for by in made_by.values())
        ):
            raise ValueError(
                f"{self.path}: expected the settings, seconds and made_by of a world, got "
                f"{shown_value(found, 100)}; name another --out"
            )
        if settings != self.settings:
            raise ValueError(
                f"{self.path.parent} holds a world of other settings, {shown_value(settings)}; name another "
                "--out"
            )
        self.seconds = seconds
        done = (stage for stage in seconds if stage != "begun")
        self.made_by = dict.fromkeys(done, "software that was not noted") | made_by

    def note(self, stage: str, seconds: float, made_by: str | None = None) -> None:
        """A stage is done, or was begun for so long."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        if made_by is not None:
            self.made_by[stage] = made_by
        content = {"settings": self.settings, "seconds": self.seconds, "made_by": self.made_by}
        write_text(self.path, json.dumps(content, indent=2) + "\n")


def make(world: World, console: Terminal) -> None:
    """Go through the stages that are not done yet.

    Raises:
      ValueError: the folder holds something else, or a seed that is none.
      SystemExit: interrupted; what was done is kept.
    """
    check_seed(world.seed, "--seed")
    diary = Diary.of(world)
    world.out.mkdir(parents=True, exist_ok=True)
    diary.note("begun", 0.0)
    for number, (name, (what, stage)) in enumerate(STAGES.items(), start=1):
        if name in diary.seconds:
            continue
        console.print(f"{number} of {len(STAGES)}: {what}", style="bold", highlight=False)
        begin = time.perf_counter()
        try:
            stage(world, console)
        except BaseException:
            diary.note("begun", time.perf_counter() - begin)  # the stage is not done, but it took its time
            raise
        diary.note(name, time.perf_counter() - begin, software())
    with waiting(console, "measuring"):
        write_card(world, diary.seconds, diary.made_by)
    total = sum(diary.seconds.values()) / 60
    console.print(f"{world.models} holds the world; it took {total:.0f} min", highlight=False)


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
