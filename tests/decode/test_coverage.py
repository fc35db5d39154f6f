"""decode.coverage on a few trials: the page that it makes, and the files of replies that it refuses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from decode import coverage
from decode.coverage import Args

ARGS = Args(prompts=(3,), trials=8, resamples=8, pairs=("dense:base",))


def line(method: Any, index: Any, gold: Any) -> str:
    return json.dumps({"method": method, "index": index, "gold": gold}) + "\n"


def test_a_page_has_a_row_for_each_law_and_each_pair_of_methods(tmp_path: Path) -> None:
    replies, out = tmp_path / "replies.jsonl", tmp_path / "intervals.md"
    rows = [line("base", index, 0) + line("dense", index, index) for index in range(4)]
    replies.write_text("\n".join(rows))  # blank lines between them
    coverage.main(replace(ARGS, replies=replies, out=out))
    table = [row.split("|")[1].strip() for row in out.read_text().splitlines() if row.startswith("|")]
    assert table == ["differences", "---", "normal", "exponential", "dense minus base"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (line("base", 0, 1) + line("base", 1, float("nan")), r"line 2, column \d+: NaN is not a finite"),
        (line("base", 0, 1) + '{"method": "base"}', "line 2: this is no reply with a method, an index"),
        (line("base", 0, 1) + line("base", 1, "nan"), "line 2: .*gold must be a number, got 'nan'"),
        (line("base", 0, "1.5"), "gold must be a number, got '1.5'"),
        (line("base", 0, True), "gold must be a number, got True"),
        (line("base", 0, 1e305), "gold must be a number"),
        (
            line("base", 0, 1) + line("base", "x", 1),
            "line 2: .*index must be a whole number from 0 on, got 'x'",
        ),
        (line("base", 0.0, 1), "index must be a whole number"),
        (line("base", 0, 1) + line(5, 0, 1), "line 2: .*method must be a text, got 5"),
        (line(["base"], 0, 1), r"method must be a text, got \['base'\]"),
        ("[1]", "line 1: expected an object"),
        (line("base", 0, 1), r"no replies of both methods of --pairs dense:base .* only of \['base'\]"),
    ],
)
def test_what_is_no_file_of_such_replies_is_refused_with_the_place(
    tmp_path: Path, text: str, message: str
) -> None:
    replies = tmp_path / "replies.jsonl"
    replies.write_text(text)
    with pytest.raises(SystemExit, match=message):
        coverage.main(replace(ARGS, replies=replies, out=tmp_path / "page.md"))
    assert not (tmp_path / "page.md").exists()


def test_pairs_of_methods_without_replies_of_them_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--pairs is for --replies FILE"):
        coverage.main(replace(ARGS, out=tmp_path / "page.md"))
    assert not (tmp_path / "page.md").exists()
