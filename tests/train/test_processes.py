"""train.value_model in two processes, as Slurm would start them: they export what one process exports."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import free_port
from tests.support.tiny_training import process_environment
from tests.support.trained_by_two import check_same, options_of_two, train_in_one

pytestmark = pytest.mark.optimised

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_two_processes_that_share_a_backbone_train_and_export_what_one_does(tmp_path):
    train_in_one(tmp_path)
    command = [sys.executable, "-m", "train.value_model", "--distributed", *options_of_two(tmp_path)]
    slurm = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    slurm |= {"SLURM_LOCALID": "0", "JAX_COORDINATOR_PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=process_environment() | slurm | {"SLURM_PROCID": str(i)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        said = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0, 0], said
    check_same(tmp_path)
