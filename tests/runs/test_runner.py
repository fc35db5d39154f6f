"""What the programs that sample share: how prompts are read and made, and which models are taken."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from decode import generate
from decode.generate import Args
from sia_jax.data.prompts import parse_prompts
from sia_jax.runs import preflight, prompting, runner
from tests.support.checkpoints import assert_same_trees, edit_json, edit_tensors
from tests.support.replying import generation_args, save_models
from tests.support.tokenizers import save_qwen3_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    return folder


@pytest.fixture(scope="module")
def args(folder: Path) -> Args:
    return generation_args(folder)


def test_standard_input_is_read_by_the_program_that_reads_its_prompts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"Hello\n")))
    with pytest.raises(ValueError, match="--prompts must be a file, which is read again later"):
        prompting.read_prompt_file("-", None)
    (prompt,) = prompting.read_prompt_file("-", None, takes_stdin=True)
    assert prompt.messages == ({"role": "user", "content": "Hello"},)


def test_json_lines_on_stdin_may_begin_with_a_byte_order_mark(
    args: Args, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = io.BytesIO(b'\xef\xbb\xbf\n{"prompt": "Hello"}\n')
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=content))
    (prompt,) = generate._read(replace(args, prompts="-"))
    assert prompt.messages == ({"role": "user", "content": "Hello"},)


def test_the_form_of_a_file_of_prompts_is_said_once(
    args: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.csv"
    path.write_text('target,ask\nSure,"How?\nSoon?"\nSure,Why?\n')
    found = generate._read(replace(args, prompts=str(path), column="ask"))
    assert [prompt.messages[-1]["content"] for prompt in found if prompt.messages] == ["How?\nSoon?", "Why?"]
    assert capsys.readouterr().err == f"{path}: 2 prompts, read as CSV, column ask\n"
    with pytest.raises(SystemExit, match=r"p\.csv, line 1: no column of prompts among"):
        generate.main(replace(args, prompts=str(path)))


def test_a_prompt_that_the_template_refuses_is_named(args: Args, folder: Path) -> None:
    policy = runner.prepare(args)
    assert policy.tokenizer is not None
    policy.tokenizer.chat_template = "{{ raise_exception('no system messages here') }}"
    (prompt,) = parse_prompts(b"Hello", "file")
    with pytest.raises(ValueError, match="prompt 0: the policy's chat template refuses it: line 1: no"):
        prompting.policy_ids(policy, prompt, replace(args, prompt_form="chat"))


def test_what_the_prompt_form_came_to_is_said_once_and_recorded(
    args: Args, tmp_path: Path, no_loading: None, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {
        ("auto", "paper"): ("chat", "prompt form: chat, the checkpoint's template (the checkpoint has one)"),
        ("auto", "official"): ("raw", "(the official code's, with --preset official)"),
        ("raw", "paper"): ("raw", "prompt form: raw, Human: ... Assistant: (as told)"),
    }
    for (form, preset), (recorded, why) in said.items():
        changes = {"prompt_form": form, "preset": preset, "output": str(tmp_path / f"{form}-{preset}.jsonl")}
        here = replace(args, **changes)
        assert runner.run_identity(here)["prompt_form"] == recorded
        with pytest.raises(AssertionError, match="models were loaded"):
            generate.main(here)
        err = " ".join(capsys.readouterr().err.split())
        assert (err.count("prompt form: "), err.count(why)) == (1, 1)
        assert err.count("enable_thinking=False (the default") == (recorded == "chat")


def test_prompts_in_ids_have_no_form(
    args: Args, tmp_path: Path, no_loading: None, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt_ids": [5, 6]}\n')
    with pytest.raises(AssertionError, match="models were loaded"):
        generate.main(replace(args, prompts=str(prompts), output=str(tmp_path / "replies.jsonl")))
    assert "prompt form" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"system": "Be kind."}, "--system"),
        ({"thinking": True}, "--thinking"),
        ({"date_string": "26 Jul 2024"}, "--date-string"),
        ({"prompt_form": "raw"}, "--prompt-form"),
    ],
)
def test_what_makes_prompts_is_refused_where_all_of_them_are_ids(
    args: Args, tmp_path: Path, no_loading: None, changes: dict[str, Any], option: str
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt_ids": [5, 6]}\n{"prompt_ids": [7]}\n')
    with pytest.raises(SystemExit, match=f"{option} is for prompts of text or messages"):
        generate.main(replace(args, prompts=str(prompts), **changes))
    prompts.write_text('{"prompt_ids": [5, 6]}\n{"prompt": "Hello"}\n')
    if option in ("--system", "--prompt-form"):  # of which the second prompt is made
        with pytest.raises(AssertionError, match="models were loaded"):
            generate.main(replace(args, prompts=str(prompts), **changes))


def test_a_journal_that_says_auto_is_refused_with_the_reason(
    args: Args, tmp_path: Path, no_loading: None
) -> None:
    here = replace(args, output=str(tmp_path / "replies.jsonl"))
    now = {"draws": "content", "samples": 1, "record": False}
    old = runner.run_identity(here) | now | {"prompt_form": "auto"}
    Path(here.output or "").write_text(json.dumps({"settings": old}) + "\n")
    with pytest.raises(
        SystemExit, match=r"prompt_form 'auto' \(now 'chat'\); an earlier release wrote .*--overwrite"
    ):
        generate.main(here)


def test_a_template_that_writes_today_s_date_needs_another(args: Args) -> None:
    policy = runner.prepare(args)
    assert policy.tokenizer is not None
    date = "{{ date_string if date_string else strftime_now('%d') }}"
    policy.tokenizer.chat_template = date + " {{ messages[0].content }}"
    (prompt,) = parse_prompts(b"Hello", "file")
    chat = replace(args, prompt_form="chat")
    with pytest.raises(ValueError, match=r"today's date into every conversation.*--date-string"):
        prompting.policy_ids(policy, prompt, chat)
    ids = prompting.policy_ids(policy, prompt, replace(chat, date_string="26 Jul 2024"))
    assert policy.tokenizer.decode(ids) == "26 Jul 2024 Hello"
    assert runner.run_identity(replace(chat, date_string="26 Jul 2024"))["date_string"] == "26 Jul 2024"
    assert prompting.policy_ids(policy, prompt, replace(args, prompt_form="raw"))


def test_a_value_model_of_another_base(args: Args, folder: Path) -> None:
    other = replace(args, value=str(folder / "other-value"))
    with pytest.raises(SystemExit, match=r"trained on other weights.*--value-backbone DIR"):
        generate.main(other)
    models = runner.load_models(replace(other, value_backbone=str(folder / "other")))
    assert models.value is not None
    assert models.value.base is None
    assert runner.load_models(replace(other, check_base=False)).value is not None


def test_a_value_model_that_brings_its_backbone_needs_no_option(
    args: Args, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "other-value", tmp_path / "value")
    shutil.copytree(folder / "other", tmp_path / "value" / "backbone")
    alone = replace(args, value=str(tmp_path / "value"))
    told = replace(args, value=str(folder / "other-value"), value_backbone=str(folder / "other"))
    found, expected = runner.load_models(alone).value, runner.load_models(told).value
    assert found is not None
    assert expected is not None
    assert_same_trees(found.params, expected.params)
    assert found.tokenizer is not None
    ours, theirs = runner.run_identity(alone), runner.run_identity(told)
    assert ours["value_backbone"] == "backbone"
    for name in ("value_backbone_fingerprint", "value_fingerprint"):
        assert ours[name] == theirs[name] is not None


def test_a_value_model_that_a_download_has_nested_is_found_before_anything_is_sampled(
    args: Args, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "policy-value", tmp_path / "VM" / "VM")
    save_qwen3_tokenizer(tmp_path / "VM" / "VM")
    nested, plain = (replace(args, value=str(tmp_path / name)) for name in ("VM", "VM/VM"))
    assert preflight.value_without_weights(nested, runner.prepare(args)) is not None
    assert runner.run_identity(nested) == runner.run_identity(plain)
    assert runner.run_identity(nested)["value_files"] != runner.run_identity(args)["value_files"]


def change_template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text(encoding="utf-8") + "{# another #}", encoding="utf-8")


def change_config(folder: Path) -> None:
    edit_json(folder / "config.json", rope_theta=5e5)


def change_head(folder: Path) -> None:
    edit_tensors(folder / "model.safetensors", **{"lm_head.weight": np.ones((352, 24), np.float32)})


@pytest.mark.parametrize("change", [change_template, change_config, change_head])
@pytest.mark.parametrize("role", ["policy", "value_backbone"])
def test_models_that_answer_otherwise_are_other_settings(
    args: Args, folder: Path, tmp_path: Path, role: str, change: Callable[[Path], None]
) -> None:
    """With the same backbone under the same name."""
    shutil.copytree(folder / "policy", tmp_path / "policy")
    here = replace(args, **{role: str(tmp_path / "policy")})
    before = runner.run_identity(here)
    change(tmp_path / "policy")
    after = runner.run_identity(here)
    assert [name for name in before if before[name] != after[name]] == [f"{role}_files"]


def test_a_journal_of_another_template_is_refused(args: Args, tmp_path: Path, no_loading: None) -> None:
    shutil.copytree(args.policy, tmp_path / "policy")
    here = replace(args, policy=str(tmp_path / "policy"), output=str(tmp_path / "replies.jsonl"))
    old = runner.run_identity(here) | {"draws": "content", "samples": 1, "record": False}
    Path(here.output or "").write_text(json.dumps({"settings": old}) + "\n")
    change_template(tmp_path / "policy")
    with pytest.raises(SystemExit, match=r"other settings: policy_files '\w{16}' \(now '\w{16}'\); name"):
        generate.main(here)
