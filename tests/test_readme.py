"""The README's examples run as they stand, on the embedded models and on tiny ones of the names it uses."""

import re
from pathlib import Path

import numpy as np
import pytest

import sia_jax
from tests.support.checkpoints import save_tiny_policy, save_tiny_value_model, tiny_reward_model
from tests.support.tokenizers import save_qwen3_tokenizer


def test_the_python_examples_of_the_readme_run(tmp_path, monkeypatch, capsys):
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    steer, own = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    base, reward = tmp_path / "Qwen/Qwen3-1.7B-Base", tmp_path / "Skywork/Skywork-Reward-V2-Qwen3-1.7B"
    policy = save_tiny_policy(base, vocab_size=400, max_position_embeddings=1024)
    save_tiny_value_model(tmp_path / "Runyi-Hu/SIA/VM-Qwen3-1.7B-Base", policy, layout="official")
    sia_jax.save_reward_model(tiny_reward_model(vocab_size=400), reward)
    for folder in (base, reward):
        save_qwen3_tokenizer(folder)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(steer, names)
    samples = names["samples"]
    assert samples.tokens.shape == (1, 128)
    known = set(names["policy"].tokenizer.get_vocab().values())
    assert set(np.asarray(samples.tokens).flat) <= known
    assert 0 < names["samples"].junction.mean() < 1
    assert names["text"].split()[-1][-1] in ".!"
    assert names["text"] in capsys.readouterr().out
    exec(own, names)
    assert np.isfinite(names["score"]).all()


@pytest.mark.parametrize("name", sia_jax.__all__)
def test_every_public_name_has_a_docstring(name):
    assert getattr(sia_jax, name).__doc__
