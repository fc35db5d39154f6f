"""The configs of the paper's runs: what their docstrings compute is so, and the recipe is the paper's."""

import importlib
from pathlib import Path

import jax
import pytest

from sia_jax.costs.roofline import training_flops
from sia_jax.models.config import ModelConfig, RopeConfig
from sia_jax.models.lora import LoraConfig, init_lora
from sia_jax.models.transformer import abstract_model

SHAPES = {
    "qwen3_0_6b": ("qwen3", 1024, 3072, 28, 16, 128, 151936),
    "qwen3_1_7b": ("qwen3", 2048, 6144, 28, 16, 128, 151936),
    "qwen3_4b": ("qwen3", 2560, 9728, 36, 32, 128, 151936),
    "llama3_2_1b": ("llama", 2048, 8192, 16, 32, 64, 128256),
    "llama3_2_3b": ("llama", 3072, 8192, 28, 24, 128, 128256),
}


def shape_of(name: str) -> ModelConfig:
    family, hidden, intermediate, layers, heads, head_dim, vocab = SHAPES[name]
    return ModelConfig(
        family=family,  # type: ignore[arg-type]
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=8,
        head_dim=head_dim,
        rope=RopeConfig(1e6),
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        max_position_embeddings=40960,
    )


def test_every_config_is_tested():
    files = {path.stem for path in (Path(__file__).parents[1] / "configs").glob("[!_]*.py")}
    assert files == set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_the_figures_of_a_docstring_are_those_of_the_shapes(name):
    module, config = importlib.import_module(f"configs.{name}"), shape_of(name)
    model = abstract_model(config)
    adapter = jax.eval_shape(lambda: init_lora(model, LoraConfig(), jax.random.key(0)))
    trained = sum(leaf.size for leaf in jax.tree.leaves(adapter)) + config.hidden_size + 1
    per_token = training_flops(config, 1, 0, weights=False, remat=True)
    words = " ".join(module.__doc__.split())
    for figure in (
        f"weights {2 * config.num_parameters / 1e9:.2f} GB in bfloat16",
        f"{trained:,} trained parameters, {16 * trained / 1e6:.0f} MB",
        f"inputs of the layers {2 * 1024 * config.hidden_size * config.num_layers / 1e6:.0f} MB",
        f"{per_token / 1e9:.2f} GFLOP a token",
        f"{per_token * 157_000 * 400 * 3 / (0.4 * 989e12) / 3600:.1f} hours",
    ):
        assert figure in words


@pytest.mark.parametrize("name", SHAPES)
def test_the_recipe_is_the_papers(name):
    args = importlib.import_module(f"configs.{name}").ARGS
    recipe = (args.rank, args.alpha, args.dropout, args.batch_size, args.epochs, args.row_length)
    assert recipe == (16, 32.0, 0.1, 16, 3, 1024)
    assert (args.learning_rate, args.weight_decay, args.clip_norm) == (1e-4, 1e-4, 1.0)
    assert args.targets == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert (args.trained, args.objective, args.schedule) == ("lora", "mean", "constant")
