"""Meshes of devices, and processes under `jax.distributed`, go through the losses of one device."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import free_port
from tests.support.tiny_training import process_environment

pytestmark = pytest.mark.optimised

ROOT = Path(__file__).parents[2]


def start(folder: Path, *options: object) -> subprocess.Popen:
    folder.mkdir(exist_ok=True, parents=True)
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.tiny_training", str(folder), *map(str, options)],
        cwd=ROOT,
        env=process_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def losses(*processes: subprocess.Popen) -> list[list[float]]:
    """Of every process, the loss of each step. None outlives the test."""
    try:
        return [_losses(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _losses(process: subprocess.Popen) -> list[float]:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    *lines, last = [line for line in out.splitlines() if line.startswith(("step", "finished"))]
    assert last == "finished"
    assert [line.split()[1] for line in lines] == [str(i + 1) for i in range(20)]
    return [float(line.split()[2]) for line in lines]


@pytest.fixture(scope="module")
def one_device(tmp_path_factory) -> list[float]:
    return losses(start(tmp_path_factory.mktemp("one")))[0]


@pytest.mark.long
@pytest.mark.parametrize("mesh", [(8, 1, 1), (2, 4, 1), (2, 2, 2)])
def test_a_mesh_of_eight_devices_has_the_losses_of_one(mesh, one_device, tmp_path):
    found = losses(start(tmp_path, "--devices", 8, "--mesh", *mesh))[0]
    assert found == pytest.approx(one_device, rel=1e-5)


@pytest.mark.long
def test_two_processes_of_four_devices_have_the_losses_of_one(one_device, tmp_path):
    port = free_port()
    common = ("--devices", 4, "--mesh", 2, 2, 2, "--processes", 2, "--port", port)
    processes = [start(tmp_path, *common, "--process", i) for i in range(2)]
    found = losses(*processes)
    for each in found:
        assert each == pytest.approx(one_device, rel=1e-5)
    assert found[0] == found[1]
    assert (tmp_path / "checkpoints" / "last" / "20").is_dir()
