"""What the launch recipes would run, against the file of what they should."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SLICE = {"WORKERS": "4", "TPU": "TPU-V6E", "TOPOLOGY": "4x4"}
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
    interpreter = sys.executable if name.endswith(".py") else "bash"
    return subprocess.run(
        [interpreter, str(ROOT / "train" / "launch" / name), *arguments],
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


@pytest.mark.parametrize("name", ["tpu_pod.sh", "slurm.sh", "ray_trainer.py"])
def test_without_arguments_the_usage_is_said(name):
    found = call(name, DRY_RUN="1", TPU_NAME="sia", ZONE="us-east5-a")
    assert (found.returncode, found.stdout) == (2, "")
    assert "ARGUMENTS OF train.value_model" in found.stderr


def test_a_slice_without_a_name_is_refused():
    found = call("tpu_pod.sh", *ARGUMENTS, DRY_RUN="1", ZONE="us-east5-a")
    assert found.returncode != 0
    assert "set TPU_NAME" in found.stderr


def test_the_trainer_of_ray_would_be_given_a_worker_a_host_and_the_arguments_as_they_are():
    found = call("ray_trainer.py", *ARGUMENTS, DRY_RUN="1", **SLICE)
    assert (found.returncode, found.stderr) == (0, "")
    scaling = {"num_workers": 4, "use_tpu": True, "accelerator_type": "TPU-V6E", "topology": "4x4"}
    assert json.loads(found.stdout) == {
        "scaling_config": scaling,
        "run_config": {"name": "sia-value-model", "failure_config": {"max_failures": 3}},
        "train_loop_config": {"folder": str(ROOT), "arguments": ["--distributed", *ARGUMENTS]},
    }
    found = call("ray_trainer.py", *ARGUMENTS, DRY_RUN="1", WORKERS="2", GPUS="8", FAILURES="0")
    printed = json.loads(found.stdout)
    gpus = {"num_workers": 2, "use_gpu": True, "resources_per_worker": {"CPU": 1, "GPU": 8}}
    assert printed["scaling_config"] == gpus
    assert printed["run_config"]["failure_config"] == {"max_failures": 0}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "set WORKERS to the hosts"),
        ({"WORKERS": "two", "GPUS": "8"}, "1 or more, got 'two'"),
        ({"WORKERS": "2"}, "set TPU=TPU-V6E and TOPOLOGY=4x4 for a slice, or GPUS"),
        ({"WORKERS": "2", "TPU": "TPU-V6E"}, "set TOPOLOGY to the slice's"),
        ({"WORKERS": "2", "GPUS": "8", **SLICE}, "for a slice, or GPUS"),
        ({"WORKERS": "2", "GPUS": "0"}, "set GPUS to the GPUs of a node, 1 or more, got '0'"),
    ],
)
def test_what_the_trainer_of_ray_lacks_is_named(environment, said):
    found = call("ray_trainer.py", *ARGUMENTS, DRY_RUN="1", **environment)
    assert (found.returncode, found.stdout) == (2, "")
    assert said in found.stderr


def test_a_worker_of_ray_runs_the_program_and_its_failure_is_one(tmp_path, monkeypatch):
    """Ray would take a SystemExit for the end of the work."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    recipe = runpy.run_path(str(ROOT / "train" / "launch" / "ray_trainer.py"))
    arguments = ["--data", str(tmp_path), "--base", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    with pytest.raises(RuntimeError, match=r"train\.value_model has failed: .*none: no such folder"):
        recipe["work"]({"folder": str(ROOT), "arguments": arguments})
