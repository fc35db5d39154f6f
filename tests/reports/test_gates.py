"""The table of gates at equal ratio, and all gates in the tables and pictures that there were."""

from pathlib import Path
from typing import Any

import pytest

from sia_jax.evaluation.claims import to_json
from sia_jax.evaluation.statistics import Interval
from sia_jax.reports.evaluation import evaluation_table, results_text
from sia_jax.reports.gates import equal_ratio_section
from sia_jax.reports.measures import p_text
from sia_jax.reports.pareto import share_picture
from sia_jax.reports.pictures import save_picture
from tests.support.comparing import WITH_GATES, made_up


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    means = {method.key: 0.1 * place for place, method in enumerate(WITH_GATES)}
    return to_json(made_up(means, 0.5, WITH_GATES))


def cells(text: str) -> list[list[str]]:
    """Those of a table, without the line below its header."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if "---" not in row]


def test_each_gate_stands_in_a_line_with_what_it_steered_and_its_difference(results: dict[str, Any]) -> None:
    section = equal_ratio_section(results)
    header, *lines = cells(section)
    assert len(lines) == 12
    assert f"Holm's method for the {len(lines)} differences of this table" in section
    for row, line in zip(results["equal_ratio"], lines, strict=True):
        shown = dict(zip(header, line, strict=True))
        assert shown["method"] == row["name"]
        assert shown["steered"] == f"{row['steered']:.1%}"
        assert shown["by entropy"] == f"{row['steered_by_entropy']:.1%}"
        for measure in ("gold", "proxy"):
            own = row["differences"][measure]
            assert shown[f"{measure} reward"] == Interval.from_json(own).text(signed=True, digits=3)
            assert shown[f"p, {measure}"] == p_text(own["p_adjusted"])
            assert shown[f"wins, {measure}"] == Interval.from_json(own["wins"]).text()
    assert section in results_text(results)


def test_every_gate_says_how_it_is_set(results: dict[str, Any]) -> None:
    header, *lines = cells(evaluation_table(results))
    settings = {line[0]: dict(zip(header, line, strict=True))["setting"] for line in lines}
    assert len(settings) == len(WITH_GATES)
    for name, text in {
        "base": "",
        "dense": "every token",
        "dense, contenders at 1": "every token, tilt within ±1 nats",
        "entropy 20%, contenders at 1": "H ≥ 1.25 nats, tilt within ±1 nats",
        "entropy ratio 20%": "ln H/H before ≥ 0.5",
        "position 20%": "t < 3",
        "budget 20%": "20% held, at first H ≥ 1.25 nats",
        "learned 80%": "w·x ≥ 2.5",
    }.items():
        assert settings[name] == text


def test_a_picture_of_all_gates_is_drawn(results: dict[str, Any], tmp_path: Path) -> None:
    save_picture(share_picture(results), tmp_path)
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_results_of_an_earlier_release_have_no_such_table(results: dict[str, Any]) -> None:
    old = {name: x for name, x in results.items() if name != "equal_ratio"}
    old["rows"] = [{name: x for name, x in row.items() if name != "bound"} for row in old["rows"][:3]]
    assert equal_ratio_section(old) == ""
    assert "Gates at equal ratio" not in results_text(old)
