"""What the launch recipes would run, against the file of what they should."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "launch.golden.txt"
ARGUMENTS = [
    "--data",
    "data/two words",
    "--base",
    "Qwen/Qwen3-1.7B-Base",
    "--out",
    "out/vm",
    "--mesh",
    "2",
    "4",
    "1",
]


def call(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(ROOT / "train" / "launch" / name), *arguments],
        env={"PATH": os.environ["PATH"]} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_dry_run_prints_the_commands_of_the_golden_file():
    pod = call("tpu_pod.sh", *ARGUMENTS, DRY_RUN="1", TPU_NAME="sia", ZONE="us-east5-a")
    slurm = call("slurm.sh", *ARGUMENTS, DRY_RUN="1")
    assert (pod.returncode, pod.stderr, slurm.returncode, slurm.stderr) == (0, "", 0, "")
    printed = f"# tpu_pod.sh\n{pod.stdout}# slurm.sh\n{slurm.stdout}"
    assert printed == GOLDEN.read_text()


@pytest.mark.parametrize("name", ["tpu_pod.sh", "slurm.sh"])
def test_without_arguments_the_usage_is_said(name):
    found = call(name, DRY_RUN="1", TPU_NAME="sia", ZONE="us-east5-a")
    assert (found.returncode, found.stdout) == (2, "")
    assert "ARGUMENTS OF train.value_model" in found.stderr


def test_a_slice_without_a_name_is_refused():
    found = call("tpu_pod.sh", *ARGUMENTS, DRY_RUN="1", ZONE="us-east5-a")
    assert found.returncode != 0
    assert "set TPU_NAME" in found.stderr
