"""Changes files at random, reads them, and tells what no reader may do."""

import faulthandler
import gc
import os
import random
import resource
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tests.fuzz.mutations import mutate
from tests.fuzz.readers import Reader

MAX_SECONDS = 5.0
MAX_GROWTH = 500 * 2**20
MAX_MESSAGE = 4000
"""Characters of an error: what it quotes of a file is bounded."""

_ROOM = 6 * 2**30  # of address space beyond what the process has; more is a MemoryError, not a dead machine


class Hang(BaseException):
    """Raised when a reader takes too long; no reader catches it."""


@dataclass
class Outcome:
    """What came of a reader's mutations."""

    reader: str
    counts: Counter[str] = field(default_factory=Counter)
    """'read', 'ValueError', ..."""
    failures: dict[int, str] = field(default_factory=dict)
    """By the number of the mutation: what was wrong."""
    seconds: float = 0.0
    """The longest reading."""
    growth: int = 0
    """The largest, bytes."""

    def describe(self) -> str:
        """'prompts: 5,000 mutations: read 1,200, ValueError 3,800; at most 0.2 s, 12 MB; 0 failures'."""
        total = sum(self.counts.values())
        counts = ", ".join(f"{name} {count:,}" for name, count in self.counts.most_common())
        most = f"at most {self.seconds:.2f} s, {self.growth / 1e6:.0f} MB"
        return f"{self.reader}: {total:,} mutations: {counts}; {most}; {len(self.failures)} failures"


def run(reader: Reader, seed: int, numbers: range, keep: Path | None = None) -> Outcome:
    """Mutate a reader's files, each time anew, and read them.

    Args:
      reader: whose files.
      seed: of all mutations; mutation n of a seed is always the same.
      numbers: of the mutations.
      keep: a folder for the files of failures.
    """
    outcome = Outcome(reader.name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "input"
        folder.mkdir()
        files = list(reader.write(folder))
        whole = {file: file.read_bytes() for file in files}
        reader.check(folder, reader.read(folder))
        gc.collect()  # what others have left would go while memory is measured, and hide what a reader takes
        with _limited_memory():
            for number in numbers:
                rng = random.Random(f"{seed} {reader.name} {number}")
                file = rng.choice(files)
                is_json = file.suffix in reader.json_suffixes
                content = mutate(whole[file], rng, is_json=is_json)
                file.write_bytes(content)
                problem = _read(reader, folder, file, outcome)
                if problem is not None:
                    outcome.failures[number] = f"{file.name}: {problem}"
                    if keep is not None:
                        keep.mkdir(parents=True, exist_ok=True)
                        (keep / f"{reader.name}-{number}-{file.name}").write_bytes(content)
                file.write_bytes(whole[file])
    return outcome


def _read(reader: Reader, folder: Path, file: Path, outcome: Outcome) -> str | None:
    """One reading; what was wrong with it."""
    before, begin = _reset_peak(), time.process_time()
    problem: str | None = None
    kind = "read"
    try:
        with _time_limit():
            found = reader.read(folder)
        reader.check(folder, found)
    except Hang:
        kind, problem = "hang", f"no end after {MAX_SECONDS:g} s"
    except reader.expected as error:
        kind = type(error).__name__
        problem = _problem(str(error), folder, file)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        kind = type(error).__name__
        problem = "".join(traceback.format_exception(error))[-3000:]
    seconds, growth = time.process_time() - begin, _peak() - before
    outcome.counts[kind] += 1
    outcome.seconds, outcome.growth = max(outcome.seconds, seconds), max(outcome.growth, growth)
    if problem is None and seconds > MAX_SECONDS:
        problem = f"it took {seconds:.1f} s"
    if problem is None and growth > MAX_GROWTH:
        problem = f"it grew by {growth / 1e6:.0f} MB"
    return problem


def _problem(message: str, folder: Path, file: Path) -> str | None:
    if file.name not in message and str(folder) not in message:
        return f"the error names no file: {message[:300]!r}"
    if len(message) > MAX_MESSAGE:
        return f"an error of {len(message):,} characters: {message[:300]!r}"
    try:
        message.encode()
    except UnicodeEncodeError:
        return f"the error cannot be printed: {message[:300]!a}"
    return None


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = [(number, signal.signal(number, stop)) for number in (signal.SIGALRM, signal.SIGPROF)]
    # Code that never comes back to Python hears no signal: the process ends, and says where it was.
    faulthandler.dump_traceback_later(12 * MAX_SECONDS, exit=True)
    # Seconds of the processor, or six times as many of the clock: the machine may be busy with other things.
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, 6 * MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        for number, handler in before:
            signal.signal(number, handler)


@contextmanager
def _limited_memory() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = _status("VmSize")
    if before[1] == resource.RLIM_INFINITY and size:
        resource.setrlimit(resource.RLIMIT_AS, (size + _ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _reset_peak() -> int:
    """Bytes in memory now, from which the peak is counted anew."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _status(name: str) -> int:
    """A size that Linux tells of this process, in bytes; 0 elsewhere."""
    if not os.path.exists("/proc/self/status"):
        return 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0
