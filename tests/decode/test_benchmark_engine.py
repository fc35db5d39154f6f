"""decode.benchmark_engine at a tiny shape: what its record holds."""

import json
from pathlib import Path

import pytest

from decode import benchmark_engine
from decode.benchmark_engine import Args, main
from sia_jax.costs.roofline import DeviceRates

pytestmark = pytest.mark.optimised


def test_sizes_that_compare_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--rows must be 2 or more, --requests at least as many"):
        main(Args(rows=4, requests=3, out=tmp_path))


@pytest.mark.long
def test_the_record_and_the_page_hold_all_that_was_timed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(benchmark_engine, "measure_device", lambda *_: DeviceRates(1e9, 1e12))
    main(Args(shape="tiny", requests=12, rows=4, new_tokens=24, tries=1, out=tmp_path / "records"))
    record = json.loads(next((tmp_path / "records").glob("*-engine.json")).read_text())
    assert [row["system"] for row in record["lock_step"]["systems"]] == ["engine", "lock step"]
    assert all(row["tokens_per_second"] > 0 for row in record["lock_step"]["systems"])
    assert record["lock_step"]["ideal"] > 1
    assert 1 < record["lock_step"]["rows_in_use"] <= 4
    assert [row["streams"] for row in record["first_tokens"]] == [1, 4]
    assert all(row["first_token_ms"] > 0 for row in record["first_tokens"])
    page = (tmp_path / "records.md").read_text()
    assert '## The engine, shape "tiny"' in page
    assert "| half steered at 20% |" in page
