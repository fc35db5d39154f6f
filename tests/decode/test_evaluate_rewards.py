"""decode.evaluate with rewards that are programs: what is chosen by them, and who judges."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sia_jax
from decode import evaluate
from decode.evaluate import Args
from sia_jax.data.prompts import read_prompts
from tests.support.evaluating import evaluation_args, save_models_and_prompts
from tests.support.judging import own_module

FUNCTION = """
def reward(conversations):
    return [len(messages[-1]["content"]) for messages in conversations]

def vowels(conversations):
    texts = [messages[-1]["content"] for messages in conversations]
    return [float("nan") if len(text) % 4 == 0 else sum(text.count(a) for a in "aeiou") for text in texts]

def reward_provenance():
    return {"this reward": "made today"}
"""
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and prompts."""
    folder = tmp_path_factory.mktemp("models")
    save_models_and_prompts(folder)
    return folder


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the current folder."""
    return own_module(monkeypatch, tmp_path, FUNCTION)


@pytest.fixture
def args(folder: Path, module: str, tmp_path: Path) -> Args:
    """A weighted sum that chooses, and a function that judges; no steering, which is compiled for longer."""
    return replace(
        evaluation_args(folder),
        thresholds=None,
        methods=("base", "best-of"),
        seeds=1,
        out=str(tmp_path / "out"),
        reward=(),
        reward_function=(f"{module}:reward=2",),
        length_penalty=0.5,
        gold_function=f"{module}:vowels",
    )


def read(args: Args) -> Lines:
    text = (Path(args.out) / "replies.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def results_of(args: Args) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(args.out) / "results.json").read_text())
    return found


def vowels(text: str) -> int | None:
    return None if len(text) % 4 == 0 else sum(text.count(a) for a in "aeiou")


def test_functions_choose_and_judge_without_a_reward_model(
    args: Args, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*args: Any, **options: Any) -> None:
        raise AssertionError("a reward model was loaded")

    monkeypatch.setattr(sia_jax, "load_reward_model", load)
    page = tmp_path / "page.md"
    evaluate.main(replace(args, page=str(page)))
    lines = read(args)
    assert len(lines) == 10
    for line in lines:
        text = line["text"]
        assert line["parts"] == {f"{module}:reward": len(text), "words": len(text.split())}
        assert line["proxy"] == pytest.approx(2 * len(text) - 0.5 * len(text.split()))
        assert line["gold"] == vowels(text)
        assert ("gold_unscored" in line) == (line["gold"] is None)
        assert line["flops"]["reward"] == 0
        if line["scores"] is not None:
            assert line["proxy"] == max(line["scores"])
            assert line["branch"] == int(np.argmax(line["scores"]))
    lacking = [line for line in lines if line["gold"] is None]
    assert lacking, "some reply has no gold reward"
    assert f"the reward of {module}:vowels is nan" in lacking[0]["gold_unscored"]
    results = results_of(args)
    assert results["measures"] == ["gold", "proxy"]
    assert results["provenance"] == {"this reward": "made today"}
    for row in results["rows"]:
        own = [line for line in lines if line["method"] == row["key"]]
        known = [line["gold"] for line in own if line["gold"] is not None]
        assert row["gold_unscored"] == len(own) - len(known)
        assert row["rewards"]["gold"]["mean"] == pytest.approx(np.mean(known))
        assert row["unscored"] == 0
    text = page.read_text(encoding="utf-8")
    (fingerprint,) = results["settings"]["reward_functions_fingerprint"].values()
    for part in (
        f"reward function `{module}:reward` ({fingerprint}), weight 2",
        "less 0.5 for each word of the reply",
        f"gold reward: {module}:vowels (",
        "this reward: made today",
        "proxy reward (a program that reads the text)",
        "Replies without a gold reward, left out likewise: ",
    ):
        assert part in text
    assert "reward model `" not in text


def test_a_finished_run_reports_again_and_another_version_is_refused(
    args: Args, module: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    evaluate.main(args)
    request.getfixturevalue("no_loading")
    before = results_of(args)["rows"]
    evaluate.main(args)
    assert results_of(args)["rows"] == before
    for changes, told in (
        ({"reward_function": (f"{module}:reward",)}, "reward_functions .*: 2.0.*now .*: 1.0"),
        ({"length_penalty": None}, r"length_penalty 0.5 \(now None\)"),
        ({"gold_function": None}, rf"gold '{module}:vowels .*\(now False\)"),
    ):
        with pytest.raises(SystemExit, match=f"other settings: .*{told}"):
            evaluate.main(replace(args, **changes))
    (tmp_path / f"{module}.py").write_text(FUNCTION + "# another version\n")
    sys.modules.pop(module)
    with pytest.raises(
        SystemExit, match=r"other settings: reward_functions_fingerprint .*, gold .*--overwrite"
    ):
        evaluate.main(args)


def test_a_sum_with_a_model_chooses_and_another_model_judges(args: Args, folder: Path, module: str) -> None:
    run = replace(
        args,
        reward=(f"{folder / 'reward'}=3",),
        gold_function=None,
        gold_reward=str(folder / "reward"),
        length_penalty=None,
    )
    evaluate.main(run)
    model = sia_jax.load_reward_model(str(folder / "reward"))
    prompts = read_prompts(Path(run.prompts))
    for line in read(run):
        messages = [*prompts[line["index"]].messages, {"role": "assistant", "content": line["text"]}]
        ids = model.conversation_ids(messages)
        alone = float(model.score([ids], [len(ids)])[0])
        assert line["gold"] == pytest.approx(alone, abs=1e-5)
        assert line["parts"] == pytest.approx(
            {"reward": alone, f"{module}:reward": len(line["text"])}, abs=1e-5
        )
        assert line["proxy"] == pytest.approx(3 * alone + 2 * len(line["text"]), abs=1e-4)
        assert (line["flops"]["reward"] > 0) == (line["scores"] is not None)
    settings = results_of(run)["settings"]
    assert settings["reward_weight"] == 3
    assert settings["gold"].startswith("reward model reward (")


def test_several_models_are_one_sum_with_their_parts(
    args: Args, folder: Path, module: str, tmp_path: Path
) -> None:
    """The policy's weights under another head are the second model."""
    first = sia_jax.load_reward_model(str(folder / "reward"))
    head = {"weight": 2 * first.params["score"]["weight"][:, ::-1]}
    other = replace(first, params={**first.params, "score": head})
    sia_jax.save_reward_model(other, tmp_path / "second")
    models = (f"{folder / 'reward'}=3", f"{tmp_path / 'second'}=-0.5")
    run = replace(args, reward=models, reward_function=(), gold_function=None, page=str(tmp_path / "page.md"))
    evaluate.main(run)
    prompts = read_prompts(Path(run.prompts))
    for line in read(run):
        messages = [*prompts[line["index"]].messages, {"role": "assistant", "content": line["text"]}]
        ids = first.conversation_ids(messages)
        one, two = (float(model.score([ids], [len(ids)])[0]) for model in (first, other))
        words = len(line["text"].split())
        assert line["parts"] == pytest.approx({"reward": one, "second": two, "words": words}, abs=1e-5)
        assert line["proxy"] == pytest.approx(3 * one - 0.5 * two - 0.5 * words, abs=1e-4)
        if line["scores"] is not None:
            assert line["proxy"] == max(line["scores"])
    settings = results_of(run)["settings"]
    assert (settings["reward"], settings["reward_weight"]) == ("reward", 3)
    ((name, further),) = settings["further_reward_models"].items()
    assert (name, further["weight"]) == ("second", -0.5)
    assert further["fingerprint"] != settings["reward_fingerprint"]
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert f"reward model `second` ({further['fingerprint']}), weight -0.5" in text
    assert "proxy reward (a sum of reward models')" in text
    for changes, told in (
        ({"reward": models[:1]}, r"further_reward_models .*now None"),
        ({"reward": (models[0], models[1] + "1")}, r"further_reward_models .*-0.5.*now .*-0.51"),
    ):
        with pytest.raises(SystemExit, match=f"other settings: .*{told}"):
            evaluate.main(replace(run, **changes))


def test_a_date_is_for_the_template_that_writes_one(
    args: Args, folder: Path, tmp_path: Path, no_loading: None
) -> None:
    """The judge's here, beside a reward model whose template has none; one that neither takes is refused."""
    shutil.copytree(folder / "reward", tmp_path / "dated")
    for path in (tmp_path / "dated").glob("*.jinja"):
        path.unlink()
    config = json.loads((tmp_path / "dated" / "tokenizer_config.json").read_text())
    turns = "{% for m in messages %}{{ m.content }}{% endfor %}"
    config["chat_template"] = "{{ date_string if date_string else strftime_now('%d') }}" + turns
    (tmp_path / "dated" / "tokenizer_config.json").write_text(json.dumps(config))
    judged = {"gold_function": None, "gold_reward": str(tmp_path / "dated")}
    run = replace(args, reward=(str(folder / "reward"),), **judged)
    with pytest.raises(SystemExit, match=r"today's date into every conversation.*--reward-date-string"):
        evaluate.main(run)
    dated = replace(run, reward_date_string="26 Jul 2024")
    for one in (dated, replace(dated, reward=())):
        with pytest.raises(AssertionError, match="the models were loaded"):
            evaluate.main(one)
    with pytest.raises(SystemExit, match=r"no variables \['date_string'\]"):
        evaluate.main(replace(dated, gold_reward=str(folder / "reward")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward_function": ()}, "there is no reward: give --reward DIR"),
        ({"reward_function": ("nowhere:reward",)}, "--reward-function nowhere:reward: the module nowhere"),
        ({"gold_function": "json:dumps"}, "--gold-function json:dumps: tried out .* returned a str"),
        ({"gold_function": "json"}, "--gold-function must be MODULE:FUNCTION"),
        ({"gold_reward": "r"}, "--gold-reward and --gold-function are two gold rewards"),
        ({"gold_reward": "/nowhere", "gold_function": None}, "/nowhere: no such folder"),
        ({"reward_max_tokens": 60}, "--reward-max-tokens is for --reward DIR"),
        ({"reward_date_string": "26 Jul 2024"}, "--reward-date-string is for --reward DIR"),
        ({"length_penalty": float("nan")}, "--length-penalty must be a finite number"),
    ],
)
def test_what_cannot_be_a_reward_is_refused_before_anything_is_loaded(
    args: Args, no_loading: None, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SystemExit, match=f"decode.evaluate: .*{message}"):
        evaluate.main(replace(args, **changes))
    assert not Path(args.out).exists()
