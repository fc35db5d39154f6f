"""The speed of the sampler in two trees, timed in turns in one run.

Each tree has a process of its own, which makes the benchmark's random models, compiles each system, and then
times one call whenever it is asked to. Of each system the fastest calls are compared: what slows a machine
down now and then makes no call faster.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

BATCHES = (1, 16)
SYSTEMS = {
    "unsteered": "None",
    "20%": "0.2",
    "dense": "1.0, expected_ratio=1.0",
    "20%, vocabulary head": "0.2, 'vocab'",
}
NEW_TOKENS = 64

_WORKER = """
import json, sys
import numpy as np
try:
    from sia_jax.benchmarks.systems import SamplerSystem
except ImportError:  # of older trees
    from decode.benchmark_systems import SamplerSystem
try:
    from sia_jax.costs.shapes import SHAPES, Models
except ImportError:  # of still older ones
    from decode.benchmark_shapes import SHAPES, Models
systems = {{{systems}}}
models = Models.random(SHAPES[{shape!r}])
vocabulary = models.config.vocab_size
for line in sys.stdin:
    name, batch = json.loads(line)
    make = systems[name]
    prompts = np.random.default_rng(0).integers(0, vocabulary, (batch, 16)).tolist()
    timing = make(models)(prompts, {new_tokens})
    print(json.dumps([timing.seconds, timing.tokens]), flush=True)
"""


class _Tree:
    """The process of one tree."""

    def __init__(self, root: Path, shape: str):
        systems = ", ".join(f"{name!r}: lambda m: SamplerSystem(m, {x})" for name, x in SYSTEMS.items())
        code = _WORKER.format(systems=systems, shape=shape, new_tokens=NEW_TOKENS)
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root.resolve())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, name: str, batch: int) -> float:
        """Of one call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, batch]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of a tree ended with {self._process.wait()}")
        seconds, tokens = json.loads(line)
        if tokens != batch * NEW_TOKENS:
            raise RuntimeError(f"expected {batch * NEW_TOKENS} tokens, got {tokens}")
        return float(seconds)

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def ratios(before: Path, after: Path, shape: str, tries: int) -> Iterator[tuple[str, float, float]]:
    """(system and batch, seconds before, seconds after), the fastest of `tries` calls of each.

    Args:
      before: root of a tree.
      after: root of another.
      shape: of the models, one of the benchmark's.
      tries: timed calls, after one that compiles.
    """
    trees = [_Tree(root, shape) for root in (before, after)]
    try:
        for batch in BATCHES:
            for name in SYSTEMS:
                taken: list[list[float]] = [[], []]
                for turn in range(tries + 1):
                    for n in (0, 1) if turn % 2 else (1, 0):
                        taken[n].append(trees[n].seconds(name, batch))
                yield f"{name}, batch {batch}", min(taken[0][1:]), min(taken[1][1:])
    finally:
        for tree in trees:
            tree.close()
