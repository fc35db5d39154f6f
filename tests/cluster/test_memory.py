"""The driver's memory, from a thousand prompts to twenty thousand."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.cluster.drivers import RAY, driver, finish, lines
from tests.support.replying import save_models

pytestmark = pytest.mark.long


@dataclass
class Most:
    """KiB of anonymous memory, at the most; what is shared is Ray's object store."""

    resident: int = 0


@contextmanager
def watched(pid: int) -> Iterator[Most]:
    """The most that a process has of memory of its own, looked at every twentieth of a second."""
    most, ended = Most(), Event()

    def watch() -> None:
        while not ended.wait(0.05):
            most.resident = max(most.resident, anonymous(pid))

    thread = Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def anonymous(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("RssAnon")), 0)


def generate(folder: Path, prompts: int) -> int:
    """KiB of a driver of so many prompts, at the most."""
    source, out = folder / f"{prompts}.jsonl", folder / f"{prompts}-replies.jsonl"
    source.write_text("".join(json.dumps({"prompt": f"What is {n} and 7?"}) + "\n" for n in range(prompts)))
    begin = time.monotonic()
    with (
        driver(
            *("decode.generate", "--policy", str(folder / "policy"), "--value", str(folder / "policy-value")),
            *("--prompts", str(source), "--out", str(out), "--max-new-tokens", "1", "--batch", "64", *RAY),
        ) as process,
        watched(process.pid) as most,
    ):
        finish(process)
    assert lines(out) == prompts
    print(f"{prompts:,} prompts: {most.resident / 1024:.0f} MiB, {time.monotonic() - begin:.0f} s")
    return most.resident


def test_the_driver_of_20_000_prompts_takes_what_one_of_1_000_takes_and_its_input(tmp_path: Path) -> None:
    save_models(tmp_path)
    small, large = generate(tmp_path, 1_000), generate(tmp_path, 20_000)
    assert (large - small) / 19_000 < 4, "KiB for each further prompt"
