"""The table, the picture and the page of a comparison."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from sia_jax.evaluation.claims import judge
from sia_jax.reports.evaluation import (
    claims_text,
    evaluation_page,
    evaluation_table,
    with_pictures_named,
)
from sia_jax.reports.pareto import share_picture
from sia_jax.reports.pictures import DPI, save_picture
from tests.support.comparing import METHODS, made_up

MEANS = dict(zip([method.key for method in METHODS], (0, 1, 1, 0.95, 1.1, 0.3, 0.9, 1.6, 1.4), strict=True))


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    comparison = made_up(MEANS, 0.3)
    return {
        "time": "2026-01-02T03:04:05Z",
        "command": "python -m decode.evaluate --policy p",
        "commits": ["0123456789ab"],
        "commit": "ba9876543210",
        "machines": ["cpu, 2 cores, jax 0.10.2"],
        "settings": {
            **{
                f"{model}{what}": "x1"
                for model in ("policy", "value", "reward")
                for what in ("", "_fingerprint")
            },
            **{"temperature": 1.0, "beta": 2.0, "num_candidates": 10, "max_new_tokens": 96},
        },
        "calibration": {
            **{"file": "t.json", "sha256": "f" * 64, "tokens": 1234, "prompts": "v.jsonl"},
            "command": "python -m decode.calibrate --policy p",
        },
        "prompts": {"file": "test.jsonl", "count": 40, "sha256": "e" * 64},
        "seeds": [0, 1],
        "resamples": 500,
        "comparisons": 10,
        "measures": list(comparison.measures),
        "rows": [comparison.row(measured) for measured in comparison.measured],
        "claims": {m: [claim.to_json() for claim in judge(comparison, m)] for m in comparison.measures},
        "provenance": {"the world's gold reward": "commit abcdef of 2026-01-01"},
    }


def test_the_table_has_the_numbers_of_each_method(results: dict[str, Any]) -> None:
    lines = evaluation_table(results).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {len(row) for row in cells} == {len(cells[0])}
    table = {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[2:]}
    assert list(table) == [method.name for method in METHODS]
    for row in results["rows"]:
        shown, gold = table[row["name"]], row["rewards"]["gold"]
        assert shown["gold reward"] == f"{gold['mean']:.2f} [{gold['low']:.2f}, {gold['high']:.2f}]"
        assert (shown["minus dense"] == "") == (row["kind"] == "dense")
    both = table["entropy 20%, best of 4 by value"]
    assert both["setting"] == "H ≥ 1.25 nats, chosen by the last value"
    assert both["steered"] == "20.0%"
    assert both["minus base"].startswith("+1.40 [+1.")
    assert both["tokens/s, by seed"] == "20"
    assert table["random 20%"]["setting"] == "p = 0.200"
    assert table["base, best of 4 by reward"]["setting"] == "chosen by the proxy reward"
    assert table["base"]["value, MFLOP a token"] == ""


def test_speeds_are_told_from_the_slowest_seed_to_the_fastest_to_two_digits(results: dict[str, Any]) -> None:
    rates = [[1134.0, 1062.0, 1364.0], [952.0, 951.0], [3.14, 5.0], [9.99, 10.01]]
    rows = [
        row | {"tokens_per_second_by_seed": own} for row, own in zip(results["rows"], rates, strict=False)
    ]
    table = evaluation_table(results | {"rows": rows})
    for shown in ("| 1,100 to 1,400 |", "| 950 |", "| 3.1 to 5.0 |", "| 10 |"):
        assert shown in table


def test_verdicts_stand_over_their_intervals(results: dict[str, Any]) -> None:
    text = claims_text(results)
    assert text.index("### On the gold reward") < text.index("### On the proxy reward")
    for claims in results["claims"].values():
        for claim in claims:
            assert f"**{claim['name']}: {claim['verdict']}.**" in text
            assert all(finding in text for finding in claim["findings"])
    assert "entropy 20% against random 20%: +0.650 [" in text


@pytest.mark.parametrize("measures", [["gold", "proxy"], ["proxy"]])
def test_the_picture_is_a_png_with_a_panel_for_each_reward(
    results: dict[str, Any], measures: list[str], tmp_path: Path
) -> None:
    save_picture(share_picture(results | {"measures": measures}), tmp_path / "new folder")
    content = (tmp_path / "new folder" / "pareto.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert (width, height) == (int(DPI * (1 + 5.5 * len(measures))), 5 * DPI)


def test_the_page_says_how_it_was_made(results: dict[str, Any]) -> None:
    page = evaluation_page(
        results, title="A world", introduction="Hello.\n", pictures="![p](a-pareto.png)\n", appendix="## X\n"
    )
    for part in (
        *("# A world\n", "Hello.", evaluation_table(results), claims_text(results), "(a-pareto.png)"),
        *(
            "python -m decode.calibrate --policy p\npython -m decode.evaluate --policy p\n",
            "ffffffffffffffff)",
        ),
        *(
            "0123456789ab on cpu, 2 cores, jax 0.10.2",
            "commit ba9876543210",
            "the world's gold reward: commit abcdef of 2026-01-01",
            "seeds 0, 1",
            "80 replies a method",
            "25.0%",
        ),
    ):
        assert part in page
    assert page.index("## All methods") < page.index("## X\n") < page.index("## How it was made")
    assert "not finite" not in page
    json.dumps(results, allow_nan=False)


def test_a_tilt_is_named_where_the_run_was_given_one(results: dict[str, Any]) -> None:
    tilted = results | {"settings": results["settings"] | {"tilt": "clipped(1, advantage)"}}
    pages = [evaluation_page(x, title="", introduction="", pictures="") for x in (results, tilted)]
    assert "temperature 1, beta 2, C = 10, at most" in pages[0]
    assert "temperature 1, beta 2, tilt clipped(1, advantage), C = 10, at most" in pages[1]


def test_pictures_of_an_appendix_get_names_of_their_own() -> None:
    text = "## More\n![One](one.png) ![Two](in/two.png), [one](one.png); ![Net](https://example.org/n.png)\n"
    renamed, names = with_pictures_named(text, "world-")
    assert names == {"one.png": "world-one.png", "in/two.png": "world-two.png"}
    assert renamed == (
        "## More\n![One](world-one.png) ![Two](world-two.png), [one](world-one.png); "
        "![Net](https://example.org/n.png)\n"
    )


def test_replies_that_failed_are_counted(results: dict[str, Any]) -> None:
    rows = [dict(row) for row in results["rows"]]
    rows[2]["non_finite"] = 3
    page = evaluation_page(results | {"rows": rows}, title="", introduction="", pictures="")
    assert "not finite: dense: 3" in page


@pytest.mark.parametrize(
    ("links", "renamed", "names"),
    [
        (["pareto.png"], ["w-pareto-2.png"], {"pareto.png": "w-pareto-2.png"}),
        (["Pareto.png"], ["w-Pareto-2.png"], {"Pareto.png": "w-Pareto-2.png"}),
        (["a/f.png", "b/f.png"], ["w-f.png", "w-f-2.png"], {"a/f.png": "w-f.png", "b/f.png": "w-f-2.png"}),
        (["f.png", "f-2.png", "a/f.png"], ["w-f.png", "w-f-2.png", "w-f-3.png"], None),
        (["f.png", "./f.png", "a/../f.png"], ["w-f.png"] * 3, {"f.png": "w-f.png"}),
        (['f.png "a title"', "f.png 'another'"], ['w-f.png "a title"', "w-f.png 'another'"], None),
        (["<a b.png>", "a%20b.png"], ["w-a%20b.png"] * 2, {"a b.png": "w-a b.png"}),
        (["f(1).png"], ["w-f%281%29.png"], {"f(1).png": "w-f(1).png"}),
        (["f.png", "w-f.png"], ["w-f.png", "w-w-f.png"], {"f.png": "w-f.png", "w-f.png": "w-w-f.png"}),
        (["data:image/png;base64,AA", "https://a.org/f.png", "//a.org/f.png", "file:/f.png"], None, {}),
    ],
)
def test_pictures_of_an_appendix_have_a_name_each_that_is_not_taken(
    links: list[str], renamed: list[str] | None, names: dict[str, str] | None
) -> None:
    def page(links: list[str]) -> str:
        return "".join(f"![A picture]({link}), [the same]({link})\n" for link in links)

    text, found = with_pictures_named(page(links), "w-", taken=("w-pareto.png",))
    assert text == page(renamed or links)
    assert names is None or found == names
    assert len({name.casefold() for name in found.values()} | {"w-pareto.png"}) == len(found) + 1


@pytest.mark.parametrize(
    "link", ["../f.png", "a/../../f.png", "/etc/passwd", "%2e%2e/f.png", "</etc/a b>", "..", '../f.png "x"']
)
def test_a_picture_outside_of_the_folder_of_an_appendix_is_refused(link: str) -> None:
    with pytest.raises(ValueError, match=r"the picture .* lies outside of the page's own folder; copy it"):
        with_pictures_named(f"![f](f.png)\n![a]({link})\n", "w-")


@pytest.mark.parametrize(
    ("more", "lines"),
    [
        ({}, ["proxy reward (the reward model's)", "gold reward (a program", "- reward model `x1` (x1)\n"]),
        (
            {"reward": None, "reward_functions": {"m:f": 1.0}, "reward_functions_fingerprint": {"m:f": "ab"}},
            ["proxy reward (a program that reads the text)", "- reward function `m:f` (ab), weight 1\n"],
        ),
        (
            {
                **{"reward_weight": 2.0, "reward_functions": {"m:f": 0.5}, "length_penalty": 0.1},
                **{"reward_functions_fingerprint": {"m:f": "ab"}, "gold": "reward model other (cd)"},
            },
            [
                *("proxy reward (a reward model's and a program's)", "gold reward (another reward model's)"),
                *("- reward model `x1` (x1), weight 2\n", "- reward function `m:f` (ab), weight 0.5\n"),
                *("- less 0.1 for each word of the reply", "- gold reward: reward model other (cd)\n"),
            ],
        ),
    ],
)
def test_the_page_names_all_that_the_rewards_are_made_of(
    results: dict[str, Any], more: dict[str, Any], lines: list[str]
) -> None:
    changed = results | {"settings": results["settings"] | more}
    page = evaluation_page(changed, title="", introduction="", pictures="")
    for line in lines:
        assert line in page


def test_replies_without_a_reward_are_counted(results: dict[str, Any]) -> None:
    rows = [dict(row) for row in results["rows"]]
    rows[2] |= {"unscored": 4, "gold_unscored": 5}
    page = evaluation_page(results | {"rows": rows}, title="", introduction="", pictures="")
    assert "Replies without a proxy reward, " in page
    assert ": dense: 4. Replies without a gold reward, left out likewise: dense: 5." in page
