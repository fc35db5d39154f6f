"""What a device runs during a call, kernel by kernel, as its own profiler records it."""

import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax


@dataclass(frozen=True)
class Kernels:
    """The kernels of one call on a GPU."""

    busy_ms: float
    """While any kernel or copy ran."""
    span_ms: float
    """From the begin of the first to the end of the last."""
    launches: int
    rows: list[tuple[str, int, float]]
    """Name without its number, runs, ms of all of them; the dearest first."""


def record_kernels(call: Callable[[], object], kept: Path | None = None, most: int = 60) -> Kernels | None:
    """Run a call under the profiler; None where a device leaves no record of kernels (a CPU).

    Args:
      call: what to run; compiled before, or the record holds what compiling runs.
      kept: where to leave the profiler's own file, which XProf opens; None: it is deleted.
      most: names to keep.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(call())
        traces = sorted(Path(folder).rglob("*.xplane.pb"))
        if not traces:
            return None
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(traces[0], kept)
        return sum_kernels(jax.profiler.ProfileData.from_file(str(traces[0])).planes, most)


def sum_kernels(planes: Iterable[Any], most: int = 60) -> Kernels | None:
    """Add up the kernels of the first GPU.

    Args:
      planes: of `jax.profiler.ProfileData`.
      most: names to keep.
    """
    plane = next((plane for plane in planes if plane.name.startswith("/device:GPU:")), None)
    if plane is None:
        return None
    runs: dict[str, int] = defaultdict(int)
    total: dict[str, float] = defaultdict(float)
    spans = []
    for line in plane.lines:
        if not line.name.startswith("Stream"):  # the others say the same again, by operation or module
            continue
        for event in line.events:
            name = re.sub(r"([._]\d+)+$", "", event.name)
            runs[name] += 1
            total[name] += event.duration_ns / 1e6
            spans.append((event.start_ns, event.start_ns + event.duration_ns))
    if not spans:
        return None
    busy, reached = 0.0, 0.0
    for begin, end in sorted(spans):
        busy += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    names = sorted(total, key=lambda name: -total[name])[:most]
    return Kernels(
        busy / 1e6,
        (reached - min(spans)[0]) / 1e6,
        len(spans),
        [(name, runs[name], total[name]) for name in names],
    )
