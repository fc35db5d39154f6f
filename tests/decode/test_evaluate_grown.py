"""An evaluation that grows, and is interrupted anywhere, ends in the same tables; and its second model."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sia_jax
from decode import evaluate
from decode.evaluate import Args
from tests.support.evaluating import evaluation_args, save_models_and_prompts, save_thresholds
from tests.support.marks import long

METHODS = ("base", "best-of", "dense", "entropy")
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, thresholds, five prompts; and files of the first two, three and four of them."""
    folder = tmp_path_factory.mktemp("models")
    save_models_and_prompts(folder)
    save_thresholds(folder)
    lines = (folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    for count in range(2, 6):
        (folder / f"{count}.jsonl").write_text("".join(lines[:count]), encoding="utf-8")
    return folder


def run_of(folder: Path, out: Path, **changes: Any) -> Args:
    """The whole run, with two models that only judge, unless something is less."""
    whole = {
        "methods": METHODS,
        "ratios": (0.6,),
        "prompts": str(folder / "5.jsonl"),
        "gold_function": None,
        "gold_reward": str(folder / "reward"),
        "fluency_model": str(folder / "other"),
        "out": str(out),
    }
    return replace(evaluation_args(folder), **whole | changes)


def lines_of(args: Args) -> Lines:
    text = (Path(args.out) / "replies.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def timeless(lines: Lines) -> dict[tuple[Any, ...], dict[str, Any]]:
    """All replies by what they are of, without when and by which file of prompts they came."""
    found = {}
    for line in lines:
        settings = {name: x for name, x in line["settings"].items() if name != "prompts_sha256"}
        own = {name: x for name, x in line.items() if name not in ("seconds", "commit")}
        found[line["method"], line["seed"], line["index"]] = own | {"settings": settings}
    return found


def table_of(args: Args) -> list[dict[str, Any]]:
    """The rows of results.json without speeds."""
    rows = json.loads((Path(args.out) / "results.json").read_text())["rows"]
    return [{name: x for name, x in row.items() if "per_second" not in name} for row in rows]


@pytest.fixture(scope="module")
def whole(folder: Path) -> Args:
    """In one go."""
    args = run_of(folder, folder / "whole")
    evaluate.main(args)
    return args


def interrupted_after(replies: int, args: Args) -> None:
    """Run, with Ctrl-C when so many replies have come, if there are so many."""
    original, left = sia_jax.Engine.as_completed, [replies]

    def until_then(self: sia_jax.Engine, requests: Any) -> Any:
        for one in original(self, requests):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            yield one

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sia_jax.Engine, "as_completed", until_then)
        with suppress(SystemExit):
            evaluate.main(args)
            assert left[0] >= 0


def torn(rng: np.random.Generator, args: Args) -> None:
    """Of the last line only a part has reached the disk, as after a crash."""
    path = Path(args.out) / "replies.jsonl"
    if path.exists() and path.stat().st_size and rng.random() < 0.5:
        content = path.read_bytes()
        begin = content.rfind(b"\n", 0, -1) + 1
        path.write_bytes(content[: int(rng.integers(begin + 2, len(content)))])


@pytest.mark.parametrize("history", [0, 1, *(long(seed) for seed in range(2, 10))])
def test_a_run_that_grows_and_is_interrupted_at_random_points_ends_in_the_same_table(
    folder: Path, tmp_path: Path, whole: Args, history: int
) -> None:
    rng = np.random.default_rng(history)
    methods, seeds, prompts = 1, 1, 2
    for _ in range(3):
        methods = int(rng.integers(methods, len(METHODS) + 1))
        seeds, prompts = int(rng.integers(seeds, 3)), int(rng.integers(prompts, 6))
        less: dict[str, Any] = {"methods": METHODS[:methods], "seeds": seeds}
        less["prompts"] = str(folder / f"{prompts}.jsonl")
        if "entropy" not in less["methods"]:
            less |= {"thresholds": None, "ratios": ()}
        args = run_of(folder, tmp_path / "out", **less)
        interrupted_after(int(rng.integers(1, 15)), args)
        torn(rng, args)
    args = run_of(folder, tmp_path / "out")
    evaluate.main(args)
    found, expected = timeless(lines_of(args)), timeless(lines_of(whole))
    assert len(lines_of(args)) == len(found) == 5 * 2 * 4
    assert found.keys() == expected.keys()
    for key, line in found.items():
        assert line == expected[key]
    assert table_of(args) == table_of(whole)


def test_prompts_put_behind_leave_what_is_there_and_a_random_gate_keeps_its_share(
    folder: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"methods": ("base", "entropy", "random"), "seeds": 1}
    begun = run_of(folder, tmp_path, prompts=str(folder / "2.jsonl"), **options)
    evaluate.main(begun)
    before, lines = (tmp_path / "replies.jsonl").read_bytes(), lines_of(begun)
    grown = run_of(folder, tmp_path, **options)
    evaluate.main(grown)
    assert (tmp_path / "replies.jsonl").read_bytes().startswith(before)
    found = lines_of(grown)
    assert len(found) == 15
    assert len({line["settings"]["prompts_sha256"] for line in found}) == 2
    steered = [line for line in lines if line["method"] == "entropy-0.6"]
    share = sum(line["sampled_junctions"] for line in steered) / sum(
        line["sampled_tokens"] for line in steered
    )
    assert {line["rate"] for line in found if line["method"] == "random-0.6"} == {share}
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["prompts"]["count"] == 5
    assert [row["replies"] for row in results["rows"]] == [5] * 3


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ((0, 1, 2, 3), r"prompt '.*' is not the input's prompt at place 4, and has replies; put new prompts"),
        ((1, 0, 2, 3, 4), r"prompt '.*' is not the input's prompt at place [01], and has replies"),
        ((0, 1, 2, 3, "4"), r"prompt '.*' has replies, and was worded otherwise; give it back its words"),
    ],
)
def test_prompts_that_have_replies_must_stay_as_they_are(
    folder: Path, tmp_path: Path, whole: Args, no_loading: None, order: tuple[Any, ...], told: str
) -> None:
    lines = (folder / "5.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    changed = [json.loads(lines[int(place)]) for place in order]
    for place, line in zip(order, changed, strict=True):
        line["prompt"] += " Please." if isinstance(place, str) else ""
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in changed), encoding="utf-8")
    before = (Path(whole.out) / "replies.jsonl").read_bytes()
    with pytest.raises(SystemExit, match=rf"line \d+: {told}.*--overwrite"):
        evaluate.main(replace(whole, prompts=str(path)))
    assert (Path(whole.out) / "replies.jsonl").read_bytes() == before


def test_the_second_models_numbers_stand_in_records_and_tables(whole: Args, folder: Path) -> None:
    """Against log-softmax in NumPy of the model's own logits, and against the lines."""
    lines = lines_of(whole)
    second = sia_jax.load_policy(str(folder / "other"))
    messages = {}
    for line in (folder / "5.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        messages[row["id"]] = [{"role": "user", "content": row["prompt"]}]
    known = np.isin(np.arange(second.config.vocab_size), list(second.tokenizer.get_vocab().values()))
    for line in lines[::7]:
        prompt = second.prompt_ids(messages[line["id"]])
        text = second.tokenizer.encode(line["text"], add_special_tokens=False)
        ids = [*prompt, *text]
        logits = np.where(known, np.asarray(second.logits([ids], [len(ids)]), np.float64)[0], -np.inf)
        total = 0.0
        for place in range(len(prompt), len(ids)):
            own = logits[place - 1] - logits[place - 1].max()
            total += own[ids[place]] - np.log(np.exp(own).sum())
        assert line["fluency_tokens"] == len(text)
        assert line["fluency_logprob"] == pytest.approx(total, rel=1e-4, abs=1e-4)
        assert line["settings"]["fluency"] == "other"
    for row in table_of(whole):
        own = [line for line in lines if line["method"] == row["key"]]
        nats, tokens = (sum(line[f"fluency_{name}"] for line in own) for name in ("logprob", "tokens"))
        found = row["perplexities"]["fluency"]["perplexity"]["mean"]
        assert found == pytest.approx(np.exp(-nats / tokens))
        assert row["perplexities"]["policy"]["perplexity"]["mean"] == pytest.approx(row["perplexity"])
        ratios = [line["logprob"] - line["policy_logprob"] for line in own]
        bound = np.log(2) - 1 / 2 if row["n"] == 2 else 0
        assert row["kl"]["reply"]["mean"] == pytest.approx(np.mean(ratios) + bound, abs=1e-9)
        assert row["kl"]["is_bound"] == (row["n"] == 2)
        if row["key"] == "base":
            assert row["kl"]["reply"]["mean"] == pytest.approx(0, abs=1e-4)
    text = (Path(whole.out) / "results.md").read_text(encoding="utf-8")
    assert "## Perplexity and distance from the policy" in text
    assert "Fluency is under `other`" in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fluency_model": None}, r"other settings: fluency 'other' \(now None\)"),
        (
            {"fluency_model": "policy"},
            r"other settings: fluency 'other' \(now 'policy'\), fluency_fingerprint",
        ),
        (
            {"fluency_model": "reward"},
            r"Qwen3ForSequenceClassification, and --fluency-model takes a ForCausalLM",
        ),
        ({"fluency_model": "nowhere"}, "nowhere"),
        (
            {"fluency_model": None, "fluency_date_string": "1 May"},
            "--fluency-date-string is for --fluency-model",
        ),
        ({"fluency_date_string": "1 May"}, r"no variables \['date_string'\]"),
    ],
)
def test_another_second_model_or_none_that_can_read_is_refused(
    whole: Args, folder: Path, no_loading: None, changes: dict[str, Any], told: str
) -> None:
    name = changes.get("fluency_model")
    if name is not None:
        changes = changes | {"fluency_model": str(folder / name)}
    with pytest.raises(SystemExit, match=told):
        evaluate.main(replace(whole, **changes))
