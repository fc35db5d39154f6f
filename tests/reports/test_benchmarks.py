import json
from pathlib import Path

import pytest

from sia_jax.reports.benchmarks import section, write_page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_in_the_repository_is_the_one_made_from_its_records(tmp_path):
    write_page(DOCS / "benchmarks", tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == (DOCS / "benchmarks.md").read_text()


def test_a_record_of_no_known_kind_is_refused():
    with pytest.raises(ValueError, match="records are of kinds"):
        section({"kind": "dreams"})


def test_a_gpu_run_shows_rates_floors_kernels_and_what_was_not_timed():
    counts = {"steered": 0.2, "policy_steps": 145, "value_calls": 108}
    row = {
        "system": "20% steered",
        "batch": 16,
        "tokens_per_second": 2401.3,
        "best_tokens_per_second": 2405.4,
        "ms_per_token_of_each_row": 6.663,
        "policy_floor_ms": 0.958,
        "of_floor": 0.144,
        "of_unsteered": 0.369,
        "first_call_seconds": 34.93,
        "counts": counts,
    }
    other = row | {"system": "dense", "counts": counts | {"differing_tokens": 7}}
    target = {"name": "floor / time, unsteered, batch 16", "target": 0.65, "met": False}
    record = json.loads(min(DOCS.glob("benchmarks/*-gpu.json")).read_text()) | {
        "rows": [row, row | {"system": "bare greedy loop", "counts": {}}, other],
        "targets": [target | {"value": 0.39}, target | {"value": None}],
        "left_out": [{"system": "dense", "batch": 1}],
        "failed": [{"system": "dense, cuDNN attention", "batch": 16, "error": "no engine"}],
        "kernels": {
            "dense, batch 16": {
                "busy_ms": 200.0,
                "span_ms": 300.0,
                "launches": 9,
                "rows": [["gemm_fusion_dot", 4, 50.0]],
            }
        },
    }
    text = section(record)
    assert (
        "| 16 | 20% steered | 2401 (2405) | 6.66 | 0.96 | 5.71 | 0.14 | 0.37 | 20% | 145 | 108 | 34.9 |"
        in text
    )
    assert (
        "| 16 | bare greedy loop | 2401 (2405) | 6.66 | 0.96 | 5.71 | 0.14 | 0.37 |  |  |  | 34.9 |" in text
    )
    assert "| floor / time, unsteered, batch 16 | 0.39 | 0.65 | missed |" in text
    assert "| floor / time, unsteered, batch 16 |  | 0.65 | not timed |" in text
    assert "cut short: dense at batch 1." in text
    assert "Failed, as the record says: dense, cuDNN attention at batch 16." in text
    assert "| 16 | dense (7 tokens differ) | 2401" in text
    assert "9 kernels; one ran for 200.0 of 300.0 ms" in text
    assert "| `gemm_fusion_dot` | 4 | 12500.0 | 25% |" in text


def test_a_run_of_the_server_shows_its_speed_beside_its_engines_and_what_was_steered():
    row = {
        "system": "sia serve",
        "steering": "20%",
        "streams": 16,
        "requests": 32,
        "tokens_per_second": 1234.4,
        "best_tokens_per_second": 1300.6,
        "tokens_per_chunk": 13.26,
        "first_token_ms": {"p50": 81.4, "p95": 120.2},
        "between_tokens_ms": {"p50": 8.31, "p95": 9.96},
        "engine_tokens_per_second": 1352.2,
        "of_engine": 0.913,
        "steered": 0.2041,
        "shifted": 0.031,
        "values_read": 2.04,
    }
    own = {"engine_tokens_per_second", "of_engine", "steered", "shifted", "values_read"}
    other = {name: x for name, x in row.items() if name not in own} | {"system": "transformers serve"}
    target = {"name": "server / its own engine, 16 streams, 20%", "value": 0.913, "target": 0.9, "met": True}
    record = json.loads(max(DOCS.glob("benchmarks/*-engine.json")).read_text()) | {
        "kind": "serving",
        "rows_of_engine": 16,
        "rows": [row, other | {"steering": "unsteered"}],
        "targets": [target],
        "failed": [{"system": "transformers serve, continuous batching", "error": "no room"}],
    }
    text = section(record)
    assert "Failed, as the record says: transformers serve, continuous batching.\n" in text
    assert "Failed" not in section(record | {"failed": []})
    assert "| server / its own engine, 16 streams, 20% | 0.91 | 0.9 | met |" in text
    assert "| 16 | sia serve | 20% | 1234 (1301) | 1352 | 0.91 | 81 | 120 | 8.3 | 10.0 | 13.3 |" in text
    assert (
        "| 16 | transformers serve | unsteered | 1234 (1301) |  |  | 81 | 120 | 8.3 | 10.0 | 13.3 |" in text
    )
    assert "| 20% | 20.4% | 3.1% | 2.04 |" in text
    assert "The server writes 16 replies at a time" in text
