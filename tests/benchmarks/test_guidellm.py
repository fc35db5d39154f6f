"""What guidellm is asked, how it is run, and what its report says."""

import copy
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from sia_jax.benchmarks.guidellm import read_report, run_guidellm, scenario, write_prompts

STREAMS, REQUESTS = (1, 4), (2, 3)


def request(began: float, ended: float, tokens: int) -> dict[str, Any]:
    """Of a report of guidellm 0.8.1, as far as it is read."""
    return {
        "request_start_time": began,
        "request_end_time": ended,
        "output_tokens": tokens,
        "prompt_tokens": 20,
        "info": {"status": "completed", "error": None},
    }


def metric(p50: float, p95: float) -> dict[str, Any]:
    return {"successful": {"mean": (p50 + p95) / 2, "count": 3, "percentiles": {"p50": p50, "p95": p95}}}


def benchmark(streams: int, answered: list[dict[str, Any]]) -> dict[str, Any]:
    totals = {"successful": len(answered), "errored": 0, "incomplete": 0, "total": len(answered)}
    return {
        "config": {"strategy": {"type_": "concurrent", "streams": streams}},
        "metrics": {
            "request_totals": totals,
            "time_to_first_token_ms": metric(30.0, 50.0 * streams),
            "inter_token_latency_ms": metric(2.0, 3.5),
            "output_tokens_per_iteration": metric(12.0, 14.0),
        },
        "requests": {"successful": answered, "errored": [], "incomplete": [], "total": None},
    }


def report() -> dict[str, Any]:
    one = benchmark(1, [request(100.0, 101.0, 40), request(101.5, 104.0, 60)])
    four = benchmark(4, [request(9.5, 11.0, 10), request(9.0, 10.0, 20), request(9.2, 13.0, 30)])
    return {"metadata": {"version": 2, "guidellm_version": "0.8.1"}, "benchmarks": [one, four]}


def test_speed_is_that_of_all_tokens_from_the_first_start_to_the_last_end() -> None:
    one, four = read_report(report(), STREAMS, REQUESTS)
    assert (one.tokens, one.seconds, one.tokens_per_second) == (100, 4.0, 25.0)
    assert (four.tokens, four.seconds, four.tokens_per_second) == (60, 4.0, 15.0)
    assert (four.streams, four.requests, four.prompt_tokens) == (4, 3, 60)
    assert four.first_token_ms == {"p50": 30.0, "p95": 200.0}
    assert four.between_tokens_ms == {"p50": 2.0, "p95": 3.5}
    assert four.tokens_per_chunk == 13.0


def changed(place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    found = copy.deepcopy(report())
    inner: Any = found
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    return found


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("metadata", "version"), 3, "version 3"),
        (("benchmarks", 1, "config", "strategy", "streams"), 8, "ran 8 streams where 4"),
        (("benchmarks", 1, "metrics", "request_totals", "errored"), 1, "1 failed"),
        (("benchmarks", 0, "metrics", "request_totals", "incomplete"), 2, "2 were broken off"),
        (("benchmarks", 0, "metrics", "request_totals", "successful"), 1, "of 2 requests .* 1 were answered"),
        (("benchmarks",), [], "ran 0 of 2"),
    ],
)
def test_a_report_of_another_version_or_run_or_with_a_failure_is_refused(
    place: tuple[Any, ...], value: Any, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        read_report(changed(place, value), STREAMS, REQUESTS)


def test_why_the_first_request_failed_is_said() -> None:
    found = changed(("benchmarks", 1, "metrics", "request_totals", "errored"), 1)
    found["benchmarks"][1]["requests"]["errored"] = [{"info": {"error": "503 overloaded"}}]
    with pytest.raises(ValueError, match="the first: 503 overloaded"):
        read_report(found, STREAMS, REQUESTS)


def test_prompts_say_how_long_their_replies_are_where_that_is_asked(tmp_path: Path) -> None:
    for tokens, more in ((7, {"output_tokens_count": 7}), (None, {})):
        write_prompts(tmp_path / "p.jsonl", ["Hello?", 'é "quoted"'], tokens)
        lines = (tmp_path / "p.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [
            {"prompt": "Hello?"} | more,
            {"prompt": 'é "quoted"'} | more,
        ]


def program(folder: Path, code: str) -> Path:
    """In guidellm's place."""
    path = folder / "guidellm"
    path.write_text(f"#!/bin/sh\n{code}\n")
    os.chmod(path, path.stat().st_mode | stat.S_IXUSR)
    return path


def asked(folder: Path) -> dict[str, Any]:
    return scenario("http://127.0.0.1:1", "m", folder / "p.jsonl", folder / "r.json", STREAMS, REQUESTS)


def test_what_it_writes_is_read_and_what_it_is_asked_is_in_its_scenario(tmp_path: Path) -> None:
    content = json.dumps(report())
    guidellm = program(tmp_path, f"test \"$1 $2\" = 'run --config' && echo '{content}' > {tmp_path}/r.json")
    assert run_guidellm(guidellm, asked(tmp_path), tmp_path, 20) == report()
    spec = json.loads((tmp_path / "scenario.json").read_text())["spec"]
    assert spec["profile"] == {"kind": "concurrent", "streams": [1, 4]}
    assert spec["constraints"] == [{"kind": "max_requests", "count": [2, 3]}]
    assert spec["backend"]["target"] == "http://127.0.0.1:1"
    assert "max_tokens" not in spec["backend"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("echo broken >&2; exit 3", "status 3:\nbroken"),
        ("echo done", "status 0:\ndone"),  # and wrote nothing
        ("exec sleep 20", "took more than 1 s"),
    ],
)
def test_a_run_that_fails_or_takes_too_long_says_so(code: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("{}")  # of a run before
    with pytest.raises(ValueError, match=told):
        run_guidellm(program(tmp_path, code), asked(tmp_path), tmp_path, 1)


def test_what_it_has_started_ends_with_it(tmp_path: Path) -> None:
    code = f"sleep 60 & echo $! > {tmp_path}/child; exec sleep 60"
    with pytest.raises(ValueError, match="took more than 1 s"):
        run_guidellm(program(tmp_path, code), asked(tmp_path), tmp_path, 1)
    child, late = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat"), time.monotonic() + 10
    while child.exists() and child.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < late
        time.sleep(0.05)


def test_where_there_is_no_guidellm_it_is_said_what_installs_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make bench-serve"):
        run_guidellm(tmp_path / "none", asked(tmp_path), tmp_path, 1)
