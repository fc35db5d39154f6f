"""Makes the golden cases: tiny checkpoints by transformers and peft, and what torch computes on them.

    python -m tests.golden.make          # needs torch and peft: an environment with the extra "parity"

Each case is a folder here: the files of a checkpoint, and expected.npz with inputs and expected outputs (see
`tests.support.reference`); with a value model also training.npz, batches and what torch learned from them.
They are made once and committed, so that the tests compare with transformers where torch is absent. Seeds are
fixed; run again, it writes the same files but for the versions they name.
"""

import shutil
from pathlib import Path

import numpy as np

from tests.support import reference, reference_training
from tests.support.reference import LLAMA3, Shape

FOLDER = Path(__file__).parent

POLICIES = {
    # In bfloat16, as published checkpoints are; N * H is not D.
    "qwen3-tied": (Shape("qwen3", vocab=149, hidden=40, intermediate=52, tied=True), {"dtype": "bfloat16"}),
    # Three query heads to a key/value head; in shards.
    "qwen3-untied": (
        Shape("qwen3", vocab=131, hidden=36, intermediate=44, heads=6, head_dim=8),
        {"max_shard_size": "40KB"},
    ),
    # Scaled frequencies, positions beyond the original context; one key/value head for all four.
    "llama-tied": (
        Shape("llama", 157, 32, 48, heads=4, kv_heads=1, tied=True, theta=100_000.0, scaling=LLAMA3),
        {},
    ),
    "llama-untied": (Shape("llama", vocab=113, hidden=48, intermediate=40, theta=500_000.0), {}),
}
REWARD_MODELS = {
    "llama-reward": Shape("llama", 139, 36, 52, heads=6, kv_heads=3, theta=100_000.0, scaling=LLAMA3),
}
VALUE_MODELS = {"qwen3-value": "qwen3-untied", "llama-value": "llama-reward"}
"""Name -> its base."""


def main() -> None:
    """Write all cases anew."""
    cases = (*POLICIES, *REWARD_MODELS, *VALUE_MODELS)
    for name in cases:
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    for seed, (name, (shape, options)) in enumerate(POLICIES.items()):
        reference.save_policy(FOLDER / name, shape, seed, **options)
        reference.write_case(reference.policy_case(FOLDER / name, reference.random_inputs(shape, seed)))
    for seed, (name, shape) in enumerate(REWARD_MODELS.items()):
        reference.save_reward_model(FOLDER / name, shape, seed)
        inputs = reference.random_rows(shape, seed, (41, 33, 29, 24, 20, 17, 12, 9, 6, 3, 2, 1))
        reference.write_case(reference.reward_case(FOLDER / name, inputs))
    shapes = {name: shape for name, (shape, _) in POLICIES.items()} | REWARD_MODELS
    for seed, (name, base) in enumerate(VALUE_MODELS.items()):
        reference.save_value_model(FOLDER / name, FOLDER / base, seed, base_name=base)
        inputs = reference.random_inputs(shapes[base], 100 + seed)
        reference.write_case(reference.value_case(FOLDER / name, FOLDER / base, inputs))
        batches = reference_training.random_batches(shapes[base], seed)
        trained = reference_training.train(FOLDER / name, FOLDER / base, batches)
        np.savez_compressed(FOLDER / name / "training.npz", **(batches | trained))
    size = sum(path.stat().st_size for name in cases for path in (FOLDER / name).rglob("*"))
    print(f"{len(cases)} cases, {size / 1e6:.2f} MB, in {FOLDER}")


if __name__ == "__main__":
    main()
