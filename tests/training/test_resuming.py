"""A run that is killed, or whose checkpoints are damaged, ends with the weights of one that was not."""

import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sia_jax.training.checkpoint import Checkpoints
from sia_jax.training.config import OptimizerConfig
from sia_jax.training.language import init_full_state
from sia_jax.training.step import TrainState
from tests.support.marks import long
from tests.support.tiny_training import process_environment

pytestmark = pytest.mark.optimised

ROOT = Path(__file__).parents[2]


def start(folder: Path, devices: int = 1, *options: str, before: Sequence[str] = ()) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    mesh = ["--devices", "8", "--mesh", "2", "2", "2"] if devices == 8 else []
    command = [sys.executable, "-m", "tests.support.tiny_training", str(folder), *mesh, *options]
    environment = process_environment()
    return subprocess.Popen(
        [*before, *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(folder: Path, devices: int = 1) -> tuple[list[str], str]:
    """(lines of the steps, stderr) of a run to its end."""
    process = start(folder, devices)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-2000:]
    lines = out.splitlines()
    assert lines[-1] == "finished"
    return lines[:-1], errors


def weights(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "final.npz") as arrays:
        return dict(arrays)


def assert_equal_weights(folder: Path, expected: dict[str, np.ndarray]) -> None:
    actual = weights(folder)
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)


@pytest.fixture(scope="module", params=[1, long(8)], ids=["one device", "eight devices"])
def uninterrupted(request, tmp_path_factory) -> tuple[int, dict[str, np.ndarray], list[str]]:
    folder = tmp_path_factory.mktemp("uninterrupted") / str(request.param)
    lines, _ = finish(folder, request.param)
    assert [line.split()[1] for line in lines] == [str(i + 1) for i in range(20)]
    return request.param, weights(folder), lines


def step_lines(process: subprocess.Popen, count: int) -> list[str]:
    """The next lines of a run, as many as asked for or until it ends."""
    assert process.stdout is not None
    lines = (process.stdout.readline().strip() for _ in range(count))
    return [line for line in lines if line.startswith("step")]


@pytest.mark.long
def test_a_run_killed_at_any_moment_goes_on_to_the_same_weights_bit_for_bit(uninterrupted, tmp_path):
    devices, expected, lines = uninterrupted
    seen, rng = set(), random.Random(devices)
    # Writing a checkpoint waits for the one before: after eight steps that of step 3 is on disk, anywhere.
    for told in (8, *rng.choices(range(1, 5), k=4)):
        process = start(tmp_path, devices, "--pause", "0.1")
        seen |= set(step_lines(process, told))
        time.sleep(rng.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate()
        # The kill may have cut the last line short.
        seen |= {
            line for line in out.splitlines(keepends=True) if line.startswith("step") and line[-1] == "\n"
        }
    last, _ = finish(tmp_path, devices)
    assert len(last) < 20, "the last run went on from a checkpoint"
    assert {line.strip() for line in seen} | set(last) <= set(lines), "every step had the uninterrupted loss"
    assert_equal_weights(tmp_path, expected)


def test_the_best_checkpoint_is_on_disk_before_one_that_takes_it_for_written(tmp_path, monkeypatch):
    """A run that goes on from a checkpoint never writes the best of before again."""
    events, within = [], []

    def spied(name):
        original = getattr(ocp.CheckpointManager, name)

        def method(self, *args, **kwargs):
            if not within:  # what a manager does by itself is its own affair
                events.append((name, Path(self.directory).name))
            within.append(name)
            try:
                return original(self, *args, **kwargs)
            finally:
                within.pop()

        return method

    for name in ("save", "wait_until_finished"):
        monkeypatch.setattr(ocp.CheckpointManager, name, spied(name))
    checkpoints = Checkpoints(tmp_path)
    state = state_of(3)
    checkpoints.save(state, {}, best=True)
    checkpoints.save(state, {})
    assert events == [("save", "best"), ("wait_until_finished", "best"), ("save", "last")]
    checkpoints.close()


def state_of(size: int) -> TrainState:
    params, key = {"w": jnp.ones(size)}, jax.random.key(0, impl="threefry2x32")
    return init_full_state(params, key, optimizer=OptimizerConfig(0.1, 0.0, 1.0))


def test_a_failed_write_is_told_of_when_no_thread_has_more_to_say_of_it(tmp_path, monkeypatch):
    """What Orbax's threads log would otherwise stand below the program's own message, or in its midst."""
    logged: list[str] = []

    def log_slowly(*_: object, **__: object) -> None:
        name = threading.current_thread().name
        time.sleep(0.0 if name in ("MainThread", "async_save") else 1.0)
        logged.append(name)

    checkpoints = Checkpoints(tmp_path)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr("absl.logging.exception", log_slowly)
    monkeypatch.setattr("absl.logging.error", log_slowly)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, unlimited[1]))
    try:
        checkpoints.save(state_of(10), {"much": "x" * 10_000})
        with pytest.raises(OSError, match="could not be written"):
            checkpoints.wait()
        told = list(logged)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    time.sleep(2.0)
    assert told
    assert logged == told


@pytest.fixture(scope="module")
def killed(uninterrupted, tmp_path_factory) -> Path:
    """A run killed after some checkpoints."""
    folder = tmp_path_factory.mktemp("killed")
    process = start(folder, uninterrupted[0], "--die-after", "11")
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert steps(folder) == [6, 9]
    return folder


@pytest.fixture
def stopped_early(uninterrupted, killed, tmp_path) -> tuple[Path, int, dict[str, np.ndarray]]:
    """That run's folder, to be damaged."""
    devices, expected, _ = uninterrupted
    return shutil.copytree(killed, tmp_path / "run"), devices, expected


def steps(folder: Path) -> list[int]:
    return sorted(int(p.name) for p in (folder / "checkpoints" / "last").iterdir() if p.name.isdigit())


@pytest.mark.parametrize("uninterrupted", [1], indirect=True)
@pytest.mark.parametrize("damage", ["cut short", "changed", "missing"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(damage, stopped_early):
    folder, devices, expected = stopped_early
    newest = folder / "checkpoints" / "last" / str(steps(folder)[-1])
    files = [p for p in newest.rglob("*") if p.is_file() and p.stat().st_size > 2000]
    assert files
    for file in files:
        content = bytearray(file.read_bytes())
        if damage == "missing":
            file.unlink()
        elif damage == "cut short":
            file.write_bytes(content[: len(content) // 2])
        else:
            middle = len(content) // 2
            content[middle : middle + 64] = bytes(255 - x for x in content[middle : middle + 64])
            file.write_bytes(content)
    lines, errors = finish(folder, devices)
    assert f"{newest.name} is damaged" in errors
    assert int(lines[0].split()[1]) == steps_before(newest) + 1
    assert_equal_weights(folder, expected)


def steps_before(newest: Path) -> int:
    return int(newest.name) - 3


@pytest.mark.parametrize("uninterrupted", [1], indirect=True)
def test_no_room_is_said_and_leaves_the_last_good_checkpoint(stopped_early):
    folder, devices, expected = stopped_early
    before = steps(folder)

    # No file may grow over 3 kB: the parameters do not fit, and the write fails as on a full disk.
    process = start(
        folder, devices, before=["bash", "-c", "trap '' XFSZ; ulimit -f 3; exec \"$@\"", "limited"]
    )
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "OSError" in errors
    assert f"could not be written to {folder / 'checkpoints'}" in errors
    assert f"the last good one: step {before[-1]}" in errors
    assert "make room" in errors
    assert steps(folder) == before
    finish(folder, devices)
    assert_equal_weights(folder, expected)
    shutil.rmtree(folder)
