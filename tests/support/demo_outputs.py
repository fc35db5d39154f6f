"""Whether what `decode.demo` has written is what it should be, by its content.

python -m tests.support.demo_outputs out/demo
"""

import html
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
from matplotlib.image import imread

from sia_jax.world.gold import gold_reward
from sia_jax.world.prompts import find_prompt


def check(folder: Path) -> None:
    """Raise AssertionError if a file is not what the demo should have written."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in results["rows"]}
    lines = (folder / "replies.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    methods = list(rows)
    assert methods[0] == "base"
    assert methods[-1] == "dense"
    assert len(methods) >= 5
    count = 1 + max(record["index"] for record in records)
    assert sorted((r["index"], methods.index(r["method"])) for r in records) == [
        (i, m) for i in range(count) for m in range(len(methods))
    ]
    for record in records:
        _check_record(record)
    for name, row in rows.items():
        own = [record for record in records if record["method"] == name]
        assert math.isclose(row["rewards"]["gold"]["mean"], np.mean([r["gold"] for r in own]), abs_tol=1e-6)
        steered = sum(sum(r["junction"]) for r in own) / sum(r["length"] for r in own)
        assert math.isclose(row["ratio"], steered, abs_tol=1e-9)
        for interval in row["rewards"].values():
            assert (interval["low"] is None) == (count < 20)
            assert count < 20 or interval["low"] <= interval["mean"] <= interval["high"]
    ratios = [row["ratio"] for row in rows.values()]
    assert ratios[0] == 0
    assert ratios[-1] == 1
    assert ratios == sorted(ratios)
    if count >= 48:  # with fewer prompts luck decides
        for measure in ("gold", "proxy"):
            means = {name: row["rewards"][measure]["mean"] for name, row in rows.items()}
            assert means["sparse 20%"] > means["base"] + 0.3, means
            assert means["dense"] > means["base"] + 0.3, means
    _check_page((folder / "trace.html").read_text(encoding="utf-8"), records)
    picture = imread(folder / "pareto.png")
    assert picture.shape[0] >= 400
    assert picture.shape[1] >= 800
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 20  # axes, curves, intervals
    numbers = (folder / "pareto.csv").read_text(encoding="utf-8").splitlines()
    assert len(numbers) == 1 + 2 * len(rows)


def _check_record(record: dict) -> None:
    prompt = find_prompt(record["id"])
    assert record["prompt"] == [dict(message) for message in prompt.messages]
    assert record["gold"] == gold_reward(prompt, record["text"])
    assert math.isfinite(record["proxy"])
    assert record["text"] == "".join(record["pieces"])
    assert len(record["tokens"]) == record["length"] == len(record["candidates"]["ids"])
    if record["method"] == "base":
        assert not any(record["junction"])
    if record["method"] == "dense":
        assert all(record["junction"])
    for token, ids, junction in zip(
        record["tokens"], record["candidates"]["ids"], record["junction"], strict=True
    ):
        assert not junction or token in ids


def _check_page(page: str, records: list[dict]) -> None:
    assert page.lstrip().startswith("<!doctype html>")
    assert "http://" not in page
    assert "https://" not in page
    shown = [record for record in records if _title(record) in page]
    assert {record["method"] for record in shown} >= {"base", "dense"}
    indices = {record["index"] for record in shown}
    assert page.count("<article ") == 3 * len(indices)
    # By a stated rule: the largest gain of sparse steering comes first, the largest loss is there.
    gold = {(record["index"], record["method"]): record["gold"] for record in records}
    gains = {i: gold[i, "sparse 20%"] - gold[i, "base"] for i, method in gold if method == "base"}
    titles = re.findall("<h2>(.*?)</h2>", page)
    first = next(record for record in shown if f">{titles[0]}</h2>" == _title(record))
    assert gains[first["index"]] == max(gains.values())
    if len(indices) >= 3:
        assert min(gains.values()) in {gains[i] for i in indices}
    for word in ("What the words mean", "mean gold", "mean proxy", "Content-Security-Policy"):
        assert word in page


def _title(record: dict) -> str:
    return f">{html.escape(record['prompt'][0]['content'])}</h2>"


if __name__ == "__main__":
    check(Path(sys.argv[1]))
    print(f"{sys.argv[1]}: everything is what it should be")
