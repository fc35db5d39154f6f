"""300 prompts of the embedded world through Ray, and in shards: the replies and rewards of runs without."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sia_jax.world.files import world_models
from tests.cluster.drivers import RAY, driver, finish, kill, kill_an_actor, lines, until

pytestmark = pytest.mark.long

PROMPTS = 300


def generate(folder: Path, out: Path) -> tuple[str, ...]:
    models = world_models()
    prompts = folder / "prompts.jsonl"
    if not prompts.exists():
        rows = (models / "prompts" / "train.jsonl").read_bytes().splitlines(keepends=True)
        prompts.write_bytes(b"".join(rows[:PROMPTS]))
    return (
        *("decode.generate", "--policy", str(models / "policy"), "--value", str(models / "value")),
        *("--prompts", str(prompts), "--max-new-tokens", "64", "--batch", "16", "--out", str(out)),
    )


def label(replies: Path, out: Path) -> tuple[str, ...]:
    reward = str(world_models() / "reward")
    return ("train.label", "--input", str(replies), "--reward", reward, "--out", str(out))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what runs without Ray write: replies.jsonl and labelled.jsonl."""
    folder = tmp_path_factory.mktemp("world")
    replies = folder / "replies.jsonl"
    for command in (generate(folder, replies), label(replies, folder / "labelled.jsonl")):
        with driver(*command) as process:
            finish(process)
    assert lines(replies) == PROMPTS
    return folder


def whole(command: tuple[str, ...], journal: Path) -> None:
    with driver(*command, *RAY) as process:
        finish(process)


def with_an_actor_killed(command: tuple[str, ...], journal: Path) -> None:
    with driver(*command, *RAY) as process:
        until(lambda: lines(journal) > 0, "the first records are written", process)
        kill_an_actor(process)
        assert lines(journal) < PROMPTS, "the actor was killed after the work"
        finish(process)


def with_the_driver_killed(command: tuple[str, ...], journal: Path) -> None:
    with driver(*command, *RAY) as process:
        until(lambda: lines(journal) > 0, "the first records are written", process)
        kill(process)
    assert 0 < lines(journal) < PROMPTS, "the driver was killed after the work"
    with driver(*command, *RAY) as process:
        assert "going on after" in finish(process)


@pytest.mark.parametrize("run", [whole, with_an_actor_killed, with_the_driver_killed])
def test_replies_are_those_of_a_run_without_ray(
    run: Callable[[tuple[str, ...], Path], None], folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "replies.jsonl"
    run(generate(folder, out), out)
    assert out.read_bytes() == (folder / "replies.jsonl").read_bytes()


@pytest.mark.parametrize("run", [whole, with_an_actor_killed, with_the_driver_killed])
def test_rewards_are_those_of_a_run_without_ray(
    run: Callable[[tuple[str, ...], Path], None], folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "labelled.jsonl"
    run(label(folder / "replies.jsonl", out), tmp_path / "labelled.jsonl.partial.jsonl")
    assert out.read_bytes() == (folder / "labelled.jsonl").read_bytes()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_merged_shards_are_the_files_of_a_run_of_all(count: int, folder: Path, tmp_path: Path) -> None:
    out, labelled = tmp_path / "replies.jsonl", tmp_path / "labelled.jsonl"
    partial = tmp_path / "labelled.jsonl.partial.jsonl"
    for command, merged in ((generate(folder, out), out), (label(out, labelled), partial)):
        for index in range(count):
            with driver(*command, "--shard", f"{index}/{count}") as process:
                finish(process)
        parts = sorted(tmp_path.glob(f"{merged.stem}.*-of-{count}.jsonl"))
        with driver("decode.merge", *map(str, parts), "--out", str(merged)) as process:
            finish(process)
    with driver(*label(out, labelled)) as process:
        finish(process)
    assert out.read_bytes() == (folder / "replies.jsonl").read_bytes()
    assert labelled.read_bytes() == (folder / "labelled.jsonl").read_bytes()
