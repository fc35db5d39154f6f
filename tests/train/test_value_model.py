"""The program from a data folder to value models that load again."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sia_jax
from sia_jax.data.records import read_records, write_records
from sia_jax.models.config import ValueConfig
from sia_jax.models.value_model import init_value_head
from sia_jax.reports import training_view
from sia_jax.reports.training_view import RunView
from sia_jax.runs.console import Terminal
from sia_jax.training.checkpoint import Checkpoints
from sia_jax.training.config import TrainConfig
from sia_jax.training.loop import StepReport, evaluations_apart, held_out_groups, held_out_share
from sia_jax.training.step import init_state
from sia_jax.types import flatten_names
from tests.support.checkpoints import assert_close, assert_same_trees, random_tokens, save_tiny_policy
from tests.support.marks import long
from train import value_model
from train.value_model import Args, main
from train.value_model_options import train_config

ROOT = Path(__file__).parents[2]
QUICK = {"epochs": 2, "batch_size": 8, "row_length": 32, "rows": 2, "rank": 4, "learning_rate": 1e-2}


def train(folders: tuple[Path, Path], out: Path, **options) -> None:
    data, base = folders
    quick = QUICK | {"held_out": 0.2, "evaluate_every": 4} | options
    if quick.get("trained", "lora") != "lora" or "states" in quick:
        del quick["rank"]
    main(Args(data=data, base=str(base), out=out, **quick))


def load(folder: Path, base: Path) -> sia_jax.ValueModel:
    own = (folder / "backbone").is_dir()
    return sia_jax.load_value_model(folder, None if own else sia_jax.load_policy(base))


@pytest.fixture
def no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run ends before its first step."""

    def stop(*_, **__):
        raise FloatingPointError("before the first step")

    monkeypatch.setattr(value_model, "run", stop)


def metrics(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_run_ends_in_value_models_metrics_and_a_picture(folders, tmp_path, capsys):
    train(folders, tmp_path)
    said = capsys.readouterr().err
    assert "longer than a row: 1 (3)" in said
    assert "no reward: 1 (4)" in said
    last, best = (load(tmp_path / name, folders[1]) for name in ("last", "best"))
    assert last.config.lora is not None
    assert (last.config.lora.rank, last.config.head) == (4, "scalar")
    lines = metrics(tmp_path)
    steps = [line["step"] for line in lines if line["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1))
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    assert evaluations[-1]["step"] == steps[-1]
    lowest = min(evaluations, key=lambda line: line["loss"])
    recorded = json.loads((tmp_path / "best" / "value_model.json").read_text())
    assert (recorded["step"], recorded["best_step"]) == (lowest["step"], lowest["step"])
    assert recorded["held_out_loss"] == pytest.approx(lowest["loss"])
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert flatten_names(best.params).keys() == flatten_names(last.params).keys()


@pytest.mark.parametrize("trained", ["lora", long("full")])
def test_stopped_by_its_own_limit_and_started_again_a_run_ends_the_same(trained, folders, tmp_path):
    train(folders, tmp_path / "whole", trained=trained)
    train(folders, tmp_path / "parts", trained=trained, max_steps=3)
    assert [line["step"] for line in metrics(tmp_path / "parts")] == [1, 2, 3]
    train(folders, tmp_path / "parts", trained=trained)
    whole, parts = (load(tmp_path / name / "last", folders[1]) for name in ("whole", "parts"))
    assert_same_trees(parts.params, whole.params)
    timing = {"seconds", "tokens_per_second", "mfu"}
    kept = [
        [{k: x for k, x in line.items() if k not in timing} for line in metrics(tmp_path / name)]
        for name in ("whole", "parts")
    ]
    assert kept[0] == kept[1]


def test_a_folder_of_a_run_with_other_settings_is_refused(folders, tmp_path):
    train(folders, tmp_path, max_steps=1)
    with pytest.raises(SystemExit, match=r"other settings: learning_rate 0.01 \(now 0.5\)"):
        train(folders, tmp_path, learning_rate=0.5)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"rank": 4, "rank": 4}', "\xff"])
def test_settings_of_a_run_that_are_damaged_are_named(folders, tmp_path, text):
    (tmp_path / "settings.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(SystemExit, match=r"settings\.json.*; name another --out"):
        train(folders, tmp_path)
    assert (tmp_path / "settings.json").read_bytes() == text.encode("latin-1")


def test_a_folder_of_a_run_on_other_data_is_refused(folders, tmp_path):
    train(folders, tmp_path / "vm", max_steps=1)
    other = [replace(record, reward=1.0) for record in read_records(folders[0])]
    write_records(tmp_path / "other", other, {})
    with pytest.raises(SystemExit, match="other settings: data_sha256"):
        train((tmp_path / "other", folders[1]), tmp_path / "vm")
    # The groups decide what is held out.
    other = [replace(record, group=record.id) for record in read_records(folders[0])]
    write_records(tmp_path / "other", other, {}, overwrite=True)
    with pytest.raises(SystemExit, match="other settings: data_sha256"):
        train((tmp_path / "other", folders[1]), tmp_path / "vm")


@pytest.mark.parametrize("name", ["metrics.jsonl", "curves.png", "checkpoints/1", "last/a", "best/a"])
def test_a_folder_of_something_else_stays_as_it_is(name, folders, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine\n")
    with pytest.raises(SystemExit, match=rf"holds {name.split('/')[0]} and no settings.json.*another --out"):
        train(folders, tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]
    assert path.read_text() == "mine\n"


def test_a_teacher_may_move_and_must_stay_what_it_was(folders, tmp_path):
    train(folders, tmp_path / "teacher", max_steps=1)
    train(folders, tmp_path / "other", max_steps=1, seed=1)
    shutil.copytree(tmp_path / "teacher", tmp_path / "moved")
    student = {"objective": "distil", "max_steps": 1}
    train(folders, tmp_path / "student", teacher=str(tmp_path / "teacher" / "last"), **student)
    train(folders, tmp_path / "student", teacher=str(tmp_path / "moved" / "last"), **student)
    with pytest.raises(SystemExit, match=r"other settings: teacher_fingerprint '\w{16}' \(now '\w{16}'\)"):
        train(folders, tmp_path / "student", teacher=str(tmp_path / "other" / "last"), **student)


@pytest.mark.long
def test_a_run_that_lost_patience_goes_on_with_more_of_it(folders, tmp_path):
    options = {"learning_rate": 3.0, "evaluate_every": 1}
    train(folders, tmp_path, patience=1, **options)
    stopped = metrics(tmp_path)[-1]["step"]
    train(folders, tmp_path, **options)
    whole = metrics(tmp_path)[-1]["step"]
    assert stopped < whole
    train(folders, tmp_path / "at once", **options)
    found = [load(out / "last", folders[1]).params for out in (tmp_path, tmp_path / "at once")]
    assert metrics(tmp_path / "at once")[-1]["step"] == whole
    assert_same_trees(*found)


def test_a_held_out_reward_that_no_loss_can_hold_is_said_to_be_that(folders, tmp_path):
    records = list(read_records(folders[0]))
    out = held_out_groups([r.group for r in records if r.id not in ("long", "bare")], 0.2, 0)
    write_records(tmp_path / "far", [replace(r, reward=1e25) if r.group in out else r for r in records], {})
    with pytest.raises(
        SystemExit, match="loss of the held-out replies is inf after step 4: look for a reward"
    ):
        train((tmp_path / "far", folders[1]), tmp_path / "vm")


def test_a_run_whose_best_weights_were_lost_does_not_pass_off_others_as_them(folders, tmp_path):
    train(folders, tmp_path)
    best = json.loads((tmp_path / "best" / "value_model.json").read_text())["best_step"]
    shutil.rmtree(tmp_path / "checkpoints" / "best")
    shutil.rmtree(tmp_path / "best")
    with pytest.raises(
        SystemExit, match=f"the best weights, of step {best}, are not in .*last.* holds those"
    ):
        train(folders, tmp_path)
    assert not (tmp_path / "best").exists()


def test_memory_that_is_full_is_said_with_what_needs_less(folders, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore")

    monkeypatch.setattr(value_model, "run", fail)
    with pytest.raises(
        SystemExit, match=r"the memory is full .*9 bytes\.\); lower --rows, now 2, pass --remat"
    ):
        train(folders, tmp_path)


def test_a_signal_in_the_last_step_is_not_forgotten(folders, tmp_path, monkeypatch):
    """It comes when nothing asks for it any more: what was done is written, and the status says so."""
    wait = Checkpoints.wait

    def interrupted(self):
        if not (tmp_path / "last").exists() and not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))
        wait(self)

    sent = []
    monkeypatch.setattr(Checkpoints, "wait", interrupted)
    with pytest.raises(SystemExit) as stopped:
        train(folders, tmp_path, evaluate_every=100)
    assert stopped.value.code == 128 + signal.SIGTERM
    load(tmp_path / "last", folders[1])


@pytest.mark.parametrize(
    "options",
    [
        {"trained": "head"},
        long({"head": "vocab", "head_rank": 3}),
        long({"objective": "token", "schedule": "cosine", "warmup_steps": 2, "remat": True}),
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_other_things_to_train(options, folders, tmp_path):
    train(folders, tmp_path, epochs=1, **options)
    value = load(tmp_path / "last", folders[1])
    assert value.config.head == options.get("head", "scalar")
    losses = [line["loss"] for line in metrics(tmp_path) if line["kind"] == "step"]
    assert np.all(np.isfinite(losses))


STATES = {"head": "vocab", "head_rank": 3, "states": "policy"}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("layout", ["sia_jax", long("official")])
def test_a_full_run_brings_its_backbone_and_leaves_the_base_alone(layout, folders, tmp_path):
    base = sia_jax.load_policy(folders[1])
    before = files(folders[1])
    train(folders, tmp_path, trained="full", layout=layout)
    assert files(folders[1]) == before
    config = ValueConfig(base.config)
    fresh = {"model": base.params["model"], "value_head": init_value_head(config, jax.random.key(0))}
    key = jax.random.key(0, impl="threefry2x32")
    like = init_state(fresh, key, config=TrainConfig(config, trained="full"))
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    tokens, lengths = random_tokens(base.config, 3, 12), [12, 5, 9]
    for name in ("last", "best"):
        restored = checkpoints.restore(like, best=name == "best")
        assert restored is not None
        trained = sia_jax.ValueModel(config, restored[0].trained)
        found = sia_jax.load_value_model(tmp_path / name)
        np.testing.assert_array_equal(found.values(tokens, lengths), trained.values(tokens, lengths))
        over = sia_jax.load_value_model(tmp_path / name, sia_jax.load_policy(tmp_path / name / "backbone"))
        assert_close(over.values(tokens, lengths), trained.values(tokens, lengths), 1e-6)
        for module, weight in flatten_names(restored[0].trained["model"]).items():
            assert np.any(np.asarray(weight) != flatten_names(base.params["model"])[module]), module
        with pytest.raises(ValueError, match="was trained on other weights"):
            sia_jax.load_value_model(tmp_path / name, base)
    checkpoints.close()


def test_a_full_run_on_a_bfloat16_base_is_float32(folders, tmp_path):
    save_tiny_policy(tmp_path / "base", num_layers=1, dtype=jnp.bfloat16)
    train((folders[0], tmp_path / "base"), tmp_path / "out", trained="full", max_steps=1)
    found = sia_jax.load_policy(tmp_path / "out" / "last" / "backbone")
    assert {leaf.dtype for leaf in jax.tree.leaves(found.params)} == {jnp.dtype("float32")}
    moved = flatten_names(found.params["model"])["norm.weight"] - 1
    assert np.any(moved.astype(jnp.bfloat16).astype(jnp.float32) != moved)


@pytest.mark.parametrize(("teacher", "student"), [long("lora", "full"), ("full", "lora")])
def test_teacher_and_student_may_differ_in_what_is_trained(teacher, student, folders, tmp_path):
    train(folders, tmp_path / "teacher", trained=teacher, max_steps=1)
    options = {"objective": "distil", "teacher": str(tmp_path / "teacher" / "last")}
    train(folders, tmp_path / "student", trained=student, max_steps=2, **options)
    losses = [line["loss"] for line in metrics(tmp_path / "student")]
    assert len(losses) == 2
    assert np.all(np.isfinite(losses))


def test_a_short_run_is_evaluated_at_least_four_times_on_enough_prompts(folders, tmp_path, capsys):
    train(folders, tmp_path, held_out=None, evaluate_every=None)
    evaluations = [line for line in metrics(tmp_path) if line["kind"] == "evaluation"]
    groups = {record.group for record in read_records(folders[0]) if record.id not in ("long", "bare")}
    held_out = held_out_groups(sorted(groups), held_out_share(len(groups)), 0)
    assert len(evaluations) >= 4
    assert len(held_out) == round(len(groups) / 5)
    said = " ".join(capsys.readouterr().err.split())
    count, pairs = evaluations[-1]["count"], evaluations[-1]["pairs"]
    assert f"(of {count} replies)" in said
    assert f"(of {pairs})" in said
    assert f"{count} held-out replies are too few to tell" in said


@pytest.mark.parametrize(
    ("prompts", "held_out"), [(1, 0), (2, 1), (10, 2), (50, 10), (100, 20), (1000, 20), (10_000, 100)]
)
def test_where_no_share_is_asked_for_twenty_prompts_or_a_fifth_are_held_out(prompts, held_out):
    names = [str(i) for i in range(prompts)]
    assert len(held_out_groups(names, held_out_share(prompts), 0)) == held_out


@pytest.mark.parametrize("steps", [1, 3, 4, 7, 100, 799, 800, 801, 100_000])
def test_a_run_of_four_steps_or_more_is_evaluated_four_times(steps):
    apart = evaluations_apart(steps)
    assert 1 <= apart <= 200
    assert steps // apart >= min(steps, 4)


def test_flops_are_those_of_what_is_trained(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(training_view, "peak_flops", lambda device: 1e9)
    model = sia_jax.load_policy(folders[1]).config
    found = {}
    for trained in ("head", "lora", "full"):
        (tmp_path / trained).mkdir()
        args = Args(data=folders[0], base="", out=tmp_path / trained, trained=trained)
        config = train_config(args, model, None, 9)
        view = RunView(args.out, args.base, config, 9, Terminal(quiet=True), chief=True)
        view.start(0)
        view.step(StepReport(1, 0.1, 1.0, 1.0, 1.0, 1.0, 1.0, tokens=900, computed=1000, seconds=2.0))
        (found[trained],) = (line["mfu"] for line in metrics(tmp_path / trained))
    assert found["lora"] == pytest.approx(2 * found["head"])  # forward, and backward to the activations
    assert found["full"] == pytest.approx(3 * found["head"])  # and to the weights


@pytest.mark.long
def test_a_vocab_head_learns_from_a_scalar_one(folders, tmp_path):
    train(folders, tmp_path / "teacher", epochs=1)
    student = {"objective": "distil", "teacher": str(tmp_path / "teacher" / "last")}
    train(folders, tmp_path / "student", epochs=6, head="vocab", head_rank=8, **student)
    losses = [line["loss"] for line in metrics(tmp_path / "student") if line["kind"] == "step"]
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])


def test_the_official_layout(folders, tmp_path):
    train(folders, tmp_path, layout="official")
    assert {p.name for p in (tmp_path / "last").iterdir()} == {
        "lora_weights",
        "model_config.json",
        "token_reward_head.pt",
    }
    load(tmp_path / "last", folders[1])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": Path("nowhere")}, "there is no set of records"),
        ({"base": "nowhere"}, "nowhere"),
        ({"mesh": (3, 1, 1)}, "devices"),
        ({"rows": 0}, "--rows must be 1 or more, got 0"),
        ({"epochs": 0}, "--epochs must be 1 or more, got 0"),
        ({"batch_size": 0}, "--batch must be 1 or more, got 0"),
        ({"keep": 0}, "--keep must be 1 or more, got 0"),
        ({"seed": -1}, "--seed must be an integer in 0 .."),
        ({"head": "vocab"}, "--head vocab has an inner width: give --head-rank R"),
        ({"objective": "distil"}, "--objective distil learns from a value model: give --teacher DIR"),
        ({"states": "policy"}, "is for a vocab head, which reads the prefix alone, got --head scalar; pass"),
        (STATES | {"trained": "full"}, "--states policy trains the head alone, got --trained full"),
        (STATES, "--rank is for --states own"),
        ({"row_length": 2}, "nothing to train on"),
        ({"trained": "full", "rank": 16, "dtype": "bfloat16"}, "pass --dtype float32"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_line(options, said, folders, tmp_path):
    data, base = folders
    with pytest.raises(SystemExit) as caught:
        main(Args(**({"data": data, "base": str(base), "out": tmp_path} | QUICK | options)))
    message = str(caught.value)
    assert message.startswith("train.value_model: ")
    assert said in message


OUT_OF_RANGE = {
    "rank": 0,
    "alpha": math.nan,
    "dropout": 1.0,
    "targets": ("q_proj", "lm_head"),
    "learning_rate": 0.0,
    "weight_decay": -1.0,
    "clip_norm": math.inf,
    "warmup_steps": -1,
    "epochs": 0,
    "row_length": 0,
    "rows": 0,
    "held_out": 1.0,
    "seed": 2**32,
    "evaluate_every": 0,
    "checkpoint_every": 0,
    "keep": 0,
    "patience": 0,
    "max_steps": -3,
}


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_a_number_out_of_its_range_is_said_with_its_option_before_anything_is_read(name, tmp_path):
    args = Args(data=tmp_path / "none", base="none", out=tmp_path / "out", **{name: OUT_OF_RANGE[name]})
    with pytest.raises(SystemExit, match=f"train.value_model: --{name.replace('_', '-')} must "):
        main(args)


def test_every_number_has_a_range():
    numbers = {f.name for f in fields(Args) if type(f.default) in (int, float)} | {"evaluate_every"}
    assert numbers - {"batch_size"} <= OUT_OF_RANGE.keys()  # --batch, as above


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"head_rank": 4}, "--head-rank is for --head vocab"),
        ({"head": "vocab", "head_rank": 0}, "--head-rank must be 1 or more, got 0"),
        ({"head": "vocab", "head_rank": 4, "layout": "official"}, "--layout official holds a scalar head"),
        ({"teacher": "there"}, "--teacher is for --objective distil"),
        ({"trained": "full", "rank": 4}, "--rank is for --trained lora"),
        ({"trained": "head", "targets": ("q_proj",)}, "--targets is for --trained lora"),
        ({"held_out": 0.0, "patience": 3}, "--patience is for a --held-out above 0"),
    ],
)
def test_an_option_of_another_mode_is_refused_before_anything_is_read(options, said, tmp_path):
    with pytest.raises(SystemExit, match=said):
        main(Args(data=tmp_path / "none", base="none", out=tmp_path / "out", **options))


def test_more_steps_to_warm_up_than_there_are_is_said_with_its_option(folders, tmp_path):
    with pytest.raises(SystemExit, match=r"--warmup-steps must be less than the steps .* \d+, got 900"):
        train(folders, tmp_path, warmup_steps=900)


@pytest.mark.parametrize("share", [0.99, 0.9999])
def test_a_share_that_leaves_nothing_to_train_on_is_named(share, folders, tmp_path):
    with pytest.raises(SystemExit, match=rf"--held-out {share:g} holds out all \d+ prompts of .*; lower it"):
        train(folders, tmp_path, held_out=share)


@pytest.mark.parametrize(("share", "now"), [(0.5, "0.5"), (None, "0.2")])
def test_where_too_few_are_held_out_the_share_is_said_that_is_to_be_raised(
    share, now, folders, tmp_path, capsys, no_steps
):
    with pytest.raises(SystemExit, match="before the first step"):
        train(folders, tmp_path, held_out=share)
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(rf"\d+ of \d+ prompts are held out: raise --held-out, now {now}, or train on more", said)


def test_help_teaches():
    command = [sys.executable, "-m", "train.value_model", "--help"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    for word in ("--data", "--base", "The paper's recipe", "--mesh DATA FSDP TENSOR", "curves.png"):
        assert word in found.stdout


@pytest.mark.parametrize("sent", [signal.SIGINT, long(signal.SIGTERM)])
def test_interrupted_it_keeps_its_last_step_and_says_so(sent, folders, tmp_path):
    data, base = folders
    command = [sys.executable, "-m", "train.value_model", "--data", data, "--base", base, "--out", tmp_path]
    command += ["--epochs", "5000", "--row-length", "32", "--trained", "head", "--checkpoint-every", "5"]
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    last, deadline = tmp_path / "checkpoints" / "last", time.monotonic() + 500
    try:
        # Whichever it is: the first is deleted when there are enough after it.
        while not any(path.name.isdigit() for path in last.glob("*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 128 + sent
    said = re.search(r"goes on after step (\d+)", errors)
    assert said, errors
    assert (last / said[1]).is_dir()
