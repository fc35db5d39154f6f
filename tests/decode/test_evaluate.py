"""decode.evaluate on tiny models: what its numbers are, what it survives, and what it refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tyro

import sia_jax
from decode import calibrate, evaluate
from decode.evaluate import Args
from sia_jax.data.prompts import read_prompts
from sia_jax.evaluation.comparison import MEASURED_SECONDS
from sia_jax.evaluation.gate_numbers import GateNumbers, gate_of
from sia_jax.files.shown import shown
from sia_jax.runs import runner
from sia_jax.world.gold import gold_reward
from sia_jax.world.prompts import find_prompt
from tests.support.evaluating import LENGTH, evaluation_args, save_models_and_prompts, save_thresholds

METHODS = (
    *("base", "base-best-of-2-by-reward", "dense", "entropy-0.6", "entropy-0.8", "random-0.6", "random-0.8"),
    *("entropy-0.6-best-of-2-by-reward", "entropy-0.6-best-of-2-by-value"),
)
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, prompts, thresholds, and an evaluation with its page."""
    folder = tmp_path_factory.mktemp("models")
    save_models_and_prompts(folder)
    save_thresholds(folder)
    (folder / "hello.md").write_text("Hello.\n")
    (folder / "more").mkdir()
    (folder / "more" / "more.md").write_text("## More\n\n![A dot](dot.png)\n")
    (folder / "more" / "dot.png").write_bytes(b"dot")
    extra = {
        "page": str(folder / "docs" / "w.md"),
        "introduction": str(folder / "hello.md"),
        "appendix": str(folder / "more" / "more.md"),
        "official": str(folder / "official"),
        "examples": 3,
    }
    evaluate.main(replace(evaluation_args(folder), **extra))
    return folder


def read(path: Path) -> Lines:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def lines(folder: Path) -> Lines:
    return read(folder / "evaluation" / "replies.jsonl")


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluation" / "results.json").read_text())
    return found


def own(lines: Lines, method: str, seed: int | None = None) -> Lines:
    return [line for line in lines if line["method"] == method and seed in (None, line["seed"])]


def test_every_method_replies_to_every_prompt_under_every_seed(lines: Lines) -> None:
    everything = [(method, seed) for method in METHODS for seed in (0, 1)]
    assert [(line["method"], line["seed"]) for line in lines[::5]] == everything
    for method, seed in everything:
        assert {line["index"] for line in own(lines, method, seed)} == set(range(5))
    for line in lines:
        n = 2 if "best-of-2" in line["method"] else 1
        assert 1 <= line["length"] <= LENGTH
        assert line["length"] <= line["sampled_tokens"] <= n * LENGTH
        assert (line["scores"] is None) == (n == 1)
        if n > 1:
            assert line["branch"] == int(np.argmax(line["scores"]))
    assert len({line["length"] for line in lines}) > 1


def test_gates_do_what_their_names_say(lines: Lines, folder: Path) -> None:
    thresholds = json.loads((folder / "thresholds.json").read_text())["thresholds"]
    for line in own(lines, "base"):
        assert (line["junctions"], line["threshold"], line["rate"]) == (0, "inf", 0)
    for line in own(lines, "dense"):
        assert (line["junctions"], line["threshold"]) == (line["length"], "-inf")
    for row in thresholds:
        for seed in (0, 1):
            gated = own(lines, f"entropy-{row['ratio']:g}", seed)
            assert {line["threshold"] for line in gated} == {row["threshold"]}
            share = sum(line["sampled_junctions"] for line in gated) / sum(line["length"] for line in gated)
            assert 0 < share < 1
            random = own(lines, f"random-{row['ratio']:g}", seed)
            assert {line["rate"] for line in random} == {random[0]["rate"]}
            assert random[0]["rate"] == pytest.approx(share)
            assert {line["threshold"] for line in random} == {"inf"}
            assert 0 < sum(line["junctions"] for line in random) < sum(line["length"] for line in random)


def test_replies_and_rewards_are_those_of_the_library(lines: Lines, folder: Path) -> None:
    """One batch, by hand; of the program that the run has compiled."""
    args = evaluation_args(folder)
    policy = sia_jax.load_policy(args.policy)
    value = sia_jax.load_value_model(args.value, backbone=policy, policy=policy)
    reward = sia_jax.load_reward_model(args.reward[0])
    config = sia_jax.SamplerConfig.auto(
        4,
        1.0,
        policy=policy.config,
        value=value.config,
        steering=sia_jax.SteeringConfig(gate=gate_of(GateNumbers())),
        max_new_tokens=LENGTH,
    )
    params = sia_jax.SteeringParams(policy.params, value.params)
    prompts = read_prompts(Path(args.prompts))[:4]
    packed = sia_jax.Prompt.pack(
        [policy.prompt_ids(prompt.messages) for prompt in prompts],
        [value.prompt_ids(prompt.messages) for prompt in prompts],
    )
    keys = jnp.stack([runner.prompt_key(1, prompt.index) for prompt in prompts])
    for method in ("entropy-0.6", "random-0.8"):
        mine = {line["index"]: line for line in own(lines, method, seed=1)}
        threshold, rate = float(mine[0]["threshold"]), mine[0]["rate"]
        knobs = sia_jax.Knobs(gate=gate_of(GateNumbers(rate=rate)))
        samples = sia_jax.sample(params, packed, threshold, rng_key=keys, config=config, knobs=knobs)
        for index in range(4):
            tokens = samples.tokens[index, : samples.lengths[index]].tolist()
            assert mine[index]["text"] == policy.tokenizer.decode(tokens, skip_special_tokens=True)
            assert mine[index]["junctions"] == int(samples.junction[index].sum())
            reply = {"role": "assistant", "content": mine[index]["text"]}
            done = reward.conversation_ids([*prompts[index].messages, reply])
            score = float(reward.score([done], [len(done)])[0])
            assert mine[index]["proxy"] == pytest.approx(score, abs=1e-5)


def test_counts_are_of_the_reply_that_is_told(lines: Lines, results: dict[str, Any]) -> None:
    for line in lines:
        counts = line["counts"]
        assert sum(counts["junctions"]) == line["junctions"]
        assert sum(counts["shifted"]) == line["shifted"]
        assert sum(counts["shifted"] + counts["unshifted"]) == line["length"]
    for line in own(lines, "dense"):
        tenths = [10 * t // line["length"] for t in range(line["length"])]
        assert line["counts"]["junctions"] == np.bincount(tenths, minlength=10).tolist()
    keys = [one["key"] for one in results["tokens"]["junctions"]]
    assert keys == ["dense", "entropy-0.6", "entropy-0.8", "random-0.6", "random-0.8"]
    assert results["tokens"]["entropy"]["shifted"] == sum(line["shifted"] for line in own(lines, "dense"))


def test_official_results_tell_the_same_replies(lines: Lines, folder: Path) -> None:
    policy = sia_jax.load_policy(str(folder / "policy"))
    value = sia_jax.load_value_model(str(folder / "value"), backbone=policy, policy=policy)
    prompts = read_prompts(folder / "prompts.jsonl")
    for method in METHODS:
        for seed in (0, 1):
            path = folder / "official" / method / f"seed-{seed}" / "results.json"
            found = json.loads(path.read_text(encoding="utf-8"))
            mine = {line["index"]: line for line in own(lines, method, seed)}
            assert [row["id"] for row in found] == [1, 2, 3, 4, 5]
            for row, prompt in zip(found, prompts, strict=True):
                line = mine[prompt.index]
                ids, mask = (
                    [int(x) for x in row[name].split(",")]
                    for name in ("generated_tokens_ids", "rm_guided_tokens_mask")
                )
                assert row["result"] == line["text"] == policy.tokenizer.decode(ids, skip_special_tokens=True)
                assert (len(ids), sum(mask)) == (line["length"], line["junctions"])
                assert row["intervene_ratio"] == line["junctions"] / line["length"]
                assert (row["elapsed"], row["reward"]) == (line["seconds"], line["proxy"])
                assert row["prompt"] == f"Human:\n{prompt.messages[0]['content']}\nAssistant:\n"
                for model, name in ((policy, "llm"), (value, "rm")):
                    wanted = list(model.prompt_ids(prompt.messages))
                    assert row[f"{name}_prompt_tokens_ids"] == ",".join(map(str, wanted))
                    assert row[f"{name}_prompt"] == policy.tokenizer.decode(wanted)


def test_official_results_of_replies_without_ids_are_refused(
    folder: Path, lines: Lines, tmp_path: Path, no_loading: None
) -> None:
    without = [{name: x for name, x in line.items() if name != "official"} for line in lines[:7]]
    rest = [*without, *lines[7:]]
    (tmp_path / "replies.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rest))
    args = replace(evaluation_args(folder), out=str(tmp_path), official=str(tmp_path / "official"))
    with pytest.raises(SystemExit, match=r"7 replies have no ids, .*leave it out, .*--overwrite"):
        evaluate.main(args)
    assert not (tmp_path / "official").exists()
    with pytest.raises(SystemExit, match="lies in --official"):
        evaluate.main(replace(args, official=str(tmp_path)))


def test_replies_of_an_earlier_release_lack_the_pictures_of_their_tokens_alone(
    folder: Path, lines: Lines, tmp_path: Path, no_loading: None
) -> None:
    old = [{name: x for name, x in line.items() if name not in ("counts", "official")} for line in lines]
    (tmp_path / "replies.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    evaluate.main(replace(evaluation_args(folder), out=str(tmp_path)))
    written = {path.stem for path in tmp_path.glob("*.png")}
    assert written == {"pareto", "pareto-flops", "gates"}
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["tokens"] == {"junctions": [], "entropy": None}


def test_the_chosen_reply_is_the_best_one(lines: Lines, folder: Path) -> None:
    reward = sia_jax.load_reward_model(str(folder / "reward"))
    assert reward.name == "reward"
    for kind in ("base", "entropy-0.6"):
        for line in own(lines, f"{kind}-best-of-2-by-reward"):
            assert line["proxy"] == max(line["scores"])
            assert line["flops"]["reward"] > 0
            assert (line["flops"]["value"] == 0) == (kind == "base")
    by_value = own(lines, "entropy-0.6-best-of-2-by-value")
    assert len({score for line in by_value for score in line["scores"]}) > 2
    for line in by_value:
        assert line["flops"]["reward"] == 0
        assert line["proxy"] not in line["scores"]


def test_gold_is_what_the_world_says(lines: Lines) -> None:
    for line in lines:
        assert line["gold"] == gold_reward(find_prompt(line["id"]), line["text"])


def test_the_results_are_means_of_the_lines(lines: Lines, results: dict[str, Any], folder: Path) -> None:
    assert [row["key"] for row in results["rows"]] == list(METHODS)
    base = own(lines, "base")
    for row in results["rows"]:
        mine = own(lines, row["key"])
        for measure in ("gold", "proxy"):
            mean = np.mean([line[measure] for line in mine])
            assert row["rewards"][measure]["mean"] == pytest.approx(mean)
            if row["key"] != "base":
                difference = mean - np.mean([line[measure] for line in base])
                assert row["differences"]["base"][measure]["mean"] == pytest.approx(difference)
        tokens = sum(line["length"] for line in mine)
        flops = sum(line["flops"]["policy"] for line in mine)
        assert row["flops_per_token"]["policy"] == pytest.approx(flops / tokens)
        assert sum(line["seconds"] for line in mine) < MEASURED_SECONDS
        assert row["tokens_per_second"] is None  # of so short a time it would be noise
    ratios = {row["key"]: row["ratio"] for row in results["rows"]}
    assert (ratios["base"], ratios["dense"]) == (0, 1)
    page = (folder / "docs" / "w.md").read_text()
    assert "Hello." in page
    assert "(w-pareto.png)" in page
    picture = (folder / "docs" / "w-pareto.png").read_bytes()
    assert picture == (folder / "evaluation" / "pareto.png").read_bytes()
    for name in ("pareto-flops", "gates", "junctions", "entropy"):
        for kind in ("png", "csv"):
            assert f"(w-{name}.{kind})" in page
            copy = (folder / "docs" / f"w-{name}.{kind}").read_bytes()
            assert copy == (folder / "evaluation" / f"{name}.{kind}").read_bytes()
    assert "pareto-seconds" not in page  # of so short a time
    assert results["calibration"]["sha256"][:16] in page
    assert "## More\n\n![A dot](w-dot.png)" in page
    assert (folder / "docs" / "w-dot.png").read_bytes() == b"dot"


def test_the_page_shows_the_largest_gain_and_loss_of_the_gate_nearest_to_a_fifth_in_full(
    lines: Lines, folder: Path
) -> None:
    page = (folder / "docs" / "w.md").read_text()
    seed = min(line["seed"] for line in lines)
    base, steered = (own(lines, method, seed) for method in ("base", "entropy-0.6"))
    gains = [after["gold"] - before["gold"] for before, after in zip(base, steered, strict=True)]
    assert (
        f"## 3 prompts with replies in full\n\nChosen from all {len(base)} prompts under seed {seed}" in page
    )
    for index in (int(np.argmax(gains)), int(np.argmin(gains))):
        assert f"The policy alone:\n\n```text\n{shown(base[index]['text'])}\n```" in page
        assert f"Entropy 60%:\n\n```text\n{shown(steered[index]['text'])}\n```" in page


def test_a_run_goes_on_after_ctrl_c_to_the_same_replies(
    lines: Lines,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Stopped in its last unit; a line is torn, and one of a finished unit is missing."""
    args = replace(evaluation_args(folder), out=str(tmp_path))
    journal = tmp_path / "replies.jsonl"
    whole = (folder / "evaluation" / "replies.jsonl").read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(whole[:-7]) + whole[-7][:40])
    original, calls = sia_jax.Engine.as_completed, []

    def until_the_third(self: sia_jax.Engine, requests: Any) -> Any:
        for one in original(self, requests):
            calls.append(one)
            if len(calls) == 6:  # two of a unit, three of the last one
                raise KeyboardInterrupt
            yield one

    with monkeypatch.context() as patch:
        patch.setattr(sia_jax.Engine, "as_completed", until_the_third)
        with pytest.raises(SystemExit) as stopped:
            evaluate.main(args)
    assert stopped.value.code == 130
    assert "and the same command goes on" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "results.json").exists()
    evaluate.main(args)
    assert "going on after 88 of 90" in " ".join(capsys.readouterr().err.split())

    def timeless(lines: Lines) -> Lines:
        """Units one after the other, whichever of their replies came first."""
        untold = ("seconds", "commit", "official")
        kept = [{name: x for name, x in line.items() if name not in untold} for line in lines]
        places = [(line["method"], line["seed"]) for line in kept]
        return sorted(kept, key=lambda line: (places.index((line["method"], line["seed"])), line["index"]))

    assert timeless(read(journal)) == timeless(lines)


def test_a_new_run_that_is_interrupted_while_it_loads_begins_anew_the_next_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(args: Args) -> None:
        raise KeyboardInterrupt

    journal = tmp_path / "replies.jsonl"
    journal.write_bytes((folder / "evaluation" / "replies.jsonl").read_bytes())
    monkeypatch.setattr(runner, "load_models", interrupted)
    with pytest.raises(SystemExit):
        evaluate.main(replace(evaluation_args(folder), out=str(tmp_path), overwrite=True))
    assert "and the same command goes on" in " ".join(capsys.readouterr().err.split())
    assert journal.read_bytes()  # nothing is lost before there is something to write


def test_replies_that_do_not_say_where_they_were_made_are_refused(
    folder: Path, lines: Lines, tmp_path: Path, no_loading: None
) -> None:
    old = [{name: x for name, x in line.items() if name != "machine"} for line in lines]
    (tmp_path / "replies.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    with pytest.raises(SystemExit, match=r"line 1: no 'machine' in it; .*--overwrite"):
        evaluate.main(replace(evaluation_args(folder), out=str(tmp_path)))


def test_a_finished_run_reports_again_without_models(folder: Path, no_loading: None) -> None:
    args = evaluation_args(folder)
    results = folder / "evaluation" / "results.json"
    before = json.loads(results.read_text())
    evaluate.main(replace(args, ratios=(0.6,), seeds=1))
    fewer = json.loads(results.read_text())
    assert [row["key"] for row in fewer["rows"]] == [key for key in METHODS if "0.8" not in key]
    assert {row["replies"] for row in fewer["rows"]} == {5}
    evaluate.main(args)
    after = json.loads(results.read_text())
    assert after["rows"] == before["rows"]
    assert after["claims"] == before["claims"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta": 2.0}, r"line 1: .*other settings: beta 1.0 \(now 2.0\).*--overwrite"),
        ({"tilt": "centred"}, r"other settings: tilt None \(now 'centred'\)"),
        ({"gold_function": None}, r"gold 'sia_jax.world.rewards:gold .*\(now False\)"),
        ({"max_new_tokens": 9}, r"max_new_tokens 10 \(now 9\)"),
        ({"policy": "other"}, "its thresholds are of another policy"),
        ({"temperature": 0.7}, "another policy or way to sample: temperature 1.0"),
        ({"ratios": (0.3,)}, r"thresholds for ratios \[0.6, 0.8\], not for \[0.3\]"),
        ({"combined_ratio": 0.3}, "no threshold for a ratio of 0.3"),
        ({"combined": 1}, "--combined must be 2 or more"),
        ({"best_of": (1,)}, "n of 2 or more"),
        ({"thresholds": "nowhere.json"}, "no such file of thresholds"),
        ({"page": "page.html"}, "--page must be a .md file"),
        ({"title": "Ours"}, "--title is for --page FILE"),
        ({"appendix": "a.md"}, "--appendix is for --page FILE"),
        ({"combined": 0, "combined_ratio": 0.6}, "--combined-ratio is for --combined N"),
        ({"seeds": 0}, "--seeds must be 1 or more"),
        ({"examples": 2}, "--examples is for --page FILE"),
        ({"examples": -1, "page": "page.md"}, "--examples must be 0 or more"),
        (
            {"examples": 2, "page": "page.md", "methods": ("base", "best-of")},
            "add base, and entropy or dense",
        ),
        ({"seed": 4294967295, "seeds": 2}, "--seeds 2 from --seed 4294967295 on go past the largest"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(
    folder: Path, no_loading: None, changes: dict[str, Any], message: str
) -> None:
    if "policy" in changes:
        changes = {"policy": str(folder / "other")}
    before = (folder / "evaluation" / "replies.jsonl").read_bytes()
    with pytest.raises(SystemExit, match=message):
        evaluate.main(replace(evaluation_args(folder), **changes))
    assert (folder / "evaluation" / "replies.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            {"id": "mine", "prompt": "Hello?"},
            "has no reward of --gold-function, .*none of the embedded world's",
        ),
        (
            {"id": "harmless/cards/brother", "prompt": "Hello?"},
            "prompt 'harmless/cards/brother' has no reward",
        ),
        ({"prompt_ids": [5, 6]}, "is one of ids"),
        ({"prompt": "Hello?", "seed": 3}, "brings a seed or a threshold"),
    ],
)
def test_prompts_that_cannot_be_judged_are_refused(
    folder: Path, tmp_path: Path, no_loading: None, line: dict[str, Any], message: str
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in (line, {"prompt": "And you?"})))
    with pytest.raises(SystemExit, match=message):
        evaluate.main(replace(evaluation_args(folder), prompts=str(path), out=str(tmp_path / "out")))


def test_a_reward_template_that_writes_today_s_date_needs_another(
    folder: Path, tmp_path: Path, no_loading: None
) -> None:
    shutil.copytree(folder / "reward", tmp_path / "reward")
    config = json.loads((tmp_path / "reward" / "tokenizer_config.json").read_text())
    for path in (tmp_path / "reward").glob("*.jinja"):
        path.unlink()
    turns = "{% for m in messages %}{{ m.content }}{% endfor %}"
    config["chat_template"] = "{{ date_string if date_string else strftime_now('%d') }}" + turns
    (tmp_path / "reward" / "tokenizer_config.json").write_text(json.dumps(config))
    args = replace(evaluation_args(folder), reward=(str(tmp_path / "reward"),), out=str(tmp_path / "out"))
    with pytest.raises(
        SystemExit, match=r"today's date into every conversation.*fix it with --reward-date-string"
    ):
        evaluate.main(args)
    with pytest.raises(AssertionError, match="the models were loaded"):
        evaluate.main(replace(args, reward_date_string="26 Jul 2024"))


def test_one_prompt_is_refused_because_it_says_nothing_of_others(
    folder: Path, tmp_path: Path, no_loading: None
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Hello?"}\n')
    args = replace(evaluation_args(folder), prompts=str(path), out=str(tmp_path / "out"), gold_function=None)
    with pytest.raises(SystemExit, match="has 1 prompt, and an interval takes 2 or more"):
        evaluate.main(args)


def test_thresholds_that_were_made_anew_are_refused(folder: Path, tmp_path: Path, no_loading: None) -> None:
    content = json.loads((folder / "thresholds.json").read_text())
    content["thresholds"][0]["threshold"] += 0.01
    path = tmp_path / "thresholds.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=r"entropy 60% under seed 0 was made with .*threshold.*--overwrite"):
        evaluate.main(replace(evaluation_args(folder), thresholds=str(path)))


def test_prompts_that_a_model_cannot_take_are_refused_together_by_their_ids(
    folder: Path, tmp_path: Path, no_loading: None
) -> None:
    lines = [
        {"id": "short", "prompt": "Hello?"},
        {"id": "long", "prompt": "ab " * 40},
        {"id": "for no model", "prompt": "ab " * 2000},
        {"id": "another long one", "prompt": "cd " * 40},
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    args = replace(evaluation_args(folder), prompts=str(path), out=str(tmp_path / "out"), gold_function=None)
    with pytest.raises(SystemExit) as refused:
        evaluate.main(replace(args, reward_max_tokens=60))
    message = str(refused.value)
    assert "3 of 4 prompts do not fit the models" in message
    assert "'short'" not in message
    for line in lines[1:]:
        assert f"prompt {line['id']!r} has" in message
    assert "raise --reward-max-tokens (the model holds 512)" in message
    assert not (tmp_path / "out" / "replies.jsonl").exists()
    with pytest.raises(SystemExit, match=r"--reward-max-tokens must lie in 1 .. 512"):
        evaluate.main(replace(args, reward_max_tokens=513))


def test_of_many_prompts_that_do_not_fit_all_ids_are_told(
    folder: Path, tmp_path: Path, no_loading: None
) -> None:
    path = tmp_path / "prompts.jsonl"
    lines = [{"id": f"p{i}", "prompt": "ab " * 40} for i in range(30)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    args = replace(evaluation_args(folder), prompts=str(path), out=str(tmp_path / "out"), gold_function=None)
    with pytest.raises(SystemExit) as refused:
        evaluate.main(replace(args, reward_max_tokens=60))
    assert all(f"'p{i}'" in str(refused.value) for i in range(30))


def test_without_entropy_gates_no_thresholds_are_asked_for_and_the_plan_is_told(
    folder: Path, no_loading: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of replies that are there; the plan comes before anything else."""
    args = replace(evaluation_args(folder), thresholds=None, methods=("base", "best-of", "dense"))
    results = folder / "evaluation" / "results.json"
    before = results.read_bytes()
    evaluate.main(args)
    told = " ".join(capsys.readouterr().err.split())
    plan = (
        "3 methods x 2 seeds x 5 prompts = 30 replies, for which 40 are sampled: base; base, best of 2 by "
        "reward; dense. How long that takes is said after the first batch."
    )
    assert told.index(plan) < told.index("was not tested")
    assert "5 prompts: no intervals and no claims, which take 20 or more" in told
    found = json.loads(results.read_text())
    assert [row["key"] for row in found["rows"]] == ["base", "base-best-of-2-by-reward", "dense"]
    assert found["calibration"] is None
    assert {claim["verdict"] for claim in found["claims"]["gold"]} == {"was not tested"}
    results.write_bytes(before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"methods": ("base", "entropy", "dense")},
            r"the methods entropy need --thresholds FILE.*--methods base dense",
        ),
        ({"methods": ("combined", "base")}, r"the methods combined need --thresholds"),
        ({"methods": ("random", "base")}, "random gates need --ratios"),
        ({"methods": ("base", "base")}, "methods must be different ones of base, best-of, search"),
        ({"methods": ("best-of",), "best_of": ()}, "there is nothing to measure"),
    ],
)
def test_methods_that_lack_something_are_refused(
    folder: Path, no_loading: None, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        evaluate.main(replace(evaluation_args(folder), thresholds=None, **changes))


@pytest.mark.long
def test_methods_that_steer_do_so_by_the_tilt_that_is_given(folder: Path, tmp_path: Path) -> None:
    """One of nothing, over as many ids as there are candidates: dense steering says what the policy says."""
    options = {"methods": ("base", "dense"), "thresholds": None, "seeds": 1, "batch": 5}
    tilt = {"tilt": "clipped(0, additive)", "top_k": 10}
    args = replace(evaluation_args(folder), out=str(tmp_path), **options, **tilt)
    evaluate.main(args)
    base, dense = (own(read(tmp_path / "replies.jsonl"), method) for method in ("base", "dense"))
    for ours, theirs in zip(dense, base, strict=True):
        assert ours["settings"]["tilt"] == "clipped(0, additive)"
        assert (ours["junctions"], ours["shifted"]) == (ours["length"], 0)
        assert ours["text"] == theirs["text"]


@pytest.mark.parametrize("program", [evaluate, calibrate])
def test_gates_are_no_options_where_the_methods_bring_theirs(
    program: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        tyro.cli(program.Args, args=["--gate", "never"])
    assert "Unrecognized options: --gate" in " ".join(capsys.readouterr().err.replace("│", " ").split())
    with pytest.raises(SystemExit):
        tyro.cli(program.Args, args=["--help"])
    said = capsys.readouterr().out
    assert "--gate" not in said
    assert ("--tilt" in said) == (program is evaluate)


def test_a_reply_without_a_proxy_reward_is_counted_and_left_out_with_its_partners(
    folder: Path, lines: Lines, tmp_path: Path, no_loading: None
) -> None:
    changed = [
        line | {"proxy": None, "unscored": "600 tokens, at most 512"}
        if (line["method"], line["index"], line["seed"]) == ("dense", 2, 1)
        else line
        for line in lines
    ]
    (tmp_path / "replies.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed))
    evaluate.main(replace(evaluation_args(folder), out=str(tmp_path)))
    rows = {row["key"]: row for row in json.loads((tmp_path / "results.json").read_text())["rows"]}
    assert {key: row["unscored"] for key, row in rows.items()} == {
        key: int(key == "dense") for key in METHODS
    }
    scored = [line["proxy"] for line in own(changed, "dense") if line["proxy"] is not None]
    assert rows["dense"]["rewards"]["proxy"]["mean"] == pytest.approx(np.mean(scored))
    pairs = [
        (a["proxy"], b["proxy"])
        for a in own(changed, "dense")
        for b in own(changed, "base")
        if (a["index"], a["seed"]) == (b["index"], b["seed"]) and a["proxy"] is not None
    ]
    assert len(pairs) == 9
    difference = rows["dense"]["differences"]["base"]["proxy"]["mean"]
    assert difference == pytest.approx(np.mean([a - b for a, b in pairs]))


@pytest.mark.parametrize(
    "changes",
    [
        {"proxy": "1"},
        {"proxy": True},
        {"gold": None},
        {"gold": 10**400},
        {"length": -1},
        {"seconds": "soon"},
        {"flops": {"policy": 1.0}},
        {"flops": []},
        {"method": ["base"]},
        {"index": 0.0},
        {"seed": None},
        {"threshold": "much"},
        {"rate": {}},
        {"finish_reason": 3},
        {"counts": {"junctions": [0] * 10}},
        {"official": {"generated_tokens_ids": "1", "rm_guided_tokens_mask": "2"}},
    ],
)
def test_replies_with_something_else_in_their_fields_are_refused_with_the_line(
    folder: Path, lines: Lines, tmp_path: Path, no_loading: None, changes: dict[str, Any]
) -> None:
    text = "".join(json.dumps(line) + "\n" for line in (lines[0], lines[1] | changes, *lines[2:]))
    (tmp_path / "replies.jsonl").write_text(text)
    with pytest.raises(SystemExit, match=r"replies.jsonl, line 2(, column \d+)?: .*--overwrite"):
        evaluate.main(replace(evaluation_args(folder), out=str(tmp_path)))


def with_appendix(folder: Path, text: str, **changes: Any) -> Args:
    """An evaluation whose page, w.md, has an appendix of this text; dot.png and a folder lie beside that."""
    (folder / "more" / "sub").mkdir(parents=True)
    (folder / "more" / "more.md").write_text(text)
    (folder / "more" / "dot.png").write_bytes(b"dot")
    (folder / "private.png").write_bytes(b"private")
    (folder / "more" / "link.png").symlink_to("../private.png")
    pages = {"page": str(folder / "w.md"), "appendix": str(folder / "more" / "more.md")}
    return replace(evaluation_args(folder), **(pages | changes))


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("gone.png", "no such picture of .*more.md"),
        ("sub", "expected a picture of .*more.md, this is a folder"),
        ("../private.png", "lies outside of the page's own folder"),
        ("link.png", "is a link to .*private.png, outside of the appendix's own folder"),
    ],
)
def test_a_picture_that_an_appendix_has_not_in_its_folder_is_refused_before_anything_is_loaded(
    tmp_path: Path, no_loading: None, link: str, message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        evaluate.main(with_appendix(tmp_path, f"![A dot]({link})\n"))


def test_the_copy_of_a_picture_is_an_output_that_may_be_no_input(tmp_path: Path, no_loading: None) -> None:
    args = with_appendix(tmp_path, "![A dot](dot.png)\n", prompts=str(tmp_path / "w-dot.png"))
    with pytest.raises(SystemExit, match=r"--page's w-dot.png and --prompts are both .*w-dot.png"):
        evaluate.main(args)
