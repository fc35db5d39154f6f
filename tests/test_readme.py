"""The pages' examples run as they stand, on the embedded models and on tiny ones of the names they use."""

import re
from pathlib import Path

import numpy as np
import pytest

import sia_jax
from sia_jax.runs.programs import find_programs
from tests.support.checkpoints import save_tiny_policy, save_tiny_value_model, tiny_reward_model
from tests.support.page_commands import commands
from tests.support.tokenizers import save_qwen3_tokenizer

pytestmark = pytest.mark.optimised


@pytest.mark.long
def test_the_python_examples_of_the_readme_the_reference_and_the_engine_run(tmp_path, monkeypatch, capsys):
    root = Path(__file__).parents[1]
    first, further, own, engine = (
        block
        for page in ("README.md", "docs/reference.md", "docs/engine.md")
        for block in re.findall(r"```python\n(.*?)```", (root / page).read_text(), flags=re.DOTALL)
        if not block.startswith("# judging.py")  # a reward, which the commands of the reference use
    )
    base, reward = tmp_path / "Qwen/Qwen3-1.7B-Base", tmp_path / "Skywork/Skywork-Reward-V2-Qwen3-1.7B"
    policy = save_tiny_policy(base, vocab_size=400, max_position_embeddings=4096)
    save_tiny_value_model(tmp_path / "Runyi-Hu/SIA/VM-Qwen3-1.7B-Base", policy, layout="official")
    sia_jax.save_reward_model(tiny_reward_model(vocab_size=400), reward)
    save_tiny_value_model(tmp_path / "out/vm/best", policy)
    for folder in (base, reward):
        save_qwen3_tokenizer(folder)
    (tmp_path / "Qwen/Qwen3-1.7B").symlink_to(base)
    monkeypatch.chdir(tmp_path)
    assert len(first.splitlines()) <= 6
    names: dict = {}
    exec(first, names)
    text = capsys.readouterr().out
    assert "bread" in text
    assert text.split()[-1][-1] in ".!"
    exec(further, names)
    said = capsys.readouterr().out
    assert "tokens were steered)" in said
    assert said.endswith(names["engine"].generate("How do I bake bread?", threshold=0.8).text)
    names["engine"].close()
    names = {}
    exec(own, names)
    assert np.isfinite(names["score"]).all()
    capsys.readouterr()
    exec(engine, names)
    assert repr(names["reply"].usage) in capsys.readouterr().out


@pytest.mark.parametrize("name", sia_jax.__all__)
def test_every_public_name_has_a_docstring(name):
    assert getattr(sia_jax, name).__doc__


def test_the_pages_name_files_targets_and_programs_that_are_there():
    root = Path(__file__).parents[1]
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), flags=re.MULTILINE))
    programs = {one.words for one in find_programs()}
    for page in (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "docs/reference.md",
        "docs/data.md",
        "docs/guide.md",
    ):
        text = (root / page).read_text()
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert ((root / page).parent / link).exists(), f"{page}: {link}"
        for words in [*commands(page), *(code.split() for code in re.findall(r"`([^`\n]+)`", text))]:
            if words[:1] == ["make"] and len(words) > 1:
                assert words[1] in targets, f"{page}: {words}"
            if words[:1] == ["sia"] and len(words) > 1 and words[1].islower():
                assert tuple(words[1:2]) in programs or tuple(words[1:3]) in programs, f"{page}: {words}"


def test_the_reference_names_every_program():
    text = (Path(__file__).parents[1] / "docs/reference.md").read_text()
    said = {one.module: rf"sia {' '.join(one.words)}\b|`{one.words[-1]}`" for one in find_programs()}
    assert [module for module, words in said.items() if not re.search(words, text)] == []


def test_every_target_says_what_it_is_for_and_how_long_it_takes():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*?[^\\])$", makefile, flags=re.MULTILINE | re.DOTALL)
    told = dict(re.findall(r"@echo '  make ([a-z-]+) +([\d.-]+ (?:min|h)\b)?", makefile))
    inner = {"help", "check-demo", "parity-env", "tpu-training", "tpu-sampling"}
    assert set(told) == set(phony.replace("\\\n", " ").split()) - inner
    assert {name for name, time in told.items() if not time} == {"clean"}
