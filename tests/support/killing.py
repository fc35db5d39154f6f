"""Programs that are killed, or whose disk is full, at a chosen moment of their writing.

    python -m tests.support.killing MODULE WATCHED OPTIONS.pickle

A moment is what a program does to its files: it opens, makes, renames, removes or truncates one, or has
written a line of a journal. Moments are counted and not timed, so that it does not matter how fast a machine
is. The process imports MODULE once and forks before JAX starts a thread; each line on its standard input is a
run, {"kill": N} or {"kill_in": NAME, "after": N} or {"full": NAME, "room": BYTES, "after": N} or {}, and each
line of its output what came of it: {"status", "moments", "matching", "errors"}. NAME is part of a file's
path.
"""

import importlib
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from sia_jax.runs.journal import Journal
from tests.support.tiny_training import environment_with_cache

ROOT = Path(__file__).parents[2]
_EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "sia_jax.line")


class Killed:
    """A program in a process that can be run again and again, and be killed.

    Args:
      module: whose `main` is run.
      args: its options.
      watched: folder, the changes of which are its moments.
      cache: of compiled programs.
    """

    def __init__(self, module: str, args: Any, watched: Path, cache: Path):
        cache.mkdir(exist_ok=True)
        options = cache / "options.pickle"
        options.write_bytes(pickle.dumps(args))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.killing", module, str(watched), str(options)],
            cwd=ROOT,
            env=environment_with_cache(cache),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, **how: Any) -> dict[str, Any]:
        """One run: whole, killed at a moment, or with a full disk."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(how) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def __enter__(self) -> "Killed":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.communicate(timeout=60)


def main(module: str, watched: Path, options: Path) -> None:
    """Serve runs until the input ends."""
    program = importlib.import_module(module)
    for paid_once in ("tensorflow_datasets", "transformers", "jinja2", "matplotlib.figure"):
        importlib.import_module(paid_once)
    args = pickle.loads(options.read_bytes())
    for line in sys.stdin:
        how = json.loads(line)
        # Pipes, for a limit of the size of files is one of all files.
        (errors, told), (counts, counted) = os.pipe(), os.pipe()
        child = os.fork()
        if not child:
            _child(program, args, watched, how, told, counted)
        os.close(told)
        os.close(counted)
        with os.fdopen(errors) as said, os.fdopen(counts) as moments:
            text = said.read()
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            marks = moments.read()
            found = {
                "status": status,
                "moments": marks.count("."),
                "matching": marks.count("m"),
                "errors": text,
            }
        print(json.dumps(found), flush=True)


def _child(
    program: Any, args: Any, watched: Path, how: dict[str, Any], errors: int, counted: int
) -> NoReturn:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(errors, 2)
    count = matching = 0
    name = how.get("full", how.get("kill_in"))

    def hook(event: str, given: tuple[Any, ...]) -> None:
        nonlocal count, matching
        is_open = event == "open" and isinstance(given[0], str) and given[1] not in ("r", "rb", None)
        is_open = is_open or (event == "open" and given[1] is None and bool(given[2] & os.O_ACCMODE))
        if not (is_open or event in _EVENTS):
            return
        path = str(given[0])
        if not path.startswith(str(watched)):
            return
        count += 1
        os.write(counted, b".")
        if count == how.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if name is not None and name in path:
            matching += 1
            os.write(counted, b"m")
            if matching == how["after"] and "kill_in" in how:
                os.kill(os.getpid(), signal.SIGKILL)
            if matching == how["after"]:
                size = os.stat(path).st_size if event == "sia_jax.line" else 0
                limit = size + how["room"]
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    write = Journal.write

    def told(journal: Journal, record: dict[str, Any]) -> None:
        write(journal, record)
        sys.audit("sia_jax.line", str(journal.path))

    Journal.write = told
    sys.addaudithook(hook)
    status = 0
    try:
        program.main(args)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr, flush=True)  # as the interpreter does: no other line is split
    except BaseException:
        print(traceback.format_exc(), file=sys.stderr, flush=True)
        status = 99
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
