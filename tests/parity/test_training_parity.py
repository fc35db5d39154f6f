"""Twenty steps of ours move every trained tensor as twenty steps of torch and PEFT do."""

import pytest

from sia_jax.training.config import OptimizerConfig
from tests.support import compare_training, reference, reference_training
from tests.support.reference import LLAMA3, Shape

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
