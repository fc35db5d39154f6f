"""What a row takes, as docs/serving.md says, is what the engine asks for before it takes it."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from decode.serve import Args
from sia_jax.costs.shapes import REAL_SHAPES, Models
from sia_jax.decoding.config import SamplerConfig
from sia_jax.engine.job import Terms, blank
from sia_jax.engine.pool import Pool, state_bytes
from sia_jax.steering.config import SteeringConfig

PAGE = (Path(__file__).parents[2] / "docs/serving.md").read_text()
LENGTHS = (256, 1024, 4096)
PAIRS = [("1.7B", "1.7B"), ("8B", "1.7B"), ("14B", "4B")]


@pytest.fixture(scope="module", params=PAIRS, ids=",".join)
def counted(request: pytest.FixtureRequest) -> tuple[str, str, int, list[int]]:
    """Two models in bfloat16, their bytes, and those of a row of each length of a server without options."""
    policy, value = request.param
    made: dict[str, Any] = {}

    def params() -> Any:
        made["models"] = Models.random(REAL_SHAPES[policy], REAL_SHAPES[value], jnp.bfloat16)
        return made["models"].params("scalar")

    shapes = jax.eval_shape(params)
    config, args = made["models"].value_config("scalar"), Args()
    models: list[Any] = [SimpleNamespace(config=one, tokenizer=None) for one in (REAL_SHAPES[policy], config)]
    rows = []
    for length in LENGTHS:
        whole = SamplerConfig(
            policy=REAL_SHAPES[policy],
            value=config,
            steering=SteeringConfig(),
            max_new_tokens=length,
            record="candidates" if args.record else None,
            top_logprobs=args.top_logprobs,
            chunk=16,
        ).resolve(1)
        terms = Terms(models[0], models[1], whole, (length,), 1.0, 1, 32, args.max_logit_bias)
        rows.append(state_bytes(Pool(shapes, whole, length, 1, blank(terms), 1)))
    return policy, value, sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes)), rows


def test_the_table_of_memory_is_what_the_engine_counts(counted: tuple[str, str, int, list[int]]) -> None:
    policy, value, weights, rows = counted
    cells = [f"{weights / 1e9:.1f} GB", *(f"{size / 1e6:,.0f} MB" for size in rows)]
    cells.append(f"{weights / 1e9 + Args().rows * sum(rows) / 1e9:.0f} GB")
    assert f"| {policy}, {value} | {' | '.join(cells)} |" in PAGE


def test_the_formula_of_memory_is_what_the_engine_counts(counted: tuple[str, str, int, list[int]]) -> None:
    """The caches and 5 V to the byte; what is left is the record, of so many bytes a token."""
    policy, value = (REAL_SHAPES[name] for name in counted[:2])
    (told,) = re.findall(r"^5 V \+ (\d+) W ", PAGE, re.MULTILINE)
    for length, found in zip(LENGTHS, counted[3], strict=True):
        caches = sum(
            2 * one.num_layers * one.num_kv_heads * one.head_dim * 2 * -(-columns // 16) * 16
            for one, columns in ((policy, length), (value, length + 10))
        )
        record = (found - caches - 5 * policy.vocab_size) / length
        assert record == pytest.approx(int(told), rel=0.02)
