import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decode import compare
from sia_jax.evaluation.comparison import Comparison
from sia_jax.evaluation.methods import Method
from sia_jax.evaluation.side_by_side import SideBySide
from sia_jax.reports.side_by_side import table, verdicts

PROMPTS, SEEDS = 40, (3, 4)
BASE, DENSE, SPARSE = Method("base"), Method("dense"), Method("entropy", 0.2)
SETTINGS = {
    "policy": "policy",
    "value": "value",
    "reward": "reward",
    "reward_fingerprint": "abc",
    "prompts_sha256": "def",
    "gold": True,
}


def reply(method: Method, seed: int, index: int, gold: float, **fields: Any) -> dict[str, Any]:
    return {
        "method": method.key,
        "seed": seed,
        "index": index,
        "id": index,
        "threshold": "-inf",
        "rate": 0.0,
        "text": "",
        "finish_reason": "stop",
        "length": 10,
        "junctions": 10,
        "gold": gold,
        "proxy": gold / 2,
        "sampled_tokens": 10,
        "sampled_junctions": 8,
        "sampled_decided": 0,
        "values_read": 80,
        "seconds": 1.0,
        "flops": {"policy": 1e6, "value": 1e6, "reward": 0},
        "commit": "0123",
        "machine": "cpu",
    } | fields


def evaluation(
    folder: Path, golds: dict[Method, np.ndarray], settings: dict[str, Any], **fields: Any
) -> Path:
    """A folder as decode.evaluate leaves it; golds [PROMPTS, SEEDS] of each method."""
    folder.mkdir()
    rows = [
        {"key": m.key, "kind": m.kind, "asked_ratio": m.ratio, "n": m.n, "chooser": m.chooser} for m in golds
    ]
    results = {"rows": rows, "settings": settings, "seeds": SEEDS, "prompts": {"count": PROMPTS}}
    (folder / "results.json").write_text(json.dumps(results))
    lines = [
        json.dumps(reply(method, seed, index, float(gold[index, place]), **fields))
        for method, gold in golds.items()
        for place, seed in enumerate(SEEDS)
        for index in range(PROMPTS)
    ]
    (folder / "replies.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def golds(mean: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1, (PROMPTS, len(SEEDS)))


@pytest.fixture
def two(tmp_path: Path) -> tuple[list[Path], dict[str, np.ndarray]]:
    """An unbounded evaluation and a bounded one, and what each method of theirs has earned."""
    own = {"base": golds(0, 0), "dense": golds(1, 1), "sparse": golds(0.9, 2), "bounded": golds(2, 3)}
    one = evaluation(
        tmp_path / "all", {BASE: own["base"], DENSE: own["dense"], SPARSE: own["sparse"]}, SETTINGS
    )
    fields = {"sampled_decided": 6, "values_read": 8, "seconds": 0.5}
    other = evaluation(
        tmp_path / "bounded", {DENSE: own["bounded"]}, SETTINGS | {"tilt": "clipped(1, advantage)"}, **fields
    )
    return [one, other], own


def test_methods_of_two_evaluations_differ_as_if_they_were_of_one(two):
    folders, own = two
    found = SideBySide(folders, resamples=200)
    one, other = found.find("bounded/dense"), found.find("all/entropy-0.2")
    difference = found.difference(one, other, "gold")
    assert difference.mean == pytest.approx(np.mean(own["bounded"] - own["sparse"]))
    together = Comparison(
        [DENSE, SPARSE], {DENSE.key: one.measured.records, SPARSE.key: other.measured.records}, resamples=200
    )
    same = together.difference(*together.measured, "gold")
    assert (difference.low, difference.high) == (same.low, same.high)
    kept = found.kept(one, other, "gold")
    assert kept is not None
    assert kept.mean == pytest.approx(np.mean(own["bounded"] - 0.9 * own["sparse"] - 0.1 * own["base"]))


def test_a_table_tells_what_differs_and_what_was_read(two):
    folders, _ = two
    found = SideBySide(folders, resamples=200)
    assert found.differing == ["tilt"]
    text = table(found, [found.find("all/dense")])
    head, _, *rows = (line[2:-2].split(" | ") for line in text.splitlines())
    bounded = dict(zip(head, rows[-1], strict=True))
    assert bounded["tilt"] == "clipped(1, advantage)"
    assert bounded["contenders"] == "1.75"  # (8 + 6) / 8
    assert bounded["values a token"] == "0.80"
    assert bounded["decided without"] == "75%"
    assert bounded["MFLOP a token"] == "0.20"  # 2e6 for 10 tokens
    assert bounded["tokens/s"] == "20"  # 10 tokens in 0.5 s
    assert bounded["/ all/dense"] == "2.00"
    unbounded = dict(zip(head, rows[1], strict=True))
    assert (unbounded["contenders"], unbounded["values a token"]) == ("", "8.00")
    said = verdicts(found, [found.find("all/dense")])
    assert "- bounded/dense: gold better (" in said
    assert "at 2.00 times its tokens/s" in said
    assert "Matched or beaten on gold reward, at more tokens/s, by: bounded/dense." in said
    assert "all/base" not in said


def change(folder: Path, **changes: Any) -> None:
    file = folder / "results.json"
    whole = json.loads(file.read_text())
    whole["settings"] |= changes
    file.write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            lambda f: change(f, prompts_sha256="other"),
            ValueError,
            "bounded has prompts_sha256 'other', and all",
        ),
        (lambda f: change(f, reward_fingerprint="x"), ValueError, "no pairs"),
        (lambda f: change(f, reward_functions={"m:f": 1.0}), ValueError, "has reward_functions .*no pairs"),
        (lambda f: (f / "results.json").unlink(), FileNotFoundError, "run decode.evaluate to its end"),
        (lambda f: (f / "replies.jsonl").unlink(), FileNotFoundError, "run decode.evaluate to its end"),
        (lambda f: (f / "results.json").write_text('{"rows": [3]}'), ValueError, "no results.json of decode"),
        (lambda f: (f / "results.json").write_text('{"rows"'), ValueError, "results.json"),
        (lambda f: (f / "replies.jsonl").write_text('{"a": 1}\n'), ValueError, "line 1: this is no reply"),
        (
            lambda f: (f / "replies.jsonl").write_text(
                "\n".join((f / "replies.jsonl").read_text().splitlines()[1:]) + "\n"
            ),
            ValueError,
            "dense has not one reply to each prompt under each seed",
        ),
    ],
)
def test_evaluations_that_are_no_pairs_are_refused_by_name(two, spoil, error, message):
    folders, _ = two
    spoil(folders[1])
    with pytest.raises(error, match=message):
        SideBySide(folders, resamples=200)


def test_folders_of_one_name_and_methods_that_are_not_there_are_refused(two):
    folders, _ = two
    with pytest.raises(ValueError, match="different names, got all, all"):
        SideBySide([folders[0], folders[0]])
    with pytest.raises(ValueError, match=r"there is no 'all/random-0.2', only all/base, all/dense"):
        SideBySide(folders, resamples=200).find("all/random-0.2")


def test_the_program_writes_a_page_and_its_picture(two, tmp_path):
    folders, own = two
    page = tmp_path / "page.md"
    compare.main(
        compare.Args(
            folders=tuple(map(str, folders)),
            against=("all/dense",),
            pairs=("bounded/dense:all/entropy-0.2",),
            resamples=200,
            page=str(page),
        )
    )
    text = page.read_text()
    assert f"{np.mean(own['bounded'] - own['sparse']):+.2f} [" in text
    assert "![Reward over tokens/s](page.png)" in text
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_a_foreign_setting_cannot_break_the_table(two):
    folders, _ = two
    change(folders[1], tilt="a | b\n| c")
    text = table(SideBySide(folders, resamples=200), [])
    assert {line.count(" | ") for line in text.splitlines()} == {text.splitlines()[0].count(" | ")}
