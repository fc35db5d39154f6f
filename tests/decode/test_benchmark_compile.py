"""decode.benchmark_compile at two layers: what a call is made of, the rows, and what is asked for."""

import json
from pathlib import Path

import pytest

from decode import benchmark_compile
from decode.benchmark_compile import EMPTY, FULL, OTHER, Args, main
from sia_jax.costs.roofline import DeviceRates

pytestmark = pytest.mark.optimised

CALLS = [
    {"seconds": 50.0, "trace": 2.0, "lower": 1.0, "compile": 35.0, "programs": 7},
    {"seconds": 10.0, "trace": 0.0, "lower": 0.0, "compile": 0.0, "programs": 0},
    {"seconds": 45.0, "trace": 2.0, "lower": 1.0, "compile": 30.0, "programs": 1},
]


@pytest.mark.parametrize(("layers", "has_targets"), [(28, True), (2, False)])
def test_rows_are_what_each_process_found(
    layers: int, has_targets: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folders = []
    monkeypatch.setattr(benchmark_compile, "measure_device", lambda *_: DeviceRates(1e9, 1e12))
    monkeypatch.setattr(benchmark_compile, "in_new_process", lambda *what: folders.append(what[-1]) or CALLS)
    main(Args(layers=layers, out=tmp_path / "records"))
    record = json.loads(next((tmp_path / "records").glob("*-compile.json")).read_text())
    assert [(row["system"], row["case"]) for row in record["rows"]] == [
        (system, case) for system in ("unsteered", "20% steered") for case in (EMPTY, OTHER, FULL)
    ]
    assert [row["beyond_second"] for row in record["rows"]] == [40, 35, 40] * 2
    assert folders[0] == folders[1] != folders[2] == folders[3]
    assert [target["met"] for target in record["targets"]] == [True, False, False] * has_targets
    assert f"| 20% steered | {OTHER} | 35.0 | 2.0 | 1.0 | 30.0 | 1 |" in (tmp_path / "records.md").read_text()


def test_a_length_without_a_shorter_one_in_its_bucket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--prompt-tokens 97 is the shortest of its bucket"):
        main(Args(prompt_tokens=97, out=tmp_path))


@pytest.mark.long
def test_a_second_process_loads_what_the_first_has_compiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(benchmark_compile, "measure_device", lambda *_: DeviceRates(1e9, 1e12))
    main(Args(layers=2, new_tokens=16, out=tmp_path / "records"))
    record = json.loads(next((tmp_path / "records").glob("*-compile.json")).read_text())
    for empty, other, full in (record["rows"][:3], record["rows"][3:]):
        assert other["programs"] == other["compile"] == 0
        for row in (empty, full):
            assert row["programs"] > 0
            assert 0 < row["trace"] < row["seconds"]
            assert 0 < row["compile"] < row["seconds"]
        assert full["compile"] < empty["compile"]
