"""The recipe for Ray's JaxTrainer under Ray itself, whose two workers compute on the CPU of this machine."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.drivers import ROOT, SECONDS
from tests.support.processes import free_port
from tests.support.tiny_training import process_environment
from tests.support.trained_by_two import check_same, options_of_two, train_in_one

RAY = Path(sys.executable).with_name("ray")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables of a program that finds a Ray on loopback, which was told of two GPUs that nobody has."""
    port = free_port()
    environment = process_environment() | {
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # stays on loopback
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "JAX_PLATFORMS": "cpu",
    }
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    start += ["--node-ip-address", "127.0.0.1", "--port", str(port), "--include-dashboard", "false"]
    start += ["--num-cpus", "4", "--num-gpus", "2", "--object-store-memory", str(100 * 2**20)]
    with (tmp_path / "ray.log").open("w") as log:
        head = subprocess.Popen(start, env=environment, cwd=ROOT, stdout=log, stderr=log)
        try:
            yield environment
        finally:
            head.terminate()
            head.wait(timeout=60)


@pytest.mark.long
def test_two_workers_of_ray_train_and_export_what_one_process_does(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    train_in_one(tmp_path)
    command = [sys.executable, "train/launch/ray_trainer.py", *options_of_two(tmp_path)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | cluster | {"WORKERS": "2", "GPUS": "1", "FAILURES": "0"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    check_same(tmp_path)
