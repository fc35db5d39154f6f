"""The tables of differences and of texts."""

from typing import Any

import pytest

from sia_jax.evaluation.claims import to_json
from sia_jax.evaluation.comparison import Comparison
from sia_jax.evaluation.statistics import Interval
from sia_jax.reports.evaluation import claims_text, evaluation_table, results_text
from sia_jax.reports.measures import differences_section, p_text, texts_section
from tests.support.comparing import METHODS, made_up

MEANS = dict(zip([method.key for method in METHODS], (0, 1, 1, 0.95, 1.1, 0.3, 0.9, 1.6, 1.4), strict=True))


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """Of replies with texts: every other one a refusal."""
    plain = made_up(MEANS, 0.3)
    texts = ("so it is so it is", "I cannot say.")
    records = {
        one.method.key: [dict(record) | {"text": texts[record["index"] % 2]} for record in one.records]
        for one in plain.measured
    }
    return to_json(Comparison(METHODS, records, resamples=500))


def cells(section: str) -> list[list[str]]:
    """Those of the section's table, without its header's line."""
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if "---" not in row]


def test_each_difference_stands_in_a_line_once_with_its_p_value_and_wins(results: dict[str, Any]) -> None:
    header, *lines = cells(differences_section(results))
    assert {len(line) for line in lines} == {len(header)}
    table = {(line[0], line[1]): dict(zip(header, line, strict=True)) for line in lines}
    told = 0
    for row in results["rows"][1:]:
        for rival, found in row["differences"].items():
            shown = table[row["name"], rival]
            for measure in ("gold", "proxy"):
                own = found[measure]
                assert shown[f"{measure} reward"] == Interval.from_json(own).text(signed=True, digits=3)
                assert shown[f"p, {measure}"] == p_text(own["p_adjusted"])
                assert shown[f"wins, {measure}"] == Interval.from_json(own["wins"]).text()
            told += 1
    assert told == len(lines) == 2 * len(METHODS) - 3
    assert f"Holm's method for the {2 * len(METHODS) - 3} differences" in differences_section(results)


def test_the_texts_of_each_method_stand_in_a_line(results: dict[str, Any]) -> None:
    header, *lines = cells(texts_section(results))
    assert [line[0] for line in lines] == [method.name for method in METHODS]
    shown = dict(zip(header, lines[0], strict=True))
    assert shown["words a reply"].startswith("5.0 [")
    assert shown["cut"] == "25.0%"
    assert shown["rep-2"].startswith("0.200 [")
    assert shown["refusals"].startswith("0.50 [")
    assert shown["distinct-1"] == f"{7 / 400:.3f}"


def test_replies_without_texts_and_methods_without_rivals_have_no_section() -> None:
    results = to_json(made_up(MEANS, 0.3, METHODS[:1]))
    assert differences_section(results) == texts_section(results) == ""
    assert results_text(results) == f"{evaluation_table(results)}\n{claims_text(results)}"


def test_all_tables_and_claims_stand_in_the_text_of_results(results: dict[str, Any]) -> None:
    text = results_text(results)
    parts = (evaluation_table, claims_text, differences_section, texts_section)
    places = [text.index(part(results)) for part in parts]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("p", "text"),
    [(None, "?"), (0.0002, "<0.001"), (0.001, "0.001"), (0.05, "0.050"), (0.0501, "0.051"), (1.0, "1.000")],
)
def test_p_values_in_words_are_rounded_up(p: float | None, text: str) -> None:
    assert p_text(p) == text
