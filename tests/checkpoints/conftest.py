"""Folders of tiny checkpoints, whole, for the tests to spoil."""

import pytest

import sia_jax
from tests.support.checkpoints import save_tiny_policy, save_tiny_value_model, tiny_policy


@pytest.fixture
def base(tmp_path):
    """A folder with an untied policy."""
    save_tiny_policy(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def shards(tmp_path):
    """A folder with the same policy in some ten shards."""
    sia_jax.save_policy(tiny_policy(), tmp_path / "shards", max_shard_bytes=5000)
    return tmp_path / "shards"


@pytest.fixture
def policy():
    return tiny_policy()


@pytest.fixture
def value(tmp_path, policy):
    """A folder with a value model over `policy`, in our layout."""
    save_tiny_value_model(tmp_path / "value", policy)
    return tmp_path / "value"


@pytest.fixture
def official(tmp_path, policy):
    """The same in the official layout."""
    save_tiny_value_model(tmp_path / "official", policy, layout="official")
    return tmp_path / "official"
