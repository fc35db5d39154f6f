"""train.value_model in two processes, as Slurm would start them: they export what one process exports."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sia_jax
from sia_jax.data.records import Record, write_records
from sia_jax.types import flatten_names
from tests.support.checkpoints import save_tiny_policy
from tests.support.processes import free_port
from tests.support.tiny_training import process_environment
from tests.support.trajectories import random_trajectories
from train.value_model import Args, main

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_two_processes_that_share_a_backbone_train_and_export_what_one_does(tmp_path):
    policy = save_tiny_policy(tmp_path / "base", num_layers=1)
    records = [
        Record(f"r{t.number}", t.group, (), t.prompt_ids, t.reply_ids, t.reward)
        for t in random_trajectories(24, policy.config.vocab_size)
    ]
    write_records(tmp_path / "data", records, {})
    quick = {"trained": "full", "epochs": 1, "batch_size": 8, "row_length": 32, "rows": 2, "held_out": 0.0}
    one, two = tmp_path / "one", tmp_path / "two"
    main(Args(data=tmp_path / "data", base=str(tmp_path / "base"), out=one, **quick))
    options = {"data": tmp_path / "data", "base": tmp_path / "base", "out": two} | quick
    command = [sys.executable, "-m", "train.value_model", "--distributed", "--mesh", "1", "2", "1"]
    command += [part for name, x in options.items() for part in (f"--{name.replace('_', '-')}", str(x))]
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
    expected = flatten_names(sia_jax.load_value_model(one / "last").params)
    found = flatten_names(sia_jax.load_value_model(two / "last").params)
    assert found.keys() == expected.keys()
    for module, weight in expected.items():
        np.testing.assert_allclose(found[module], weight, rtol=0, atol=2e-6, err_msg=module)
