"""A world in a folder, before anything of it is made."""

from pathlib import Path

import jax
import numpy as np

from sia_jax.world.stages import World


def test_another_seed_makes_other_text():
    first, second = (World(Path("nowhere"), seed, "tiny") for seed in (3, 4))
    keys = [np.asarray(jax.random.key_data(world.key("policy"))) for world in (first, second)]
    assert (keys[0] != keys[1]).any()
