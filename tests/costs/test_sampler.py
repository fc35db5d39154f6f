"""What a sampler is counted to take of a device is what its arrays take there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sia_jax
from sia_jax.costs.sampler import sampler_memory
from sia_jax.decoding.row_params import make_row_params
from sia_jax.decoding.sample import start
from sia_jax.models.lora import LoraConfig
from sia_jax.parallel.mesh import make_mesh, shard_params
from sia_jax.types import Params, flatten_names
from tests.support.checkpoints import tiny_policy, tiny_value_model

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "num_kv_heads": 2}
ROWS, PROMPT = 8, 16


def bytes_of_a_device(tree: Params) -> int:
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in flatten_names(tree).values())


@pytest.mark.parametrize("shape", [(2, 2, 2), (1, 8, 1), (4, 1, 2)])
def test_weights_and_caches_of_a_device_are_as_counted(shape):
    policy = tiny_policy(**SIZES)
    value = tiny_value_model(policy, lora=LoraConfig(rank=4, alpha=8.0))
    mesh, tensor = make_mesh(*shape), shape[2]
    config = sia_jax.SamplerConfig(policy.config, value.config, max_new_tokens=10, mesh=mesh).resolve(ROWS)
    counted = sampler_memory(config, policy.params, value.params, mesh, rows=ROWS, prompt=PROMPT)

    def held(on: jax.sharding.Mesh) -> int:
        return bytes_of_a_device(shard_params(policy.params, on)) + bytes_of_a_device(
            shard_params(value.params, on)
        )

    assert counted.weights == held(mesh)
    together = make_mesh(tensor=tensor, devices=jax.devices()[:tensor])
    assert counted.gathered == (held(together) if shape[1] > 1 else 0)

    own = ROWS // (shape[0] * shape[1])
    ids = np.zeros((own, PROMPT), np.int32)
    prompt = jax.tree.map(
        jnp.asarray, sia_jax.Prompt(ids, np.ones(own, np.int32), ids, np.ones(own, np.int32))
    )
    key = jax.random.key(0, impl="threefry2x32")
    numbers = make_row_params(1.0, key, sia_jax.Knobs(), own, config)
    params = sia_jax.SteeringParams(policy.params, value.params)
    state = jax.eval_shape(lambda: start(params, prompt, numbers, config))
    caches = jax.tree.leaves((state.policy_cache, state.value_cache))
    assert counted.caches == sum(x.size * x.dtype.itemsize for x in caches) // tensor
    assert counted.ids == sum(x.size * x.dtype.itemsize for x in (state.prompt_ids, state.counts))
