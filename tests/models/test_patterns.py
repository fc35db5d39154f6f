"""Patterns over modules' paths mean what Python's `re` makes of them, and are matched in bounded time."""

import contextlib
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sia_jax.models.config import ModelConfig
from sia_jax.models.patterns import check_patterns, matches_end, matches_whole
from sia_jax.models.shapes import backbone_shapes
from sia_jax.models.transformer import abstract_model
from sia_jax.types import flatten_names
from tests.support.checkpoints import tiny_config

PATHS = (
    "model.layers.0.self_attn.q_proj",
    "model.layers.11.mlp.up_proj",
    "layers.1.k_proj",
    "ab.ab",
    "aab",
    "",
)
ATOMS = (
    "a",
    "b",
    "q_proj",
    r"\.",
    ".",
    "[ab]",
    "[^.]",
    "[a-q_]",
    r"\d",
    r"\w",
    "(?:q|up)_proj",
    "[]a]",
    "[a-]",
)
QUANTIFIERS = ("", "", "", "*", "+", "?", "{2}", "{,2}", "{1,}", "*?")
PLACES = ("^", "$", r"\b")

pieces = st.tuples(st.sampled_from(ATOMS), st.sampled_from(QUANTIFIERS)).map("".join) | st.sampled_from(
    PLACES
)
patterns = st.recursive(
    st.lists(pieces, min_size=1, max_size=3).map("".join),
    lambda inner: st.lists(inner, min_size=1, max_size=2).map(lambda parts: f"({'|'.join(parts)})?"),
    max_leaves=3,
)


@settings(max_examples=150)
@given(patterns)
def test_pattern_matches_what_re_matches(pattern):
    for path in PATHS:
        assert matches_whole(pattern, path) == (re.fullmatch(pattern, path) is not None)
        assert matches_end(pattern, path) == (re.match(rf"(.*\.)?({pattern})$", path) is not None)


@pytest.mark.parametrize(
    "pattern", [".?" * 300 + "#", "(.|.)" * 200 + "#", "((.*.*)*.*)*#", "(.{1,20}){1,20}#", ".*" * 900 + "#"]
)
def test_pattern_over_which_re_would_not_end_is_matched_in_time(pattern):
    start = time.monotonic()
    assert not matches_end(pattern, "model.layers.10.self_attn.q_proj")
    assert time.monotonic() - start < 2


@settings(max_examples=40)
@given(
    st.recursive(
        st.sampled_from([".", ".?", "(.|..)", r"(.?|\b)", "[^x]", "(..|)"]),
        lambda inner: st.builds(
            lambda parts, end: f"({''.join(parts)}){end}",
            st.lists(inner, min_size=1, max_size=2),
            st.sampled_from(["{20}", "*", "+", "{0,20}", "{19,20}", "?", "{20,}"]),
        ),
        max_leaves=6,
    )
)
def test_pattern_that_is_accepted_is_matched_at_once_however_its_repetitions_are_nested(unit):
    pattern = unit * (1900 // len(unit))
    start = time.process_time()
    with contextlib.suppress(ValueError):
        matches_end(pattern, PATHS[1])
    assert time.process_time() - start < 5


def test_patterns_are_bounded_in_their_sum_and_all_paths_of_a_deep_network_are_not_too_many():
    kinds = [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{n}_proj" for n in ("gate", "up", "down")]
    check_patterns(f"^model.layers.{layer}.{kind}" for layer in range(126) for kind in kinds)
    with pytest.raises(ValueError, match=r"all together they may take .* steps a module"):
        check_patterns(f"(({'.?' * 40}){{20}}){{20}}x{i}" for i in range(5))


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_shapes_from_sizes_alone_are_those_of_the_network(family):
    config: ModelConfig = tiny_config(family)
    built = {name: leaf.shape for name, leaf in flatten_names(abstract_model(config)).items()}
    assert list(backbone_shapes(config).items()) == list(built.items())
