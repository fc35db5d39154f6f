"""--ray without Ray: what is refused by name, and what is said where the package is missing."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from decode import evaluate, generate
from sia_jax.cluster.options import check_ray, resources, room_for
from sia_jax.extras import MissingExtraError
from train import label

GENERATE = generate.Args(policy="policy", prompt=("a",), output="out.jsonl", ray="local")
LABEL = label.Args(input="input.jsonl", reward_model=("reward",), out="out.jsonl", ray="local")
EVALUATE = evaluate.Args(
    policy="policy",
    value="value",
    reward=("reward",),
    prompts="prompts.jsonl",
    out="out",
    methods=("base",),
    ray="local",
)


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)


def test_without_the_package_the_remedy_is_said_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = (lambda: generate.main(GENERATE), lambda: label.main(LABEL), lambda: evaluate.main(EVALUATE))
    for run in runs:
        with pytest.raises(SystemExit, match=r"the package ray is not installed; .* 'sia_jax\[ray\]'"):
            run()
    assert list(tmp_path.iterdir()) == []


def test_without_the_option_the_package_is_not_asked_for() -> None:
    check_ray(replace(GENERATE, ray=None))
    with pytest.raises(MissingExtraError):
        check_ray(GENERATE)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ray": " "}, "--ray must be local, auto or the HOST:PORT of a cluster's head, got nothing"),
        ({"ray": "ray://head:10001"}, "got 'ray://head:10001'; from a machine outside of the cluster"),
        ({"ray_actors": 0}, "--ray-actors must be 1 or more, got 0"),
        ({"ray_takes": ("GPU",)}, "--ray-takes must be NAME=AMOUNT, such as GPU=1"),
        ({"ray_takes": ("GPU=0",)}, "with an amount above 0, got 'GPU=0'"),
        ({"ray_takes": ("GPU=1", "GPU=2")}, "--ray-takes GPU is given twice"),
        ({"shard": "0/2"}, "--shard and --ray both share the work out; give one of them"),
        ({"mesh": (0, 1, 1)}, "--mesh must be three sizes of 1 or more, got 0 1 1"),
        ({"ray": None, "ray_actors": 2}, "--ray-actors is for --ray ADDRESS; without that leave it out"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(given: dict[str, object], message: str) -> None:
    for args in (GENERATE, LABEL, EVALUATE):
        with pytest.raises(ValueError, match="--") as caught:
            check_ray(replace(args, **given))
        assert message in str(caught.value)


def test_each_program_refuses_what_ray_does_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="--ray needs a file to write to: give --out"):
        generate.main(replace(GENERATE, output=None))
    monkeypatch.setattr(label, "check_ray", lambda _: None)
    with pytest.raises(SystemExit, match="--distributed is for a run without --ray"):
        label.main(replace(LABEL, distributed=True))


def test_actors_take_a_core_and_what_they_are_told() -> None:
    assert resources(GENERATE) == {"CPU": 1}
    taken = resources(replace(GENERATE, ray_takes=("GPU=0.5", "CPU=4")))
    assert taken == {"CPU": 4, "GPU": 0.5}
    assert room_for({"CPU": 16.0, "GPU": 1.0}, taken) == 2
    assert room_for({"CPU": 16.0}, taken) == 0
    assert room_for({"CPU": 0.3}, {"CPU": 0.1}) == 3
