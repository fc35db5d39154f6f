"""A value model that is trained further begins with its weights, and with nothing else of its run."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import sia_jax
from sia_jax.data.records import Record, write_records
from sia_jax.types import flatten_names
from tests.support.checkpoints import assert_close, assert_same_trees, random_tokens, save_tiny_policy
from tests.support.trajectories import random_trajectories
from train import value_model
from train.value_model import Args, main

KINDS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4},
    "head": {"trained": "head"},
    "full": {"trained": "full"},
    "states": {"head": "vocab", "head_rank": 3, "states": "policy", "objective": "token"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/, base/, and a value model of each kind that has learned for two steps."""
    folder = tmp_path_factory.mktemp("warm")
    policy = save_tiny_policy(folder / "base", num_layers=1)
    records = [
        Record(f"r{t.number}", t.group, (), t.prompt_ids, t.reply_ids, t.reward)
        for t in random_trajectories(30, policy.config.vocab_size)
    ]
    write_records(folder / "data", records, {})
    for name, options in KINDS.items():
        train(folder, folder / name, max_steps=2, **options)
    return folder


def train(made: Path, out: Path, **options: Any) -> None:
    quick = {
        "epochs": 1,
        "batch_size": 8,
        "row_length": 32,
        "rows": 2,
        "learning_rate": 1e-2,
        "held_out": 0.2,
    }
    main(Args(data=made / "data", base=str(made / "base"), out=out, **quick | options))


def loaded(made: Path, folder: Path) -> sia_jax.ValueModel:
    own = (folder / "backbone").is_dir()
    return sia_jax.load_value_model(folder, None if own else sia_jax.load_policy(made / "base"))


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """What runs begin with: (frozen, state). They end there."""
    found: list[tuple[Any, Any]] = []

    def stop(frozen: Any, state: Any, *_: Any, **__: Any) -> None:
        found.append((frozen, state))
        raise FloatingPointError("before the first step")

    monkeypatch.setattr(value_model, "run", stop)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_begins_with_the_weights_and_with_an_optimiser_that_knows_nothing(
    kind: str, made: Path, tmp_path: Path, begun: list[tuple[Any, Any]]
) -> None:
    for init in ({}, {"init": str(made / kind / "last")}):
        with pytest.raises(SystemExit, match="before the first step"):
            train(made, tmp_path / f"{len(init)}", **KINDS[kind], **init)
    (_, new), (_, further) = begun
    was = loaded(made, made / kind / "last").params
    names = {"lora": {"lora", "value_head"}, "full": {"model", "value_head"}}.get(kind, {"value_head"})
    assert set(further.trained) == names
    assert_same_trees(further.trained, {name: was[name] for name in names})
    fresh = flatten_names(new.trained)
    assert any(np.any(leaf != fresh[name]) for name, leaf in flatten_names(further.trained).items())
    assert int(further.step) == 0
    for ours, theirs in zip(jax.tree.leaves(further.optimizer), jax.tree.leaves(new.optimizer), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_first_loss_is_that_of_the_value_model_which_it_began_with(made: Path, tmp_path: Path) -> None:
    # A rate that moves no weight in float32: what is evaluated after a step is what the run began with.
    options = KINDS["lora"] | {"dropout": 0.0, "learning_rate": 1e-30, "evaluate_every": 1, "max_steps": 1}
    train(made, tmp_path, init=str(made / "lora" / "last"), **options)
    began, ended = (loaded(made, folder / "last") for folder in (made / "lora", tmp_path))
    tokens = random_tokens(began.config.backbone, 3, 12)
    assert_close(ended.values(tokens, [12] * 3), began.values(tokens, [12] * 3))


def test_an_adapter_is_merged_into_a_backbone_that_is_trained_itself(
    made: Path, tmp_path: Path, begun: list[tuple[Any, Any]]
) -> None:
    init = made / "lora" / "last"
    with pytest.raises(SystemExit, match="before the first step"):
        train(made, tmp_path, trained="full", init=str(init))
    merged = sia_jax.load_value_model(init, made / "base").params
    assert_same_trees(begun[0][1].trained, {name: merged[name] for name in ("model", "value_head")})
    base = sia_jax.load_policy(made / "base").params["model"]
    query = ("layers", "0", "self_attn", "q_proj", "weight")
    moved = [flatten_names(tree)[".".join(query)] for tree in (merged["model"], base)]
    assert np.any(moved[0] != moved[1])


def test_an_adapter_that_changes_nothing_makes_room_for_a_new_one(
    made: Path, tmp_path: Path, begun: list[tuple[Any, Any]]
) -> None:
    with pytest.raises(SystemExit, match="before the first step"):
        train(made, tmp_path, rank=4, init=str(made / "head" / "last"))
    trained = begun[0][1].trained
    assert_same_trees(trained["value_head"], loaded(made, made / "head" / "last").params["value_head"])
    assert {leaf.shape[0] for name, leaf in flatten_names(trained["lora"]).items() if "lora_A" in name} == {4}


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("lora", {"rank": 8}, r"was made with --rank 4 \(now 8\)"),
        ("lora", {"rank": 4, "alpha": 3.0}, r"--alpha 32.0 \(now 3.0\)"),
        ("lora", {"rank": 4, "targets": ("q_proj",)}, r"--targets \[.*\] \(now \['q_proj'\]\)"),
        (
            "lora",
            {"trained": "head"},
            "has an adapter, which --trained head would drop; pass .*lora --rank 4",
        ),
        ("lora", KINDS["states"], r"--head 'scalar' \(now 'vocab'\), --head-rank None \(now 3\)"),
        ("states", KINDS["states"] | {"head_rank": 5}, r"--head-rank 3 \(now 5\)"),
        ("full", {"rank": 4}, "has a backbone of its own, and --trained lora keeps that of --base"),
        ("none", {"rank": 4}, "none"),
    ],
)
def test_what_cannot_be_begun_with_is_said_before_anything_is_written(
    kind: str, options: dict[str, Any], said: str, made: Path, tmp_path: Path, begun: list[tuple[Any, Any]]
) -> None:
    with pytest.raises(SystemExit, match=said):
        train(made, tmp_path / "out", init=str(made / kind / "last"), **options)
    assert not begun
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]


def test_a_run_goes_on_only_from_what_it_began_with(made: Path, tmp_path: Path) -> None:
    train(made, tmp_path / "out", rank=4, max_steps=1, init=str(made / "lora" / "last"))
    train(made, tmp_path / "other", rank=4, max_steps=1, seed=3)
    with pytest.raises(SystemExit, match="other settings: init_fingerprint"):
        train(made, tmp_path / "out", rank=4, max_steps=2, init=str(tmp_path / "other" / "last"))
