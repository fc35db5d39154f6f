"""Generate and label with Ray: the files of runs without, whoever is killed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from decode.generate import Args
from tests.cluster.drivers import RAY, driver, finish, kill, kill_an_actor, lines, until
from tests.support.labelling import LINES, save_models_and_input, usual_args
from tests.support.replying import generation_args, save_models
from train import label

REPLIES = 80


@pytest.fixture(scope="module")
def args(tmp_path_factory: pytest.TempPathFactory) -> Args:
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    rows = [{"prompt": f"What is {n} and {7 * n % 13}?"} for n in range(38)]
    rows += [{"prompt": rows[0]["prompt"]}, {"prompt": "Which train is it?", "seed": 7, "threshold": "inf"}]
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return replace(generation_args(folder), prompts=str(prompts), samples=2, batch=4)


@pytest.fixture(scope="module")
def finished(args: Args, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a run without Ray writes."""
    path = tmp_path_factory.mktemp("finished") / "replies.jsonl"
    run("decode.generate", *options(args, path))
    assert lines(path) == REPLIES
    return path.read_bytes()


def run(module: str, *options: str) -> str:
    """A whole run, in a process that compiles as those of Ray do; what it says."""
    with driver(module, *options) as process:
        return finish(process)


def options(args: Args, out: Path) -> tuple[str, ...]:
    """A command line for the same run."""
    return (
        *("--policy", args.policy, "--value", str(args.value), "--prompts", str(args.prompts)),
        *("--threshold", str(args.threshold), "--max-new-tokens", str(args.max_new_tokens)),
        *("--samples", "2", "--batch", "4", "--out", str(out)),
    )


def test_replies_are_those_of_a_run_without_ray(args: Args, finished: bytes, tmp_path: Path) -> None:
    out = tmp_path / "replies.jsonl"
    run("decode.generate", *options(args, out), *RAY)
    assert out.read_bytes() == finished


def test_an_actor_that_is_killed_changes_nothing(args: Args, finished: bytes, tmp_path: Path) -> None:
    out = tmp_path / "replies.jsonl"
    with driver("decode.generate", *options(args, out), *RAY) as process:
        until(lambda: lines(out) > 0, "the first replies are written", process)
        kill_an_actor(process)
        assert lines(out) < REPLIES, "the actor was killed after the work"
        finish(process)
    assert out.read_bytes() == finished


def test_a_driver_that_is_killed_goes_on_with_ray_and_without(
    args: Args, finished: bytes, tmp_path: Path
) -> None:
    out, other = tmp_path / "replies.jsonl", tmp_path / "other.jsonl"
    with driver("decode.generate", *options(args, out), *RAY) as process:
        until(lambda: lines(out) > 0, "the first replies are written", process)
        kill(process)
    assert 0 < lines(out) < REPLIES
    other.write_bytes(out.read_bytes())
    assert "going on after" in run("decode.generate", *options(args, out), *RAY)
    assert out.read_bytes() == finished
    run("decode.generate", *options(args, other))
    assert other.read_bytes() == finished


def test_base_and_steered_are_those_of_a_run_without_ray(args: Args, tmp_path: Path) -> None:
    plain, out = tmp_path / "plain.jsonl", tmp_path / "replies.jsonl"
    run("decode.generate", *options(args, plain), "--compare", "--record")
    run("decode.generate", *options(args, out), "--compare", "--record", *RAY)
    assert out.read_bytes() == plain.read_bytes()


def test_what_the_actors_find_wrong_is_the_programs_message(args: Args, tmp_path: Path) -> None:
    out = tmp_path / "replies.jsonl"
    with driver("decode.generate", *options(args, out), *RAY, "--mesh", "64", "1", "1") as process:
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "decode.generate: an actor cannot work: " in errors
    assert "Traceback" not in errors


@pytest.fixture(scope="module")
def labelling(tmp_path_factory: pytest.TempPathFactory) -> label.Args:
    """Of 560 conversations, which are three blocks, the good and the bad."""
    folder = tmp_path_factory.mktemp("labelling")
    save_models_and_input(folder)
    text = (folder / "input.jsonl").read_text(encoding="utf-8-sig").splitlines()
    more = [json.dumps(line | {"copy": n}) for n in range(78) for line in LINES]
    (folder / "input.jsonl").write_text("\n".join([*text, *more]) + "\n", encoding="utf-8")
    return usual_args(folder)


@pytest.fixture(scope="module")
def labelled(labelling: label.Args, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """(conversations, report) of a run without Ray."""
    out = tmp_path_factory.mktemp("labelled") / "labelled.jsonl"
    run("train.label", *label_options(labelling, out))
    return label_files(out)


def label_files(out: Path) -> tuple[bytes, bytes]:
    return out.read_bytes(), out.with_name(f"{out.name}.report.json").read_bytes()


def label_options(args: label.Args, out: Path) -> tuple[str, ...]:
    return (
        *("--input", args.input, "--reward", *args.reward_model, "--out", str(out)),
        *("--max-tokens", str(args.max_tokens), "--batch-tokens", str(args.batch_tokens)),
    )


def test_labels_are_those_of_a_run_without_ray(
    labelling: label.Args, labelled: tuple[bytes, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "labelled.jsonl"
    run("train.label", *label_options(labelling, out), *RAY)
    assert label_files(out) == labelled


@pytest.mark.long
def test_labels_stay_when_an_actor_and_the_driver_are_killed(
    labelling: label.Args, labelled: tuple[bytes, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "labelled.jsonl"
    partial = tmp_path / "labelled.jsonl.partial.jsonl"
    with driver("train.label", *label_options(labelling, out), *RAY) as process:
        until(lambda: lines(partial) > 0, "the first rewards are written", process)
        kill(process)
    assert lines(partial) > 0
    with driver("train.label", *label_options(labelling, out), *RAY) as process:
        kill_an_actor(process)
        assert "going on after" in finish(process)
    assert label_files(out) == labelled
