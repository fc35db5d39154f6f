"""Processes under `jax.distributed` that run what a test asks of them, in lock step.

    python -m tests.support.processes PORT PROCESSES PROCESS DEVICES

Each reads calls from stdin, a line of JSON each, and writes what came of them to stdout. So one start, which
takes seconds, serves many checks.
"""

import contextlib
import importlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

ROOT = Path(__file__).parents[2]
MARK = "result of a call: "
SECONDS = 400


def free_port() -> int:
    """One that the system hands out to nobody: seconds pass until it is bound."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("every port is taken")


class Processes:
    """`count` processes of `devices` CPU devices each; ended with the `with`."""

    def __init__(self, count: int, devices: int):
        port = free_port()
        # Only the first process would find its programs in a cache; the collectives of CPUs wait 30 seconds
        # for one that compiles.
        kept = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
        environment = kept | {"JAX_PLATFORMS": "cpu"}
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.processes", *map(str, (port, count, i, devices))],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(count)
        ]
        self._said: list[list[str]] = [[] for _ in self._processes]
        self._readers = [
            threading.Thread(target=said.extend, args=(process.stderr,), daemon=True)
            for process, said in zip(self._processes, self._said, strict=True)
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        for process in self._processes:
            process.wait()
        for reader in self._readers:
            reader.join()
        for process in self._processes:
            for stream in (process.stdin, process.stdout, process.stderr):
                with contextlib.suppress(OSError):  # what was not read any more
                    stream.close()  # type: ignore[union-attr]

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()

    def call(self, function: Callable[..., Any], *each: dict[str, Any], **arguments: Any) -> list[Any]:
        """function(**arguments) in all processes at a time: what it returned in each, or {"error": ...}.

        Args:
          function: of a module; takes and returns JSON.
          *each: further arguments, of each process; none, or one dictionary a process.
          **arguments: of all processes.
        """
        late = threading.Timer(SECONDS, self._kill)
        late.start()
        try:
            for index, process in enumerate(self._processes):
                own = arguments | (each[index] if each else {})
                assert process.stdin is not None
                call = {"function": f"{function.__module__}:{function.__name__}", "arguments": own}
                process.stdin.write(json.dumps(call, default=str) + "\n")
                process.stdin.flush()
            return [self._result(index) for index in range(len(self._processes))]
        finally:
            late.cancel()

    def _result(self, index: int) -> Any:
        out = self._processes[index].stdout
        assert out is not None
        for line in out:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise AssertionError(f"process {index} has ended: {''.join(self._said[index])[-4000:]}")


def main(port: int, count: int, index: int, devices: int) -> None:
    """Serve calls until stdin ends."""
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_disable_most_optimizations", True)
    jax.distributed.initialize(f"127.0.0.1:{port}", count, index)
    for line in sys.stdin:
        call = json.loads(line)
        module, _, name = call["function"].partition(":")
        result: Any
        try:
            result = getattr(importlib.import_module(module), name)(**call["arguments"])
        except (Exception, SystemExit) as error:  # of a test that fails, or expects it
            result = {"error": f"{type(error).__name__}: {error}"}
        print(MARK + json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
