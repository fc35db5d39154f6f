"""Programs that are killed at random moments, or whose disk is full, end in the same bytes."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sia_jax.data.records import Record, write_records
from tests.support.checkpoints import save_tiny_policy
from tests.support.evaluating import (
    calibration_args,
    evaluation_args,
    save_models_and_prompts,
    save_thresholds,
)
from tests.support.killing import Killed
from tests.support.tokenizers import save_qwen3_tokenizer
from tests.support.trajectories import random_trajectories
from train import prepare, value_model

KILLS = 12


@dataclass(frozen=True)
class Program:
    """A program, what it writes, and where its disk may be full."""

    module: str
    args: Any
    out: Path
    places: dict[str, tuple[str, int, int]]
    """(part of a file's path, how often it is met before, bytes that there is room for)."""
    untimed: Callable[[Path], Any] | None = None
    """What of a file does not depend on the clock, where not its bytes."""


def calibration(folder: Path) -> Program:
    save_models_and_prompts(folder)
    args = replace(calibration_args(folder), out=str(folder / "out" / "thresholds.json"))
    journal = "thresholds.json.partial.jsonl"
    places = {
        "first line": (journal, 1, 0),
        "a line": (journal, 5, 7),
        "last line": (journal, 10, 100),
        "table": (staged("thresholds.json"), 1, 50),
    }
    return Program("decode.calibrate", args, folder / "out", places)


def evaluation(folder: Path) -> Program:
    save_models_and_prompts(folder)
    save_thresholds(folder)
    args = replace(
        evaluation_args(folder),
        out=str(folder / "out"),
        page=str(folder / "out" / "page" / "page.md"),
        seeds=1,
    )
    places = {
        "journal": ("replies.jsonl", 8, 9),
        "table": (staged("results.json"), 1, 500),
        "picture": (staged("pareto.png"), 1, 2000),
        "page": (staged("page.md"), 1, 500),
    }
    return Program("decode.evaluate", args, folder / "out", places, _untimed_in_any_order)


def preparation(folder: Path) -> Program:
    save_qwen3_tokenizer(folder / "tokenizer")
    rows = [
        {"prompt": f"Which train is it, {i // 2}?", "response": f"The {i}th. " * 9, "reward": i}
        for i in range(900)
    ]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = prepare.Args(
        format="jsonl",
        input=str(folder / "mine.jsonl"),
        tokenizer=str(folder / "tokenizer"),
        out=str(folder / "out"),
        export_conversations=str(folder / "out" / "text.jsonl"),
        export_official=str(folder / "out" / "official.json"),
        overwrite=True,
    )
    places = {
        "shard": ("unfinished", 1, 20_000),
        "report": (staged("report.json"), 1, 100),
        "conversations": (staged("text.jsonl"), 1, 50_000),
        "official": (staged("official.json"), 1, 50_000),
    }
    return Program("train.prepare", args, folder / "out", places)


def training(folder: Path) -> Program:
    policy = save_tiny_policy(folder / "base", num_layers=1)
    records = [
        Record(f"r{t.number}", t.group, (), t.prompt_ids, t.reply_ids, t.reward)
        for t in random_trajectories(40, policy.config.vocab_size)
    ]
    write_records(folder / "data", records, {})
    args = value_model.Args(
        data=folder / "data",
        base=str(folder / "base"),
        out=folder / "out",
        epochs=2,
        batch_size=8,
        row_length=32,
        rows=2,
        rank=4,
        learning_rate=1e-2,
        held_out=0.2,
        evaluate_every=4,
        checkpoint_every=2,
    )
    places = {
        "metrics": ("metrics.jsonl", 4, 0),
        "checkpoint": ("checkpoints/last", 2, 3000),
        "curves": (staged("curves.png"), 1, 2000),
        "value model": ("out/last", 1, 1000),
    }
    return Program("train.value_model", args, folder / "out", places, _untimed)


def staged(name: str) -> str:
    """Where a file is written before it has its place."""
    return f".unfinished-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


TIMED = {
    "seconds",
    "tokens_per_second",
    "tokens_per_second_by_seed",
    "mfu",
    "time",
    "commit",
    "commits",
    "machine",
    "machines",
    "speed",
}


def _untimed(path: Path) -> Any:
    """JSON without the fields that the clock decides; pictures and pages of those not at all."""
    if path.suffix == ".jsonl":
        return [_without(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".json":
        return _without(json.loads(path.read_text()))
    return None if path.suffix in (".png", ".md") or "checkpoints" in path.parts else path.read_bytes()


def _untimed_in_any_order(path: Path) -> Any:
    """Likewise; the replies of a method are written as they come."""
    found = _untimed(path)
    return sorted(found, key=json.dumps) if path.suffix == ".jsonl" else found


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without(inner) for name, inner in value.items() if name not in TIMED}
    return [_without(inner) for inner in value] if isinstance(value, list) else value


def contents(program: Program) -> dict[str, Any]:
    read = program.untimed or Path.read_bytes
    return {
        str(path.relative_to(program.out)): read(path)
        for path in sorted(program.out.rglob("*"))
        if path.is_file() and "checkpoints" not in path.parts
    }


PROGRAMS = [calibration, evaluation, preparation, training]


@pytest.mark.long
@pytest.mark.parametrize("make", PROGRAMS)
def test_a_program_that_is_killed_at_random_moments_ends_in_the_same_bytes(
    make: Callable[[Path], Program], tmp_path: Path
) -> None:
    program, moments = make(tmp_path), random.Random(0)
    with Killed(program.module, program.args, program.out, tmp_path / "cache") as process:
        whole = process.run()
        assert whole["status"] == 0, whole["errors"]
        expected = contents(program)
        kills = runs = 0
        shutil.rmtree(program.out)
        while kills < KILLS:
            found = process.run(kill=moments.randint(1, max(2, whole["moments"])))
            if found["status"] == -9:
                kills += 1
                continue
            assert found["status"] == 0, found["errors"]
            assert contents(program) == expected
            runs += 1
            shutil.rmtree(program.out)
        last = process.run()
        assert last["status"] == 0, last["errors"]
    assert contents(program) == expected
    print(
        f"{program.module}: {kills} kills among {whole['moments']} moments, {runs + 1} runs came to their end"
    )


@pytest.mark.long
@pytest.mark.parametrize("make", PROGRAMS)
def test_a_full_disk_is_named_and_nothing_is_lost(make: Callable[[Path], Program], tmp_path: Path) -> None:
    program = make(tmp_path)
    with Killed(program.module, program.args, program.out, tmp_path / "cache") as process:
        whole = process.run()
        assert whole["status"] == 0, whole["errors"]
        expected = contents(program)
        for place, (name, after, room) in program.places.items():
            shutil.rmtree(program.out)
            full = process.run(full=name, after=after, room=room)
            assert full["status"] == 1, (place, full)
            # Orbax logs what it has met above it, and its threads sometimes more as the process ends.
            own = [line for line in full["errors"].splitlines() if line.startswith(f"{program.module}: ")]
            assert len(own) == 1, (place, full["errors"])
            assert str(program.out) in own[0], (place, full["errors"])
            again = process.run()
            assert again["status"] == 0, (place, again["errors"])
            assert contents(program) == expected, place
            print(f"{place}: {own[0]}")
