"""The commands that pages show: read by the shell itself, and held against the programs that they name."""

import importlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from sia_jax.runs.programs import Program, find_programs
from tests.support import markdown_pages

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "configs/README.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")),
]


def commands(page: str) -> list[list[str]]:
    """The words of each command that a page calls, loops and all. Nothing is run: the shell finds no program.

    Patterns of files stay as they are.
    """
    bash = shutil.which("bash")
    assert bash is not None
    blocks = markdown_pages.code_blocks((ROOT / page).read_text(encoding="utf-8"), "sh")
    found = ".() { :; }\ncommand_not_found_handle() { printf '%s\\0' \"$@\" $'\\n' >&3; }\n"
    shown = "\n".join(blocks).replace(".venv/bin/python", "python")
    with tempfile.TemporaryDirectory() as nowhere:
        (Path(nowhere) / "mkdir").symlink_to(shutil.which("mkdir") or "")  # for files that are written to
        done = subprocess.run(
            [bash, "-c", f"exec 3>&1 >said\nset -uf\n{found}{shown}"],
            cwd=nowhere,
            env={"PATH": nowhere},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert not done.stderr, done.stderr
    words = done.stdout.split("\0")
    ends = [place for place, word in enumerate(words) if word == "\n"]
    return [words[begin:end] for begin, end in zip([0, *(end + 1 for end in ends)], ends, strict=False)]


def program_of(words: list[str]) -> tuple[Program, list[str]] | None:
    """The program of ours that a command calls, and the options that it is given."""
    programs = find_programs()
    if words[0] == "sia":
        for count in (2, 1):
            for one in programs:
                if one.words == tuple(words[1 : 1 + count]):
                    return one, words[1 + count :]
    if words[:2] == ["python", "-m"]:
        for one in programs:
            if one.module == words[2]:
                return one, words[3:]
    return None


def options_of(program: Program, options: list[str]) -> Any:
    """What the program reads of its options.

    Raises:
      SystemExit: they are none of its.
    """
    from sia_jax.runs.cli import read_options

    module = importlib.import_module(program.module)
    default = {"default": module.ARGS} if hasattr(module, "ARGS") else {}
    return read_options(module.Args, options, **default)
