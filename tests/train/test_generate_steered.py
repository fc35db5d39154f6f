"""train.prepare --generate --value: replies that a value model steered, as records with the ids they have."""

import hashlib
import math
from pathlib import Path

import jax
import numpy as np
import pytest

import sia_jax
from tests.support.checkpoints import save_tiny_value_model
from tests.support.generating import LENGTH, QUESTIONS, N, replies, save_policies_and_prompts, vary
from tests.support.generating import usual_args as args_of
from train import prepare

STEERED = {"threshold": 2.0, "beta": 3.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save_policies_and_prompts(folder)
    save_tiny_value_model(folder / "value", sia_jax.load_policy(folder / "policy"))
    return folder


@pytest.fixture(scope="module")
def args(folder: Path) -> prepare.Args:
    return vary(args_of(folder), folder, value=str(folder / "value"), record_prompt="value", **STEERED)


@pytest.fixture(scope="module")
def finished(args: prepare.Args, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "set"
    prepare.main(vary(args, out))
    return out


def test_the_ids_are_those_of_steering_each_prompt_alone_with_its_key(
    args: prepare.Args, folder: Path, finished: Path
) -> None:
    policy = sia_jax.load_policy(folder / "policy")
    value = sia_jax.load_value_model(folder / "value", policy)
    config = sia_jax.SamplerConfig(policy=policy.config, value=value.config, max_new_tokens=LENGTH)
    steered = changed = 0
    for question, found in replies(finished).items():
        messages = [{"role": "user", "content": question}]
        ids = policy.prompt_ids(messages)
        digest = hashlib.sha256(np.array(ids, "<i4").tobytes()).digest()
        key = jax.random.key(5, impl="threefry2x32")
        for word in (digest[:4], digest[4:8]):
            key = jax.random.fold_in(key, np.uint32(int.from_bytes(word, "big")))
        for branch, tokens in enumerate(found):
            own = []
            for threshold in (2.0, math.inf):
                samples = sia_jax.sample(
                    sia_jax.SteeringParams(policy.params, value.params),
                    sia_jax.Prompt.pack([ids], [value.prompt_ids(messages)]),
                    threshold,
                    rng_key=jax.random.fold_in(key, branch)[None],
                    config=config,
                    knobs=sia_jax.Knobs(beta=3.0),
                )
                own.append(samples.tokens[0, : samples.lengths[0]].tolist())
            assert tokens == own[0]
            steered, changed = steered + 1, changed + (own[0] != own[1])
    assert steered == N * len(QUESTIONS)
    assert changed > steered // 2


def test_the_value_model_that_steers_is_part_of_what_a_run_goes_on_from(
    args: prepare.Args, folder: Path, tmp_path: Path
) -> None:
    save_tiny_value_model(folder / "another", sia_jax.load_policy(folder / "policy"), seed=1)
    out = tmp_path / "begun"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "_write", fail)
        with pytest.raises(SystemExit, match="the disk is full"):
            prepare.main(vary(args, out))
    for changes, said in (
        ({"value": str(folder / "another")}, "value 'value' .now 'another'."),
        ({"beta": 2.0}, "beta 3.0 .now 2.0."),
        ({"threshold": 1.0}, "threshold 2.0 .now 1.0."),
    ):
        with pytest.raises(SystemExit, match=f"other settings: .*{said}"):
            prepare.main(vary(args, out, **changes))
    assert [path.name for path in out.iterdir()] == [prepare.PARTIAL]


def fail(*_: object, **__: object) -> None:
    raise OSError("the disk is full")


@pytest.mark.parametrize("name", ["threshold", "beta", "tilt_bound"])
def test_an_option_of_steering_needs_a_value_model(name: str, args: prepare.Args, tmp_path: Path) -> None:
    none = {"value": None, "threshold": None, "beta": None}
    with pytest.raises(
        SystemExit, match=f"--{name.replace('_', '-')}.* needs a value model: give --value DIR"
    ):
        prepare.main(vary(args, tmp_path / "out", **none | {name: 1.0}))
