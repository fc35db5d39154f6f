"""What XLA makes of a decoding loop: the caches are updated in place."""

import jax
import jax.numpy as jnp
import pytest

from sia_jax.benchmarks.systems import greedy
from sia_jax.costs.compiled import moves_of_at_least, while_bodies
from sia_jax.costs.shapes import SHAPES
from sia_jax.models.transformer import abstract_model

pytestmark = pytest.mark.optimised

MINI = SHAPES["mini"]
NEW_TOKENS = 32


def compiled_text(batch: int, layout: str) -> str:
    head = jax.ShapeDtypeStruct((MINI.vocab_size, MINI.hidden_size), jnp.float32)
    params = {"model": abstract_model(MINI), "lm_head": {"weight": head}}
    tokens = jax.ShapeDtypeStruct((batch, 16), jnp.int32)
    lengths = jax.ShapeDtypeStruct((batch,), jnp.int32)
    lowered = greedy.lower(params, tokens, lengths, config=MINI, new_tokens=NEW_TOKENS, layout=layout)
    return lowered.compile().as_text()


def layer_cache_elements(batch: int) -> int:
    return batch * MINI.num_kv_heads * MINI.head_dim * (16 + NEW_TOKENS)


@pytest.mark.parametrize("batch", [1, 16])
def test_no_while_body_copies_or_transposes_a_layers_cache(batch):
    bodies = while_bodies(compiled_text(batch, "BKHS"))
    assert any("layer_7" in body for body in bodies.values()), "the decoding loop was not found in the text"
    for name, body in bodies.items():
        moves = moves_of_at_least(body, layer_cache_elements(batch))
        assert [move for move in moves if str(MINI.vocab_size) not in move] == [], name  # but for the logits


def test_the_reader_sees_the_copies_that_the_other_layout_costs_on_a_cpu():
    bodies = while_bodies(compiled_text(1, "BSKH"))
    assert any(moves_of_at_least(body, layer_cache_elements(1)) for body in bodies.values())
