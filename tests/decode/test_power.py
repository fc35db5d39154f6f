"""decode.power: its table, its picture, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decode import power
from decode.power import Args
from sia_jax.evaluation.power import Spread, prompts_needed, spread_from, spread_of
from sia_jax.evaluation.power import power as power_of


@pytest.fixture(scope="module", autouse=True)
def drawn() -> None:
    """No blank pictures: no other test draws this one within seconds."""


RECKONED = Args(difference=(0.2, 0.5), deviation=1.5, correlation=0.6, within=0.5, seeds=(1, 3))


def cells(text: str) -> list[list[str]]:
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if "---" not in row]


def expected(spread: Spread, args: Args) -> list[list[str]]:
    return [
        [f"{difference:g}", f"{seeds}"]
        + [
            f"{prompts_needed(difference, spread, seeds, wanted, comparisons=args.comparisons):,}"
            for wanted in args.power
        ]
        for difference in args.difference
        for seeds in args.seeds
    ]


@pytest.mark.parametrize("comparisons", [1, 8])
def test_the_table_has_a_line_for_each_difference_and_number_of_seeds(
    comparisons: int, capsys: pytest.CaptureFixture[str]
) -> None:
    args = replace(RECKONED, comparisons=comparisons)
    power.main(args)
    said = capsys.readouterr().out
    header, *lines = cells(said)
    assert header == ["difference", "seeds", "prompts, power 80%", "prompts, power 90%"]
    assert lines == expected(spread_from(1.5, 0.6, 0.5), args)
    assert ("(5% over 8 comparisons)" in said) == (comparisons == 8)


def test_the_spread_of_replies_is_taken_and_the_power_of_as_many_prompts_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    rewards = {method: rng.normal(size=(30, 1)) + rng.normal(size=(30, 2)) for method in ("base", "dense")}
    lines = [
        json.dumps({"method": method, "index": index, "seed": seed, "proxy": own[index, seed]}) + "\n"
        for method, own in rewards.items()
        for index in range(30)
        for seed in range(2)
    ]
    (tmp_path / "replies.jsonl").write_text("".join(lines))
    args = Args(difference=(0.4,), replies=str(tmp_path), seeds=(2,), plot=str(tmp_path.parent / "p.png"))
    power.main(args)
    difference = (rewards["dense"] - rewards["base"]).ravel()
    spread = spread_of(difference, np.repeat(np.arange(30), 2).tolist())
    header, line = cells(capsys.readouterr().out)
    assert header[-1] == "power of 30 prompts"
    assert line == [*expected(spread, args)[0], f"{power_of(0.4, spread, 30, 2):.0%}"]
    assert (tmp_path.parent / "p.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_more_prompts_than_are_looked_for_are_told_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    power.main(replace(RECKONED, difference=(1e-5,), within=0.0))
    said = capsys.readouterr().out
    assert "above 10,000,000" in said
    assert "the part of the seeds is not known" in said


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (replace(RECKONED, difference=()), "--difference, --seeds and --power take one number or more each"),
        (replace(RECKONED, difference=(0.0,)), "--difference must be a number other than 0"),
        (replace(RECKONED, deviation=None), "give --replies FILE, or --deviation X and --correlation X"),
        (replace(RECKONED, deviation=-1.0), "--deviation must be a number above 0, got -1.0"),
        (replace(RECKONED, within=2.0), "--within must be from 0 to 1"),
        (replace(RECKONED, power=(1.0,)), "--power must be between 0 and 1"),
        (replace(RECKONED, seeds=(0,)), "--seeds must be 1 or more, got 0"),
        (replace(RECKONED, comparisons=300), "--comparisons must be 250 at most, got 300"),
        (replace(RECKONED, pair="a:b"), "--pair is for --replies FILE"),
        (replace(RECKONED, replies="none"), "--deviation is for a spread without --replies"),
        (Args(difference=(0.1,), replies="none"), "no such file of replies"),
        (replace(RECKONED, plot="p.jpg"), "--plot must be a .png file, got p.jpg"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_option(args: Args, message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        power.main(args)
