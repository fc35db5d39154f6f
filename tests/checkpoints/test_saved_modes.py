"""Saved checkpoints can be read by those whom the umask lets read."""

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import sia_jax
from tests.support.checkpoints import tiny_policy, tiny_value_model
from tests.support.tokenizers import save_qwen3_tokenizer


@pytest.fixture(params=[0o022, 0o027])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_every_saved_file_has_the_mode_that_the_umask_says(tmp_path: Path, umask: int) -> None:
    policy = replace(tiny_policy(), tokenizer=save_qwen3_tokenizer(tmp_path / "tokenizer"))
    sia_jax.save_policy(policy, tmp_path / "policy")
    value = tiny_value_model(policy)
    for layout in ("sia_jax", "official"):
        sia_jax.save_value_model(value, tmp_path / layout, base_model="tiny", layout=layout)
    saved = [path for name in ("policy", "sia_jax", "official") for path in (tmp_path / name).rglob("*")]
    files = {path.name: path for path in saved if path.is_file()}
    assert {"model.safetensors", "tokenizer.json", "config.json"} <= set(files)
    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in files.values()} == {oct(0o666 & ~umask)}
