"""The configs of the paper's runs: what they say is so, and every command is one that its program takes."""

import importlib
import itertools
from pathlib import Path

import jax
import pytest

from decode.evaluate_options import methods_of
from sia_jax.costs.roofline import training_flops
from sia_jax.evaluation.calibration import Calibration
from sia_jax.evaluation.gate_numbers import GateNumbers
from sia_jax.evaluation.methods import GATES
from sia_jax.models.config import ModelConfig, RopeConfig
from sia_jax.models.lora import LoraConfig, init_lora
from sia_jax.models.transformer import abstract_model
from sia_jax.runs.cli import read_options
from tests.support.page_commands import commands

SHAPES = {
    "qwen3_0_6b": ("qwen3", 1024, 3072, 28, 16, 128, 151936),
    "qwen3_1_7b": ("qwen3", 2048, 6144, 28, 16, 128, 151936),
    "qwen3_4b": ("qwen3", 2560, 9728, 36, 32, 128, 151936),
    "llama3_2_1b": ("llama", 2048, 8192, 16, 32, 64, 128256),
    "llama3_2_3b": ("llama", 3072, 8192, 28, 24, 128, 128256),
}


EVALUATIONS = {
    "baselines": {"base", "base-best-of-8-by-reward", "dense", "entropy-0.2", "base-args-1-by-reward"},
    "gates": {
        "base",
        "dense",
        "entropy-0.1",
        "entropy-0.8",
        "random-0.1",
        "random-0.8",
        "position-0.2",
        "budget-0.2",
    },
    "with_best_of_n": {"base-best-of-8-by-reward", "entropy-0.2", "entropy-0.2-best-of-8-by-value"},
    "weak_to_strong": {"base", "dense", "entropy-0.2"},
    "post_trained": {"base", "dense", "entropy-0.2"},
}
"""Methods that each must have."""

README = Path(__file__).parents[1] / "configs" / "README.md"


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
    assert files == {*SHAPES, *EVALUATIONS, "thresholds"}


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


@pytest.mark.parametrize("name", [*SHAPES, *EVALUATIONS, "thresholds"])
def test_a_config_is_what_its_program_takes_and_may_be_given_another_value(name):
    module = importlib.import_module(f"configs.{name}")
    assert read_options(module.Args, [], default=module.ARGS) == module.ARGS
    assert read_options(module.Args, ["--out", "elsewhere"], default=module.ARGS).out != module.ARGS.out


@pytest.mark.parametrize("name", EVALUATIONS)
def test_an_evaluation_compares_what_it_says_at_the_shares_that_thresholds_are_made_for(name):
    args = importlib.import_module(f"configs.{name}").ARGS
    ratios = importlib.import_module("configs.thresholds").ARGS.ratios
    gates = {kind: {ratio: GateNumbers(1.0) for ratio in ratios} for kind in GATES}
    known = Calibration(Path("t.json"), "", dict.fromkeys(ratios, 1.0), gates, {}, {})
    methods = methods_of(args, known)
    assert {method.key for method in methods} >= EVALUATIONS[name]
    assert args.max_new_tokens == importlib.import_module("configs.thresholds").ARGS.max_new_tokens
    assert args.gold_reward == "Skywork/Skywork-Reward-V2-Llama-3.1-8B"


def test_every_command_of_the_page_writes_to_a_place_of_its_own_and_reads_what_another_wrote():
    made: list[str] = []
    thresholds, folders = set(), set()
    for _, flag, name, *words in commands("configs/README.md"):
        assert flag == "-m"
        given = dict(itertools.pairwise(words))
        made.append(given["--page" if name == "decode.compare" else "--out"])
        if name == "configs.thresholds":
            thresholds.add(given["--out"])
        elif name == "decode.compare":
            start = words.index("--folders") + 1
            assert folders.issuperset(words[start : start + 2])
        else:
            assert given["--thresholds"] in thresholds
            folders.add(given["--out"])
    assert len(made) == len(set(made)) == 10 + 3 * 4 * 5 + 2 * 4 * 3 + 2 * 4


def test_the_page_names_every_config_and_every_file_of_prompts():
    page = README.read_text()
    for name in ("thresholds", *EVALUATIONS, *SHAPES):
        assert f"`{name}`" in page
    prompts = {Path(importlib.import_module(f"configs.{name}").ARGS.prompts).name for name in EVALUATIONS}
    for name in {*prompts, "wildguard_test.parquet"}:
        assert f"`{name}`" in page
