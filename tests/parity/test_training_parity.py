"""Twenty steps of ours move every trained tensor as torch and PEFT do; each reads what the other wrote."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import sia_jax
from sia_jax.data.records import Record, write_records
from sia_jax.data.trajectories import Trajectory
from tests.support import compare_training, reference, reference_training
from tests.support.reference import LLAMA3, Shape
from tests.support.trajectories import random_trajectories
from train import value_model as program

BASES = {
    "qwen3": (reference.save_policy, Shape("qwen3", 119, 32, 44, heads=4, head_dim=12)),
    "llama": (
        reference.save_reward_model,
        Shape("llama", 103, 36, 28, heads=3, kv_heads=3, theta=1e5, scaling=LLAMA3),
    ),
}


@pytest.mark.parametrize("name", BASES)
def test_packed_training_moves_the_adapter_and_the_head_as_torch_does(name, tmp_path):
    save, shape = BASES[name]
    base, folder = tmp_path / "base", tmp_path / "value"
    save(base, shape, 3)
    reference.save_value_model(folder, base, 4)
    batches = reference_training.random_batches(shape, 5)
    theirs = reference_training.train(folder, base, batches)
    ours = compare_training.train(folder, base, batches)
    compare_training.assert_same_training(ours, theirs)


def assert_read_alike(folder: Path, base: Path, trajectories: Sequence[Trajectory]) -> np.ndarray:
    """torch and PEFT, and we, read an official value model and give the same values, which are returned."""
    value, theirs = sia_jax.load_value_model(folder, base), reference.value_outputs(folder, base)
    found = []
    for trajectory in trajectories:
        ids = np.concatenate([trajectory.prompt_ids, trajectory.reply_ids])
        ours = np.asarray(value.values(ids[None], [len(ids)]))[0]
        np.testing.assert_allclose(ours, theirs(ids, None, None), rtol=0, atol=1e-4 * np.abs(ours).max())
        found.append(ours)
    return np.concatenate(found)


def test_what_torch_and_peft_have_trained_is_read_trained_on_and_read_by_them_again(tmp_path):
    save, shape = BASES["llama"]
    base, begun, theirs, ours = (tmp_path / name for name in ("base", "begun", "theirs", "ours"))
    save(base, shape, 3)
    reference.save_value_model(begun, base, 4)
    batches = {name: array[:3] for name, array in reference_training.random_batches(shape, 5).items()}
    reference_training.train(begun, base, batches, theirs)
    compare_training.train(theirs, base, batches, ours)
    trajectories = random_trajectories(4, shape.vocab)
    values = [assert_read_alike(folder, base, trajectories) for folder in (begun, theirs, ours)]
    for before, after in itertools.pairwise(values):
        assert np.abs(after - before).max() > 1e-2 * np.abs(before).max()


@pytest.mark.parametrize(("name", "trained"), [("qwen3", "lora"), ("llama", "lora"), ("llama", "full")])
def test_torch_and_peft_read_what_was_trained_and_exported_and_give_its_values(name, trained, tmp_path):
    save, shape = BASES[name]
    base, data, out = tmp_path / "base", tmp_path / "data", tmp_path / "out"
    save(base, shape, 3)
    trajectories = random_trajectories(24, shape.vocab)
    records = [Record(f"r{t.number}", t.group, (), t.prompt_ids, t.reply_ids, t.reward) for t in trajectories]
    write_records(data, records, {})
    program.main(
        program.Args(
            data=data,
            base=str(base),
            out=out,
            trained=trained,
            epochs=2,
            row_length=32,
            **({"rank": 4} if trained == "lora" else {}),
            learning_rate=1e-2,
            held_out=0.2,
            layout="official",
        )
    )
    for folder in (out / "last", out / "best"):
        assert_read_alike(folder, folder / "backbone" if trained == "full" else base, trajectories[:5])
