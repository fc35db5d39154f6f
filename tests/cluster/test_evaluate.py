"""An evaluation with Ray: the records of a run without, in two phases where a random gate waits."""

from pathlib import Path

import pytest

from sia_jax.world.files import world_models
from tests.cluster.drivers import RAY, driver, finish, kill, kill_an_actor, lines, until
from tests.support.evaluated import results_of, timeless

pytestmark = pytest.mark.long

METHODS = ("base", "best-of", "entropy", "random")
PROMPTS, RECORDS = 12, 12 * 4


def command(folder: Path, out: Path) -> tuple[str, ...]:
    models = world_models()
    prompts = folder / "prompts.jsonl"
    if not prompts.exists():
        rows = (models / "prompts" / "test.jsonl").read_bytes().splitlines(keepends=True)
        prompts.write_bytes(b"".join(rows[:PROMPTS]))
    return (
        *("decode.evaluate", "--policy", str(models / "policy"), "--value", str(models / "value-token")),
        *("--reward", str(models / "reward"), "--gold-function", "sia_jax.world.rewards:gold"),
        *("--prompts", str(prompts), "--thresholds", str(models / "thresholds.json"), "--ratios", "0.2"),
        *("--methods", *METHODS, "--best-of", "2", "--seeds", "1", "--combined", "0", "--batch", "4"),
        *("--max-new-tokens", "160", "--resamples", "100", "--out", str(out)),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what a run without Ray writes, in plain/."""
    folder = tmp_path_factory.mktemp("evaluation")
    with driver(*command(folder, folder / "plain")) as process:
        finish(process)
    assert lines(folder / "plain" / "replies.jsonl") == RECORDS
    return folder


def test_records_and_results_are_those_of_a_run_without_ray(folder: Path, tmp_path: Path) -> None:
    with driver(*command(folder, tmp_path), *RAY) as process:
        said = finish(process)
    assert said.count("loading the models in 2 actors of Ray") == 2
    assert timeless(tmp_path / "replies.jsonl") == timeless(folder / "plain" / "replies.jsonl")
    assert results_of(tmp_path) == results_of(folder / "plain")


def test_killed_actors_and_drivers_change_nothing(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "replies.jsonl"
    with driver(*command(folder, tmp_path), *RAY) as process:
        until(lambda: lines(file) > 0, "the first records are written", process)
        kill(process)
    assert 0 < lines(file) < RECORDS
    with driver(*command(folder, tmp_path), *RAY) as process:
        kill_an_actor(process)
        assert "going on after" in finish(process)
    assert timeless(tmp_path / "replies.jsonl") == timeless(folder / "plain" / "replies.jsonl")
