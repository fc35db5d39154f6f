"""A value model that two processes train, to be held against that of one process."""

from pathlib import Path

import numpy as np

import sia_jax
from sia_jax.data.records import Record, write_records
from sia_jax.types import flatten_names
from tests.support.checkpoints import save_tiny_policy
from tests.support.trajectories import random_trajectories
from train.value_model import Args, main

QUICK = {"trained": "full", "epochs": 1, "batch_size": 8, "row_length": 32, "rows": 2, "held_out": 0.0}


def train_in_one(folder: Path) -> None:
    """Write folder/base and folder/data, and train folder/one on them in this process."""
    policy = save_tiny_policy(folder / "base", num_layers=1)
    records = [
        Record(f"r{t.number}", t.group, (), t.prompt_ids, t.reply_ids, t.reward)
        for t in random_trajectories(24, policy.config.vocab_size)
    ]
    write_records(folder / "data", records, {})
    main(Args(data=folder / "data", base=str(folder / "base"), out=folder / "one", **QUICK))


def options_of_two(folder: Path) -> list[str]:
    """The command line of the same training in two processes, into folder/two."""
    options = {"data": folder / "data", "base": folder / "base", "out": folder / "two"} | QUICK
    parts = [part for name, x in options.items() for part in (f"--{name.replace('_', '-')}", str(x))]
    return ["--mesh", "1", "2", "1", *parts]


def check_same(folder: Path) -> None:
    """Both have exported the same weights, but for the order of sums."""
    expected = flatten_names(sia_jax.load_value_model(folder / "one" / "last").params)
    found = flatten_names(sia_jax.load_value_model(folder / "two" / "last").params)
    assert found.keys() == expected.keys()
    for module, weight in expected.items():
        np.testing.assert_allclose(found[module], weight, rtol=0, atol=2e-6, err_msg=module)
