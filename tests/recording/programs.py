"""What the programs write about the embedded world: text on the screen and in files, without clocks."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROMPTS = 24
"""Enough for intervals and for claims."""
_STEERED = "--policy models/policy --value models/value-token"
_ASKED = "--prompts prompts.jsonl --max-new-tokens 80"
COMMANDS = {
    "generate": f"decode.generate {_STEERED} {_ASKED} --threshold 0.8 --compare --record --batch 4 "
    "--out compared.jsonl",
    "generate with every number": f"decode.generate {_STEERED} {_ASKED} --preset official --samples 2 "
    "--temperature 0.8 --top-k 20 --top-p 0.9 --repetition-penalty 1.1 --presence-penalty 0.1 "
    "--frequency-penalty 0.1 --min-new-tokens 5 --stop again. --beta 2 --seed 3 --out numbers.jsonl",
    "generate with a vocabulary head": "decode.generate --policy models/policy --value models/value-vocab "
    f"{_ASKED} --out vocabulary.jsonl",
    "generate with the policy's own states": "decode.generate --policy models/policy --value "
    f"models/value-states-token {_ASKED} --out states.jsonl",
    "generate with another backbone": "decode.generate --policy models/policy --value models/value-small "
    f"{_ASKED} --out backbone.jsonl",
    "generate over a mesh": f"decode.generate {_STEERED} {_ASKED} --mesh 2 2 2 --batch 8 --out mesh.jsonl",
    "generate on the screen": f"decode.generate {_STEERED} {_ASKED} --compare",
    "trace": "decode.trace compared.jsonl --out trace.html",
    "chat": f"decode.chat {_STEERED} --threshold 0.8 --max-new-tokens 60",
    "calibrate": f"decode.calibrate --policy models/policy {_ASKED} --ratios 0.2 --out thresholds.json",
    "evaluate": f"decode.evaluate {_STEERED} {_ASKED} --reward models/reward --seeds 1 --best-of 2 "
    "--gold-function sia_jax.world.rewards:gold "
    "--combined 2 --thresholds thresholds.json --out evaluation",
    "entropy study": f"decode.entropy_study {_STEERED} {_ASKED} --positions 16 --continuations 4 --bins 2 "
    "--gold-function sia_jax.world.rewards:gold "
    "--out study",
    "demo": "decode.demo --prompts 24 --shown 3 --out demo",
    "smoke": "decode.smoke",
    "prepare": "train.prepare --format jsonl --input prompts.jsonl --generate 3 --policy models/policy "
    "--max-new-tokens 60 --batch 6 --out set",
    "label": "train.label --input set --reward models/reward --out labelled",
    "show": "train.show --data labelled --tokenizer models/policy --count 72 --ids",
    "value model": "train.value_model --data labelled --base models/policy --row-length 256 --dropout 0 "
    "--max-steps 6 --evaluate-every 3 --learning-rate 1e-3 --out trained",
    "generate with what was trained": f"decode.generate --policy models/policy --value trained/best {_ASKED} "
    "--out trained.jsonl",
}
"""By name, and in order: what one has written the next ones read."""
TYPED = {"chat": "How do I bake bread on a hot afternoon?\n/compare\nAnd in winter?\n/quit\n"}

_CLOCK = re.compile(r"\b[\d.,]+ (?:s\b|\w+/s\b)")
_PROGRESS = re.compile(r"\d:\d\d left|^[\d,]+ (?:of [\d,]+ )?\w+, [\d,.]+ \w+/s")
"""Lines that come after so many seconds, whatever is done by then."""
_CLOCKS = {"seconds", "time", "tokens_per_second", "mfu", "commit", "commits", "machines", "provenance"}
"""Keys of JSON whose values are of the run, or name commits as "provenance" does, and not what was done."""
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def record(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """(name of a command, lines of what it has said and written).

    Args:
      folder: an empty one, for what the programs write.
    """
    # All paths of the commands are relative, so that neither they nor the breaks of lines tell where it lies.
    models = ROOT / "sia_jax/world/models"
    (folder / "models").symlink_to(models)
    prompts = (models / "prompts/test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "prompts.jsonl").write_text(
        "".join(prompts[:: len(prompts) // PROMPTS][:PROMPTS]), encoding="utf-8"
    )
    known = set(_files(folder))
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PYTHONSAFEPATH": "1",
        "COLUMNS": "110",
        "JAX_NUM_CPU_DEVICES": "8",
    }
    for name, command in COMMANDS.items():
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(command)],
            cwd=folder,
            env=environment,
            input=TYPED.get(name, ""),
            capture_output=True,
            text=True,
            check=False,
        )
        said = [f"exit {done.returncode}", *done.stdout.splitlines(), *done.stderr.splitlines()]
        for path in _files(folder):
            if path not in known:
                said += [f"{path.relative_to(folder)}: {line}" for line in _lines(path)]
                known.add(path)
        yield name, without_clocks(said)


def without_clocks(lines: list[str]) -> list[str]:
    """The lines that do not tell how far a run is, and these without seconds, rates and this folder."""
    kept = [line for line in lines if not _PROGRESS.search(line)]
    return [_CLOCK.sub("<clock>", line).replace(str(ROOT), "<root>") for line in kept]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _lines(path: Path) -> list[str]:
    """What can be compared of a file: values of JSON, lines of text, of others that it is there."""
    if "checkpoints" in path.parts:
        return []  # orbax names files by chance
    if path.suffix == ".json":
        return flat(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        # Of replies, which are written as they become whole, any order is right.
        rows.sort(key=lambda row: [str(row.get(name, "")) for name in ("index", "branch", "method")])
        return [line for n, row in enumerate(rows) for line in flat(row, f"{n}")]
    if path.suffix in (".md", ".csv", ".html"):
        return path.read_text(encoding="utf-8").splitlines()
    return ["written"]


def flat(value: Any, name: str = "") -> list[str]:
    """A line for each value or plain list within, with the keys that lead to it; none for clocks."""
    if isinstance(value, dict):
        kept = {key: inner for key, inner in value.items() if key not in _CLOCKS}
        return [line for key, inner in kept.items() for line in flat(inner, f"{name}.{key}")]
    if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        return [line for n, inner in enumerate(value) for line in flat(inner, f"{name}.{n}")]
    return [f"{name} = {value!r}"]


def differences(before: list[str], after: list[str]) -> list[str]:
    """Lines that differ in more than the last digits of a number."""
    found = [_parted(a, b) for a, b in zip(before, after, strict=False) if not alike(a, b)]
    if len(before) != len(after):
        found.insert(0, f"{len(before)} lines, now {len(after)}")
    return found


def alike(a: str, b: str) -> bool:
    """Whether two lines are the same but for 1e-4 of their numbers with a point; other numbers are exact."""
    if a == b:
        return True
    if _NUMBER.sub("#", a) != _NUMBER.sub("#", b):
        return False
    pairs = zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True)
    return all(x == y or (_is_float(x) and _is_float(y) and _near(float(x), float(y))) for x, y in pairs)


def _is_float(number: str) -> bool:
    return "." in number or "e" in number


def _near(x: float, y: float) -> bool:
    return abs(x - y) <= 1e-4 * max(0.1, abs(x))


def _parted(a: str, b: str) -> str:
    """The two lines from shortly before they part."""
    same = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start = max(0, same - 60)
    return f"{a[start : start + 120]!r}, now {b[start : start + 120]!r}"
