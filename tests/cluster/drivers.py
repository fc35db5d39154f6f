"""Programs that run with Ray in processes of their own, to be killed, and their actors."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

RAY = ("--ray", "local", "--ray-actors", "2")
ROOT = Path(__file__).parents[2]
SECONDS = 600
"""For anything that is waited for."""


@contextmanager
def driver(module: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m module` with options, in a process that is ended with the block, and Ray with it."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "SIA_JAX_COMPILATION_CACHE": "off"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        kill(process)
        process.communicate(timeout=60)


def finish(process: subprocess.Popen[str]) -> str:
    """What a driver that ends well has said."""
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    return errors


def until(holds: Callable[[], bool], what: str, process: subprocess.Popen[str] | None = None) -> None:
    """Wait until something holds, while a process lives."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, f"waited {SECONDS} s until {what}"
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended before {what}: {process.communicate()[1]}")
        time.sleep(0.02)


def lines(path: Path) -> int:
    """Whole lines that a file has, of one that may not be there yet."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to a driver; waits until the Ray that it has started is gone too."""
    started = descendants(process.pid)
    process.kill()
    process.wait(timeout=60)
    until(lambda: not any(map(is_alive, started)), "the driver's processes end with it")


def kill_an_actor(process: subprocess.Popen[str]) -> None:
    """SIGKILL to one of the driver's actors that hold models, as soon as there is one."""
    until(lambda: bool(actors_of(process)), "an actor is there", process)
    os.kill(actors_of(process)[0], signal.SIGKILL)


def actors_of(process: subprocess.Popen[str]) -> list[int]:
    """The driver's actors that hold models."""
    return [pid for pid in descendants(process.pid) if "_Actor" in title(pid)]


def title(pid: int) -> str:
    """A process as it calls itself; of an actor "ray::MapWorker(MapBatches(_Actor))"."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def descendants(pid: int) -> Sequence[int]:
    """All processes that a process has started, and those of them."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found, rest = [], [pid]
    while rest:
        own = children.get(rest.pop(), [])
        found += own
        rest += own
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody has asked for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
