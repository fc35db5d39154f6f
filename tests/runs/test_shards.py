"""Shards: what --shard reads, what schedulers say, and that every row is in one share."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sia_jax.runs.shards import Shard, find_shard


@given(total=st.integers(0, 300), count=st.integers(1, 40))
def test_every_row_is_in_one_shard_and_shares_differ_by_one_row_at_most(total: int, count: int) -> None:
    shares = [list(Shard(index, count).places(total)) for index in range(count)]
    assert sorted(place for share in shares for place in share) == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for index, share in enumerate(shares):
        assert share == [place for place in range(total) if Shard(index, count).owns(place)]


SLURM = {"SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "3", "SLURM_ARRAY_TASK_COUNT": "4"}
FROM_ONE = {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "4", "SLURM_ARRAY_TASK_COUNT": "4"}
SOME = {"SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "7", "SLURM_ARRAY_TASK_COUNT": "3"}


@pytest.mark.parametrize(
    ("text", "environment", "shard"),
    [
        (None, {}, None),
        ("0/1", {}, Shard(0, 1)),
        ("4/5", SLURM | {"SLURM_ARRAY_TASK_ID": "2"}, Shard(4, 5)),
        ("env", SLURM | {"SLURM_ARRAY_TASK_ID": "2"}, Shard(2, 4)),
        ("env", FROM_ONE | {"SLURM_ARRAY_TASK_ID": "4"}, Shard(3, 4)),
        ("env", SOME | {"SLURM_ARRAY_TASK_ID": "7", "SIA_JAX_SHARDS": "8"}, Shard(7, 8)),
        ("env", {"JOB_COMPLETION_INDEX": "2", "SIA_JAX_SHARDS": "3"}, Shard(2, 3)),
    ],
)
def test_an_option_or_a_scheduler_says_which_shard(
    text: str | None, environment: dict[str, str], shard: Shard | None
) -> None:
    assert find_shard(text, environment) == shard


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("5/5", {}, r"i counts from 0, so it must lie in 0 .. 4, got 5"),
        ("0/0", {}, r"n must lie in 1 .. 1,000,000, got 0"),
        ("-1/4", {}, r"must be i/n, such as 0/4 for the first of four, or env, got '-1/4'"),
        ("1/4 ", {}, r"must be i/n"),
        ("1", {}, r"must be i/n"),
        ("٣/٤", {}, r"must be i/n"),
        ("1/9999999999", {}, r"must be i/n"),
        ("env", {}, r"neither SLURM_ARRAY_TASK_ID .* nor JOB_COMPLETION_INDEX .* is set; write --shard i/n"),
        (
            "env",
            SLURM | {"SLURM_ARRAY_TASK_ID": "1", "JOB_COMPLETION_INDEX": "1"},
            r"SLURM_ARRAY_TASK_ID and JOB_COMPLETION_INDEX are both set",
        ),
        ("env", SOME | {"SLURM_ARRAY_TASK_ID": "7"}, r"3 tasks from 0 to 7.*set SIA_JAX_SHARDS"),
        ("env", {"SLURM_ARRAY_TASK_ID": "1"}, r"SLURM_ARRAY_TASK_MIN must be a whole number, got nothing"),
        ("env", SLURM | {"SLURM_ARRAY_TASK_ID": "x"}, r"SLURM_ARRAY_TASK_ID must be a whole number, got 'x'"),
        ("env", SLURM | {"SLURM_ARRAY_TASK_ID": "9"}, r"it must lie in 0 .. 3, got 9"),
        ("env", {"JOB_COMPLETION_INDEX": "2"}, r"set SIA_JAX_SHARDS, or .*--shard \$JOB_COMPLETION_INDEX/N"),
        ("env", {"JOB_COMPLETION_INDEX": "3", "SIA_JAX_SHARDS": "3"}, r"must lie in 0 .. 2, got 3"),
    ],
)
def test_what_says_no_shard_is_refused_with_what_would(
    text: str, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^--shard.*{message}"):
        find_shard(text, environment)


def test_a_part_is_named_after_its_shard() -> None:
    path = Path("out/replies.jsonl.partial.jsonl")
    assert Shard(2, 12).part_of(path) == Path("out/replies.jsonl.partial.2-of-12.jsonl")
