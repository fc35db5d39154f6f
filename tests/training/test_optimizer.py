"""Muon where it is asked for: its law on the layers' matrices, AdamW on everything else; rates' ends."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.training.config import OptimizerConfig
from sia_jax.training.optimizer import learning_rate, make_optimizer
from sia_jax.types import flatten_names

SHAPES = {
    "model": {
        "embed_tokens": {"weight": (16, 6)},
        "layers": {
            0: {"up_proj": {"weight": (12, 6)}, "down_proj": {"weight": (6, 12)}, "norm": {"weight": (6,)}}
        },
        "norm": {"weight": (6,)},
    },
    "score": {"weight": (1, 6)},
}
MATRICES = {"up_proj", "down_proj"}


def draw(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def updates(config: OptimizerConfig, steps: int) -> list[dict[str, np.ndarray]]:
    """The updates of so many steps, by the leaf's path."""
    params, optimizer = draw(0), make_optimizer(config)
    state, found = optimizer.init(params), []
    for step in range(steps):
        update, state = optimizer.update(draw(1 + step), state, params)
        params = jax.tree.map(jnp.add, params, update)
        found.append({name: np.asarray(leaf) for name, leaf in flatten_names(update).items()})
    return found


def is_matrix(name: str) -> bool:
    return any(part in name for part in MATRICES)


def orthogonalised(x: np.ndarray) -> np.ndarray:
    """Five steps of the quintic Newton-Schulz iteration on the smaller side, float64."""
    turned = x.shape[0] > x.shape[1]
    x = (x.T if turned else x) / np.linalg.norm(x)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return x.T if turned else x


def test_matrices_of_layers_move_by_orthogonalised_momentum() -> None:
    config = OptimizerConfig(1e-3, weight_decay=0.1, clip_norm=1e9, method="muon", matrix_learning_rate=0.5)
    found = updates(config, 3)
    params = {name: np.asarray(leaf, np.float64) for name, leaf in flatten_names(draw(0)).items()}
    momentum = {name: np.zeros_like(leaf) for name, leaf in params.items()}
    for step, update in enumerate(found, start=1):
        gradient = {name: np.asarray(leaf, np.float64) for name, leaf in flatten_names(draw(step)).items()}
        for name in filter(is_matrix, params):
            g = gradient[name]
            momentum[name] = 0.95 * momentum[name] + 0.05 * g
            ahead = 0.95 * momentum[name] / (1 - 0.95 ** (step + 1)) + 0.05 * g / (1 - 0.95**step)
            rows, columns = g.shape
            moved = orthogonalised(ahead) * max(1, rows / columns) ** 0.5
            expected = -0.5 * (moved + 0.1 * params[name])
            np.testing.assert_allclose(update[name], expected, rtol=2e-3, atol=2e-4, err_msg=name)
        params = {name: leaf + update[name] for name, leaf in params.items()}


def test_all_other_leaves_move_as_under_adamw() -> None:
    shared: dict[str, Any] = {"learning_rate": 1e-2, "weight_decay": 0.1, "clip_norm": 1.0, "b2": 0.99}
    plain = updates(OptimizerConfig(**shared), 3)
    mixed = updates(OptimizerConfig(**shared, method="muon"), 3)
    for first, second in zip(plain, mixed, strict=True):
        for name, leaf in first.items():
            assert is_matrix(name) == (not np.allclose(leaf, second[name], rtol=1e-4, atol=1e-7)), name


@pytest.mark.parametrize("end", [0.0, 0.1, 1.0])
def test_a_cosine_ends_at_its_share_of_the_highest_rate(end: float) -> None:
    rate = learning_rate(
        OptimizerConfig(2.0, schedule="cosine", warmup_steps=2, total_steps=12, schedule_end=end)
    )
    assert float(rate(2)) == pytest.approx(2.0)
    assert float(rate(12)) == pytest.approx(2.0 * end, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"method": "sgd"}, "method must be 'adamw' or 'muon', got 'sgd'"),
        ({"matrix_learning_rate": 0.0}, "matrix_learning_rate"),
        ({"schedule_end": 1.5}, "schedule_end must be a share in"),
    ],
)
def test_numbers_that_cannot_be_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        OptimizerConfig(**options)
