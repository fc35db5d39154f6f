"""decode.generate on tiny checkpoints: what it writes, what it survives, and what it refuses."""

import io
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tyro

from decode import generate, trace
from decode.generate import Args
from sia_jax.data.prompts import read_prompts
from sia_jax.runs import prompting, runner
from sia_jax.runs.prompt_ids import SETTINGS, draws_of, prompt_id
from sia_jax.text.chat import value_prompt
from sia_jax.text.markup import CHATML
from tests.support.marks import long
from tests.support.replying import PROMPTS, after, generation_args, save_models

ARRAYS = (
    *("junction", "entropy", "policy_logprob", "logprob", "value", "shifted"),
    *("contenders", "values_read"),
)
Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two policies with their value models, and prompts."""
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    return folder


@pytest.fixture(scope="module")
def args(folder: Path) -> Args:
    return generation_args(folder)


def lines_of(path: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    return [json.loads(line, parse_constant=refuse) for line in lines]


def run(args: Args, path: Path, **changes: Any) -> list[dict[str, Any]]:
    """The lines that a run writes, in the order of the prompts."""
    generate.main(replace(args, output=str(path), **changes))
    return sorted(lines_of(path), key=lambda line: (line["index"], line["branch"]))


@pytest.fixture(scope="module")
def finished(args: Args, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an uninterrupted run has written."""
    path = tmp_path_factory.mktemp("finished") / "replies.jsonl"
    generate.main(replace(args, output=str(path)))
    return path


def value_tokens(line: dict[str, Any], args: Args) -> int:
    """What the value model must read: its prompt, the unsteered tokens, 10 candidates at each junction."""
    prompt = value_prompt(runner.prepare(args).tokenizer, line["prompt"], CHATML)
    places = [t for t, junction in enumerate(line["junction"]) if junction]
    return len(prompt) + places[-1] - (len(places) - 1) + 10 * len(places) if places else 0


def test_lines(finished: Path, args: Args) -> None:
    lines = sorted(lines_of(finished), key=lambda line: line["index"])
    assert [line["id"] for line in lines] == list(range(len(PROMPTS)))
    assert [line["prompt"] for line in lines] == [[{"role": "user", "content": p}] for p in PROMPTS]
    for line in lines:
        assert (line["method"], line["branch"], line["seed"], line["threshold"]) == ("steered", 0, 0, 2.1)
        assert line["finish_reason"] in ("stop", "length")
        t = line["length"]
        assert {name: len(line[name]) for name in ("tokens", *ARRAYS)} == dict.fromkeys(
            ("tokens", *ARRAYS), t
        )
        assert line["finish_reason"] == "stop" or t == 12
        assert [value is None for value in line["value"]] == [not junction for junction in line["junction"]]
        assert [h >= 2.1 for h in line["entropy"]] == line["junction"]
        assert line["steering"] == {
            "ratio": pytest.approx(sum(line["junction"]) / t, abs=1e-6),
            "junctions": sum(line["junction"]),
            "shifted": sum(line["shifted"]),
            "decided": 0,
            "values_read": sum(line["values_read"]),
        }
        read = [n > 0 for n in line["values_read"]]
        assert read == [n > 0 for n in line["contenders"]] == line["junction"]
        assert line["usage"]["value_tokens"] == value_tokens(line, args)
        assert line["settings"]["threshold"] == 2.1
        assert line["settings"]["max_new_tokens"] == 12
    shifted, junctions, tokens = (
        sum(sum(line[n]) for line in lines) for n in ("shifted", "junction", "junction")
    )
    assert 0 < shifted <= junctions == tokens < sum(line["length"] for line in lines)


def test_a_run_goes_on_after_a_torn_line(args: Args, finished: Path, tmp_path: Path) -> None:
    whole = finished.read_bytes()
    lines = whole.splitlines(keepends=True)
    path = tmp_path / "replies.jsonl"
    for kept, torn in ((3, 100), (2, 0), (0, 5)):
        path.write_bytes(b"".join(lines[:kept]) + lines[kept][:torn])
        generate.main(replace(args, output=str(path)))
        assert sorted(path.read_bytes().splitlines(keepends=True)) == sorted(lines)


def test_a_run_goes_on_after_ctrl_c(
    args: Args,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "new folder" / "replies.jsonl"
    whole = set(finished.read_bytes().splitlines())
    with monkeypatch.context() as patch:
        after(patch, 2)
        with pytest.raises(SystemExit) as stopped:
            generate.main(replace(args, output=str(path)))
    assert stopped.value.code == 130
    assert "2 of 5 replies are in" in " ".join(capsys.readouterr().err.split())
    assert len(whole & set(path.read_bytes().splitlines())) == 2
    generate.main(replace(args, output=str(path)))
    assert "going on after 2 of 5" in capsys.readouterr().err
    assert set(path.read_bytes().splitlines()) == whole


def test_a_finished_run_loads_nothing(
    args: Args, finished: Path, no_loading: None, capsys: pytest.CaptureFixture[str]
) -> None:
    generate.main(replace(args, output=str(finished)))
    assert "all 5 replies are there already" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": 2.0}, r"line 1: .*other settings: threshold 2.1 \(now 2.0\).*--overwrite"),
        ({"seed": 1, "max_new_tokens": 9}, r"max_new_tokens 12 \(now 9\), seed 0 \(now 1\)"),
        ({"gate": "entropy&~position(3)"}, r"other settings: gate None \(now 'entropy & ~position\(3\)'\);"),
        ({"policy": "other"}, r"policy 'policy' \(now 'other'\), policy_fingerprint"),
        ({"prompts": None, "prompt": ("Another prompt",)}, "is not the input's prompt at place"),
    ],
)
def test_a_file_of_another_run(
    args: Args, folder: Path, finished: Path, no_loading: None, changes: dict[str, Any], message: str
) -> None:
    before = finished.read_bytes()
    if "policy" in changes:
        changes = {"policy": str(folder / "other")}
    with pytest.raises(SystemExit, match=message):
        generate.main(replace(args, output=str(finished), **changes))
    assert finished.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"seed": 4}, r"the prompt at place 0 was another line: seed 3 \(now 4\).*--overwrite"),
        ({"threshold": "-inf"}, r"threshold 2.1 \(now '-inf'\)"),
        ({"id": "other"}, r"id 'a' \(now 'other'\)"),
    ],
)
def test_a_file_of_prompts_whose_lines_were_changed(
    args: Args, tmp_path: Path, no_loading: None, line: dict[str, Any], message: str
) -> None:
    """What a line says of itself beside its text decides what the reply is."""
    first = {"id": "a", "prompt": "Hello", "seed": 3, "threshold": 2.1}
    prompts, output = tmp_path / "prompts.jsonl", tmp_path / "replies.jsonl"
    prompts.write_text(json.dumps(first) + "\n")
    here = replace(args, prompts=str(prompts), output=str(output), threshold=1.0)
    settings = runner.run_identity(here) | SETTINGS | {"samples": 1, "record": False}
    (row,) = read_prompts(prompts)
    (draws,) = draws_of([row], [runner.prepare(here).prompt_ids(row.messages)])
    record = {
        **{"id": "a", "index": 0, "branch": 0, "method": "steered", "seed": 3, "threshold": 2.1},
        "prompt": [{"role": "user", "content": "Hello"}],
        "prompt_id": prompt_id(row, draws, settings),
        "settings": settings,
    }
    output.write_text(json.dumps(record) + "\n")
    generate.main(here)  # all is there
    prompts.write_text(json.dumps(first | line) + "\n")
    with pytest.raises(SystemExit, match=message):
        generate.main(here)


def test_a_gate_and_a_tilt_are_settings_of_the_run_in_one_writing_and_only_if_given(
    args: Args, tmp_path: Path, no_loading: None
) -> None:
    here = replace(args, gate="entropy&(~position( 3))", tilt="clipped( 1,advantage )")
    plain, given = (runner.run_identity(one) | SETTINGS for one in (args, here))
    added = {"gate": "entropy & ~position(3)", "tilt": "clipped(1, advantage)"}
    assert given == plain | added
    assert not set(added) & set(plain)
    output = tmp_path / "replies.jsonl"
    output.write_text(json.dumps({"settings": given | {"samples": 1, "record": False}}) + "\n")
    for changes, said in (
        ({"gate": "entropy & ~position(4)"}, r"gate 'entropy & ~position\(3\)' \(now '.*\(4\)'\);"),
        ({"tilt": "advantage"}, r"tilt 'clipped\(1, advantage\)' \(now 'advantage'\);"),
        ({"gate": None, "tilt": None}, r"gate '.*' \(now None\), tilt '.*' \(now None\);"),
    ):
        with pytest.raises(SystemExit, match=f"other settings: {said}"):
            generate.main(replace(here, output=str(output), **changes))


def test_a_gate_opens_where_it_says_and_a_tilt_of_nothing_shifts_nothing(args: Args, tmp_path: Path) -> None:
    """Of as many ids as there are candidates, so that both choices are of the same; without thinking."""
    gate = "entropy & ~position(3) & after({})"
    changes = {"gate": gate.format('"</think>"'), "tilt": "clipped(0, additive)", "top_k": 10}
    end = runner.prepare(args).tokenizer.convert_tokens_to_ids("</think>")
    lines = run(args, tmp_path / "replies.jsonl", **changes)
    for line in lines:
        assert line["junction"] == [t >= 3 and h >= 2.1 for t, h in enumerate(line["entropy"])]
        assert line["steering"]["shifted"] == 0
        assert line["settings"]["gate"] == gate.format(end)
    assert sum(line["steering"]["junctions"] for line in lines) > len(lines)


@pytest.mark.parametrize("gate", [long("never"), long("~bernoulli(0)")])
def test_the_base_of_a_comparison_is_never_steered_whatever_the_gate(
    args: Args, tmp_path: Path, gate: str
) -> None:
    """~bernoulli(0) steers everywhere, and no threshold changes that."""
    lines = run(args, tmp_path / "replies.jsonl", gate=gate, threshold=None, compare=True)
    base, steered = ([line for line in lines if line["method"] == m] for m in ("base", "steered"))
    assert not any(any(line["junction"]) or line["usage"]["value_tokens"] for line in base)
    for line, other in zip(steered, base, strict=True):
        assert line["junction"] == [gate != "never"] * line["length"]
        assert (line["tokens"] == other["tokens"]) == (gate == "never")


def test_a_threshold_of_a_prompt_needs_a_gate_that_reads_it(
    args: Args, tmp_path: Path, no_loading: None
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Hello", "threshold": 2.0}\n')
    with pytest.raises(
        SystemExit, match="prompt 0 has threshold 2, which is for a gate with entropy or budget"
    ):
        generate.main(replace(args, prompts=str(prompts), threshold=None, gate="bernoulli(0.2)"))


@pytest.mark.parametrize("where", ["prompts", "models"])
def test_an_interruption_before_there_is_a_reply_ends_in_a_line(
    args: Args,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    if where == "prompts":
        monkeypatch.setattr(prompting, "policy_ids", interrupted)
    else:
        monkeypatch.setattr(runner, "load_models", interrupted)
    with pytest.raises(SystemExit) as stopped:
        generate.main(replace(args, output=str(tmp_path / "replies.jsonl"), overwrite=True))
    assert stopped.value.code == 130
    said = " ".join(capsys.readouterr().err.split())
    ends = {"prompts": "--thinking lets it think) interrupted", "models": "and the same command goes on"}
    assert said.endswith(ends[where])


def test_memory_that_is_full_is_said_with_what_needs_less(
    args: Args, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(runner, "load_models", fail)
    with pytest.raises(SystemExit, match=r"the memory is full .*; lower --batch, now 2$"):
        generate.main(args)


def test_overwrite(args: Args, finished: Path, tmp_path: Path, no_loading: None) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text("no JSON\n")
    with pytest.raises(SystemExit, match=r"line 1, column 1: .*--overwrite"):
        generate.main(replace(args, output=str(path)))
    with pytest.raises(AssertionError, match="loaded"):
        generate.main(replace(args, output=str(path), overwrite=True))
    assert path.read_text() == "no JSON\n"  # nothing is lost before there is something to write


@pytest.mark.parametrize(
    "options", [{"batch": 5}, long({"mesh": (2, 2, 2), "batch": 5})], ids=["batch", "mesh"]
)
def test_neither_the_batch_nor_a_mesh_changes_anything(
    options: dict[str, Any], args: Args, finished: Path, tmp_path: Path
) -> None:
    lines = run(args, tmp_path / "replies.jsonl", **options)
    expected = sorted(lines_of(finished), key=lambda line: line["index"])
    for line, other in zip(lines, expected, strict=True):
        for name in ("id", "text", "tokens", "finish_reason", "usage", "steering", "junction", "shifted"):
            assert line[name] == other[name]
        for name in ("entropy", "policy_logprob", "logprob", "value"):
            ours, theirs = (np.array(x[name], np.float64) for x in (line, other))
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_jsonl_prompts(args: Args, finished: Path, tmp_path: Path) -> None:
    first = min(lines_of(finished), key=lambda line: line["index"])
    turns = [{"role": "user", "content": PROMPTS[0]}]
    policy = runner.prepare(args)
    ids = {
        "prompt_ids": policy.prompt_ids(turns),
        "value_ids": value_prompt(policy.tokenizer, turns, CHATML),
    }
    prompts = [
        {"messages": turns},
        {"prompt": PROMPTS[0], "id": "own seed", "seed": 7, "source": "elsewhere"},
        {**ids, "id": 12, "seed": 7, "threshold": "inf"},
        {"prompt": PROMPTS[0], "id": "own seed again", "seed": 7, "threshold": 2.1},
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, prompts)), encoding="utf-8")
    lines = run(args, tmp_path / "replies.jsonl", prompts=str(path))
    assert [line["id"] for line in lines] == [0, "own seed", 12, "own seed again"]
    assert lines[0]["tokens"] == first["tokens"]
    assert lines[1]["tokens"] == lines[3]["tokens"] != first["tokens"]
    assert lines[2]["threshold"] == "inf"
    assert not any(lines[2]["junction"])
    assert lines[2]["prompt"] == ids
    assert [line["seed"] for line in lines] == [0, 7, 7, 7]


def test_stop_strings(args: Args, finished: Path, tmp_path: Path) -> None:
    whole = sorted(lines_of(finished), key=lambda line: line["index"])
    text = whole[0]["text"]
    stop = text[len(text) // 2 :][:3]
    assert stop
    lines = run(args, tmp_path / "replies.jsonl", stop=(stop, "never to be found"))
    cut = 0
    for line, full in zip(lines, whole, strict=True):
        t = line["length"]
        assert line["tokens"] == full["tokens"][:t]
        assert all(line[name] == full[name][:t] for name in ARRAYS)
        if stop not in full["text"]:
            assert line["text"] == full["text"]
            assert line["stop_string"] is None
            continue
        cut += 1
        assert line["text"] == full["text"][: full["text"].index(stop)]
        assert (line["finish_reason"], line["stop_string"]) == ("stop", stop)
        assert line["usage"]["policy_tokens"] == full["usage"]["policy_tokens"] - full["length"] + t
        assert line["usage"]["value_tokens"] == value_tokens(line, args)
        assert full["text"].startswith(line["text"] + stop)
    assert cut


def test_no_stop_text_ends_a_reply_before_min_new_tokens(args: Args, finished: Path, tmp_path: Path) -> None:
    whole = sorted(lines_of(finished), key=lambda line: line["index"])
    stops = tuple({character for line in whole for character in line["text"]})
    early = run(args, tmp_path / "early.jsonl", stop=stops)
    late = run(args, tmp_path / "late.jsonl", stop=stops, min_new_tokens=7)
    assert min(line["length"] for line in early) < 7
    assert all(line["length"] > 7 for line in late)
    assert any(line["stop_string"] for line in late)


def test_compare(
    args: Args,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "replies.jsonl"
    generate.main(replace(args, output=str(path), compare=True))
    lines = sorted(lines_of(path), key=lambda line: line["index"])
    steered = [line for line in lines if line["method"] == "steered"]
    base = [line for line in lines if line["method"] == "base"]
    assert steered == sorted(lines_of(finished), key=lambda line: line["index"])
    assert [line["index"] for line in base] == [line["index"] for line in steered]
    assert not any(any(line["junction"]) or line["usage"]["value_tokens"] for line in base)
    assert {line["threshold"] for line in base} == {"inf"}

    monkeypatch.setenv("COLUMNS", "120")
    capsys.readouterr()
    generate.main(replace(args, compare=True, prompts=None, prompt=PROMPTS[:2]))
    shown = capsys.readouterr().out
    assert "steered, threshold 2.1" in shown
    for index, prompt in enumerate(PROMPTS[:2]):
        line = next(line for line in steered if line["index"] == index)
        assert prompt in shown
        assert f"{line['steering']['shifted']} shifted" in shown
    assert "base: " in shown
    assert shown.count("tok/s") == 2


def test_the_terminal(
    args: Args, finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(PROMPTS[:2]).encode())))
    generate.main(replace(args, prompts="-"))
    shown = capsys.readouterr().out
    first = min(lines_of(finished), key=lambda line: line["index"])
    assert "steered at a junction" in shown
    assert PROMPTS[0] in shown
    assert f"12 tokens, {first['steering']['ratio']:.0%} steered" in shown
    assert "\x1b" not in shown


def test_unsteered_branches(args: Args, tmp_path: Path) -> None:
    lines = run(
        args,
        tmp_path / "replies.jsonl",
        value=None,
        threshold=None,
        samples=2,
        prompts=None,
        prompt=PROMPTS[:2],
    )
    assert [(line["index"], line["branch"]) for line in lines] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {line["method"] for line in lines} == {"base"}
    assert len({tuple(line["tokens"]) for line in lines}) == 4


def test_the_official_preset_and_candidates(args: Args, tmp_path: Path) -> None:
    official = replace(args, preset="official", threshold=None)
    assert (runner.steering(official).unsteered, runner.threshold(official)) == ("candidates", 1.0)
    assert runner.threshold(replace(official, threshold=-math.inf)) == -math.inf
    assert runner.run_identity(replace(official, beta=2.0))["beta"] == 2.0
    lines = run(
        args,
        tmp_path / "replies.jsonl",
        preset="official",
        num_candidates=3,
        threshold=0.9,
        beta=2.0,
        record=True,
    )
    for line in lines:
        assert {len(ids) for ids in line["candidates"]["ids"]} == {3}
        assert all(token in ids for token, ids in zip(line["tokens"], line["candidates"]["ids"], strict=True))
        own = line["candidates"]["own_choice"]
        changed = [token != choice for token, choice in zip(line["tokens"], own, strict=True)]
        assert changed == line["shifted"]
    assert lines[0]["settings"]["unsteered"] == "candidates"
    for line in lines:
        found = line["candidates"]
        assert "".join(line["pieces"]) == line["text"]
        for t, (token, ids) in enumerate(zip(line["tokens"], found["ids"], strict=True)):
            place = ids.index(token)
            assert found["logprobs"][t][place] == pytest.approx(line["logprob"][t], abs=1e-5)
            assert found["policy_logprobs"][t][place] == pytest.approx(line["policy_logprob"][t], abs=1e-5)
            assert sum(math.exp(x) for x in found["logprobs"][t] if x is not None) == pytest.approx(1)
    trace.main(trace.Args(replies=tmp_path / "replies.jsonl", output=tmp_path / "trace.html"))
    page = (tmp_path / "trace.html").read_text()
    assert page.count("<article") == len(lines)
    assert page.count("data-t=") == sum(line["length"] for line in lines)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": "/nowhere/policy"}, "/nowhere/policy: no such folder"),
        ({"value": "/nowhere/value"}, "/nowhere/value: no such folder"),
        ({"value": None}, r"--threshold 2.1 steers, which needs a value model: give --value DIR"),
        ({"value": None, "threshold": None, "compare": True}, "--compare needs a value model"),
        ({"value": None, "threshold": None, "beta": 2.0}, "--beta needs a value model"),
        (
            {"gate": "entropy & postion(3)"},
            r"--gate: the gate cannot be read at column 11: .*called postion\n  .*\^\nthere is entropy, ",
        ),
        (
            {"tilt": "clipped(1, never)"},
            r"--tilt: the tilt cannot be read at column 12: .*called never\n  .*\^\nthere is additive, ",
        ),
        ({"gate": "bernoulli(2)"}, r"--gate: the gate cannot be read at column 1: .*rate"),
        ({"value": None, "threshold": None, "gate": "never"}, "--gate needs a value model: give --value DIR"),
        ({"value": None, "threshold": None, "tilt": "centred"}, "--tilt needs a value model"),
        ({"value": None, "threshold": None, "tilt_bound": 1.0}, "--tilt-bound needs a value model"),
        ({"tilt": "centred", "tilt_bound": 1.0}, r"leave --tilt out, .* --tilt 'clipped\(1, centred\)'"),
        ({"tilt_bound": -1.0}, "bound of Clipped|a number of the tilt must lie in 0 .. inf"),
        ({"read_all": 1}, "--read-all is for a bounded tilt, .*; under additive all .*values are read"),
        ({"gate": "bernoulli(0.2)"}, r"--threshold 2.1 is for a gate .*, got --gate 'bernoulli\(0.2\)'"),
        ({"threshold": math.nan}, "--threshold must not be NaN"),
        ({"threshold": math.inf, "compare": True}, "compare the policy with itself"),
        ({"mesh": (3, 1, 1)}, "--mesh .* needs 3 devices, got 8"),
        ({"preset": "unknown"}, "--preset must be one of paper, official, got 'unknown'"),
        ({"prompts": None}, "give the prompts with --prompt TEXT"),
        ({"prompt": ("Hello",)}, "give the prompts with --prompt TEXT"),
        (
            {"prompts": None, "prompt": ("Hello", " ")},
            "a prompt must be a text that is not empty, or messages; got an empty text",
        ),
        ({"prompts": None, "prompt": ("Hi",), "column": "foo"}, "--column is for --prompts FILE"),
        ({"value": None, "threshold": None, "check_base": False}, "--no-check-base needs a value model"),
        ({"prompts": None, "prompt": ("Half \udce9",)}, "--prompt holds half a surrogate pair"),
        ({"stop": ("\ud83d",)}, "--stop holds half a surrogate pair"),
        ({"system": "\udce9"}, "--system holds half a surrogate pair"),
        ({"prompts": "/nowhere/prompts.txt"}, "/nowhere/prompts.txt: no such file of prompts"),
        (
            {"temperature": -1.0},
            "--temperature must be 0 .greedy., or a finite number from 1e-30 on, got -1.0",
        ),
        ({"top_p": 0.0}, r"--top-p must be in \(0, 1\], got 0.0"),
        ({"num_candidates": 353}, "--num-candidates must be at most 346"),
        ({"max_new_tokens": 0}, "--max-new-tokens must be 1 or more"),
        ({"max_new_tokens": 250}, r"5 of 5 prompts .*:\n  prompt 0 has \d+ ids.*leave room for 6; cut"),
        (
            {"max_new_tokens": 256},
            r"--max-new-tokens must be below the model.s 256 positions, which hold .* got 256",
        ),
        ({"stop": ("",)}, "--stop must not be empty"),
        ({"min_new_tokens": 13}, "--min-new-tokens must be at most --max-new-tokens, got 13 and 12; raise"),
        ({"seed": -1}, "--seed must be an integer in 0"),
        ({"samples": 0}, "--samples must be 1 or more"),
        ({"samples": 9}, "--batch must hold the --samples of a prompt, got 2 and 9; pass --batch 9"),
        ({"date_string": "26 Jul 2024"}, r"the chat template has no variables \['date_string'\]"),
        ({"record": True}, "--record needs a file"),
        ({"output": "/"}, "is a folder"),
        ({"prompt_form": "raw", "thinking": True}, "form 'raw' has no template"),
    ],
)
def test_errors_come_before_the_weights(
    args: Args, no_loading: None, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SystemExit, match=f"(?s)decode.generate: .*{message}"):
        generate.main(replace(args, **changes))


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--policy",
        "P",
        "--threshold",
        "-inf",
        "--prompt",
        "a",
        "--prompt",
        "b",
        "--stop",
        "\n",
        "--compare",
    ]
    args = tyro.cli(Args, args=options)
    assert (args.threshold, args.prompt, args.stop, args.compare) == (-math.inf, ("a", "b"), ("\n",), True)
    with pytest.raises(SystemExit):
        tyro.cli(Args, args=["--help"], description=generate.__doc__)
    assert capsys.readouterr().out.count("python -m decode.generate") == 3
