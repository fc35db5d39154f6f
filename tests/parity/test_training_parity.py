"""Twenty steps of ours move every trained tensor as twenty steps of torch and PEFT do."""

import numpy as np
import pytest

import sia_jax
from sia_jax.data.records import Record, write_records
from sia_jax.training.config import OptimizerConfig
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
    ours = compare_training.train(folder, base, batches, OptimizerConfig(**reference_training.RECIPE))
    compare_training.assert_same_training(ours, theirs)


@pytest.mark.parametrize("name", BASES)
def test_torch_and_peft_read_what_was_trained_and_exported_and_give_its_values(name, tmp_path):
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
            epochs=2,
            row_length=32,
            rank=4,
            learning_rate=1e-2,
            held_out=0.2,
            layout="official",
        )
    )
    for folder in (out / "last", out / "best"):
        value = sia_jax.load_value_model(folder, str(base))
        theirs = reference.value_outputs(folder, base)
        for trajectory in trajectories[:5]:
            ids = np.concatenate([trajectory.prompt_ids, trajectory.reply_ids])
            ours = np.asarray(value.values(ids[None], [len(ids)]))[0]
            np.testing.assert_allclose(ours, theirs(ids, None, None), rtol=0, atol=1e-4 * np.abs(ours).max())
