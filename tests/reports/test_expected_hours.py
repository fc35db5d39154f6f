"""What a million prompts take: how it comes into the page, and what changes it."""

import json
import tracemalloc
from array import array
from dataclasses import replace
from pathlib import Path

import pytest

from decode import expected_hours
from sia_jax.costs.work import Lengths
from sia_jax.reports.expected_hours import Measured, driver_bytes, record_bytes

ROOT = Path(__file__).parents[2]
RECORDS = ("2026-11-27T022328Z-gpu.json", "2026-11-28T112429Z-sampler.json")
USUAL = expected_hours.Args(measured=tuple(Path("docs/benchmarks") / name for name in RECORDS))


@pytest.fixture(scope="module")
def made() -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return expected_hours.section(USUAL)


def hours(section: str) -> list[list[float]]:
    """Cells of the second table, at the limit."""
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if " / " in line and "|" in line]
    return [[float(cell.split(" / ")[0].replace(",", "")) for cell in row[2:]] for row in rows]


def test_the_section_of_the_page_is_what_the_program_says(made):
    page = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    assert expected_hours.with_section(page, made) == page


def test_hours_go_as_the_number_of_devices(made):
    rows = hours(made)
    assert len(rows) == 9
    for eight, many, v16, v64, v256, of_one, of_v5e in rows:
        assert 8 * eight == pytest.approx(of_one, rel=0.1)
        assert 64 * many == pytest.approx(of_one, abs=0.01 * 64)
        assert 16 * v16 == pytest.approx(of_v5e, rel=0.1)
        assert (64 * v64, 256 * v256) == pytest.approx((of_v5e, of_v5e), abs=0.01 * 256)


def test_the_options_change_what_is_said_and_stand_in_the_command(made, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"# A\n\n{expected_hours.HEADING}\n\nold\n\n## B\n\nkept\n")
    args = expected_hours.Args(prompts=10_000_000, reward="1.7B", rows=64, page=page)
    expected_hours.main(args)
    text = page.read_text()
    assert text.startswith(f"# A\n\n{expected_hours.HEADING}\n\nCounted by `python -m")
    assert text.endswith("\n\n## B\n\nkept\n")
    assert "--prompts 10000000 --reward 1.7B --rows 64`" in text.replace("\n", " ")
    assert "Measured by this project" not in text
    assert "| 64 on 1 |" in text
    before, after = hours(made), hours(text)
    assert after[0][0] > 10 * before[0][0]  # fewer rows: more than ten times as long
    assert after[6][0] < 10 * before[6][0] / 3  # a smaller reward model
    assert after[7][0] == pytest.approx(10 * before[7][0], rel=0.05)
    assert "wrote" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"prompts": 0}, "--prompts must be 1 or more, got 0"),
        ({"reply": 0}, "--reply must be 1 or more, got 0"),
        ({"rows": -1}, "--rows must be 1 or more, got -1"),
        ({"memory": 0.0}, "--memory must be a share above 0 and at most 1, got 0.0"),
        ({"memory": float("nan")}, "--memory must be a share"),
        ({"prompt": 40_000, "reply": 1000}, "must fit the models' 40,960 positions together, got 41,000"),
        ({"measured": (Path("nowhere.json"),)}, "nowhere.json"),
        ({"page": Path(__file__)}, "heading '## What a million prompts take' once"),
    ],
)
def test_options_that_do_not_fit_end_the_program_before_anything_is_counted(options, why, monkeypatch):
    def counted(*_: object) -> None:
        pytest.fail("something was counted")

    monkeypatch.setattr(expected_hours, "stages", counted)
    with pytest.raises(SystemExit, match=why):
        expected_hours.main(replace(expected_hours.Args(), **options))


def test_a_record_is_read_with_its_share_of_the_limit_of_its_own_floor():
    path = ROOT / "docs" / "benchmarks" / RECORDS[0]
    row = next(
        row
        for row in json.loads(path.read_text())["rows"]
        if (row["system"], row["batch"]) == ("unsteered, full record", 16)
    )
    found = Measured.read(path)
    assert found.tokens_per_second["unsteered"] == row["tokens_per_second"]
    assert found.shares()[0] == pytest.approx(row["of_floor"], rel=0.01)
    assert len(found.first_seconds) == 3


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"kind": "training", "shape": "1.7B"}, "expected a record of kind gpu or sampler"),
        ({"kind": "gpu", "shape": ["mini"]}, "expected a record of kind gpu or sampler"),
        ({"kind": "gpu", "shape": "1.7B", "rows": []}, "expected rows of unsteered"),
        ({"kind": "gpu", "shape": "1.7B"}, "expected rows of unsteered"),
        ({"kind": "gpu", "shape": "1.7B", "rows": [7], "new_tokens": 1}, "expected rows of unsteered"),
    ],
)
def test_a_record_of_something_else_is_refused_by_name(record, why, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=why):
        Measured.read(path)


def test_ids_of_prompts_take_the_memory_that_is_counted():
    tracemalloc.start()
    kept = [array("i", range(1000, 1256)) for _ in range(200)]
    used = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    ids = driver_bytes(Lengths(256, 1)) - driver_bytes(Lengths(0, 1)) - 4 * 256  # without the text
    assert 1 <= used / ids < 1.15


def test_lines_grow_with_the_reply_by_what_its_tokens_take():
    short, long = record_bytes(Lengths(256, 256)), record_bytes(Lengths(256, 512))
    assert 60 < (long - short) / 256 < 95
    assert record_bytes(Lengths(512, 256)) == short + 4 * 256
