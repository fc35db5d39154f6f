"""Every `>>>` of a docstring prints what it says, and stands where the reference shows it as an example."""

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = [
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for folder in ("sia_jax", "decode", "train", "configs")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_print_what_they_say(name: str) -> None:
    module = importlib.import_module(name)
    written = Path(module.__file__ or "").read_text(encoding="utf-8")
    failed, attempted = doctest.testmod(module)
    assert failed == 0
    # One that no docstring holds, or that doctest does not find, is not run.
    assert attempted == len(re.findall(r"^ *>>> ", written, flags=re.MULTILINE))


@pytest.mark.parametrize("name", MODULES)
def test_examples_stand_under_their_heading(name: str) -> None:
    tree = ast.parse((ROOT / (name.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, nodes)]
    for text in texts:
        before, mark, _ = text.partition(">>> ")
        assert not mark or re.search(r"^Examples:$", before, flags=re.MULTILINE), text


def test_the_main_things_that_need_no_model_have_an_example() -> None:
    assert {
        "sia_jax.decoding.config",
        "sia_jax.decoding.prompt",
        "sia_jax.engine.request",
        "sia_jax.evaluation.risk",
        "sia_jax.models.config",
        "sia_jax.rewards.opinion_words",
        "sia_jax.steering.expressions",
        "sia_jax.steering.gates",
        "sia_jax.steering.tilts",
    } <= set(MODULES)
