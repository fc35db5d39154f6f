"""decode.evaluate with searches: they are counted, go on after Ctrl-C, and are refused in time."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sia_jax
from decode import compare, evaluate
from decode.evaluate import Args
from sia_jax.costs.reply import policy_flops
from sia_jax.evaluation import method_runner
from tests.support.evaluating import LENGTH, evaluation_args, save_models_and_prompts, save_thresholds
from tests.support.judging import own_module

FUNCTION = """
import math

def reward(conversations):
    texts = [messages[-1]["content"] for messages in conversations]
    return [math.sin(sum((i + 1) * ord(c) for i, c in enumerate(text))) for text in texts]
"""
SEARCHES = ("args(2)", "transfer_q(1, candidates=2, rollout_tokens=2)", "cbs(2, 2, 4)")
KEYS = (
    "base-args-2-by-reward",
    "base-transfer-q-1-of-2-rollouts-2-by-reward",
    "base-cbs-2-2-4-by-reward",
    "entropy-0.6-cbs-2-2-4-by-value",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_models_and_prompts(folder)
    save_thresholds(folder)
    return folder


@pytest.fixture
def args(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Args:
    module = own_module(monkeypatch, tmp_path, FUNCTION)
    return replace(
        evaluation_args(folder),
        methods=("base", "search", "combined"),
        search=SEARCHES,
        ratios=(0.6,),
        combined_ratio=0.6,
        sia_chooser="value",
        seeds=1,
        out=str(tmp_path / "out"),
        reward=(),
        reward_function=(f"{module}:reward",),
        gold_function=None,
    )


def records(args: Args) -> list[dict[str, Any]]:
    text = (Path(args.out) / "replies.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if "method" in line]


def test_searches_are_counted_like_other_methods_and_go_on_where_they_were_left(
    args: Args, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate.main(args)
    whole = {(r["method"], r["index"]): r for r in records(args)}
    results = json.loads((Path(args.out) / "results.json").read_text())
    rows = {row["key"]: row for row in results["rows"]}
    assert set(KEYS) <= set(rows)
    config = sia_jax.load_policy(args.policy).config
    base = [r for (method, _), r in whole.items() if method == "base"]
    for key in KEYS:
        assert rows[key]["replies"] == 5
        own = [record for (method, _), record in whole.items() if method == key]
        mean = sum(r["policy_logprob"] for r in own) / sum(r["length"] for r in own)
        assert rows[key]["perplexity"] == pytest.approx(math.exp(-mean))
        for index in range(5):
            record = whole[key, index]
            assert 1 <= record["length"] <= LENGTH
            assert record["sampled_tokens"] >= record["length"]
            assert math.isfinite(record["proxy"])
            if key == KEYS[0]:  # one look a token, as of an unsteered reply of the length
                plain = next(r for r in base if r["index"] == index)
                prompt = next(
                    p
                    for p in range(1, 400)
                    if policy_flops(config, p, [plain["length"]]) == plain["flops"]["policy"]
                )
                assert record["sampled_tokens"] == record["sampled_junctions"] == record["length"]
                assert record["flops"]["policy"] == pytest.approx(
                    policy_flops(config, prompt, [record["length"]]), rel=1e-9
                )
            assert (record["flops"]["value"] > 0) == (key == KEYS[3])
            assert (record["values_read"] > 0) == (record["sampled_junctions"] > 0 and key == KEYS[3])
    # Of two drafts of 10 tokens in chunks of 4 that are written anew, no more than the method says is drawn.
    assert all(whole[KEYS[2], index]["sampled_tokens"] <= 4 * LENGTH for index in range(5))

    again = replace(args, out=args.out + "-again")
    judge = method_runner.MethodRunner._judge_found
    left = [2]

    def interrupted(self: Any, *rest: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return judge(self, *rest)

    monkeypatch.setattr(method_runner.MethodRunner, "_judge_found", interrupted)
    with pytest.raises(SystemExit) as error:
        evaluate.main(again)
    assert error.value.code == 130
    assert len(records(again)) < len(whole)
    monkeypatch.setattr(method_runner.MethodRunner, "_judge_found", judge)
    evaluate.main(again)
    resumed = {(r["method"], r["index"]): r for r in records(again)}
    assert resumed.keys() == whole.keys()
    for key, record in resumed.items():
        for name in ("text", "length", "junctions", "shifted", "proxy", "sampled_tokens", "flops"):
            assert record[name] == whole[key][name], (key, name)

    page = Path(args.out) / "side.md"
    compare.main(compare.Args(folders=(args.out, again.out), page=str(page)))
    assert "CBS (2, 2, 4)" in page.read_text()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"search": ("beam(3)",)}, "cannot be read"),
        ({"search": ("args(1)", "args(1.0)")}, "searches must be different"),
        ({"stop": ("x",)}, "--stop looks at a reply from its first token on"),
        ({"presence_penalty": 0.5}, "--presence-penalty looks at a reply"),
        ({"min_new_tokens": 2}, "--min-new-tokens looks at a reply"),
        ({"top_p": 0.9}, "--top-p is about what is drawn"),
        ({"tilt_bound": 1.0}, "--tilt steers by V"),
    ],
)
def test_what_a_search_would_ignore_is_refused_before_weights_are_loaded(
    args: Args,
    changes: dict[str, Any],
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sia_jax, "load_policy", None)
    if "tilt_bound" not in changes:  # of which else the thresholds would be said to be of another run
        args = replace(args, methods=("base", "search"), thresholds=None, ratios=(), combined_ratio=None)
    with pytest.raises(SystemExit) as error:
        evaluate.main(replace(args, **changes))
    assert why in str(error.value.code)
