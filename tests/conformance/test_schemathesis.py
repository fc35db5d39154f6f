"""schemathesis makes requests out of the OpenAPI document, right ones and wrong ones, and judges the answers.

No answer is a failure of the server; each has a status, a content type, headers and a shape that the document
tells; what the document forbids is refused, and nothing is answered without the key.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from sia_jax.serve.openapi import ROUTES
from tests.conformance.conftest import KEY, Tell
from tests.support.served import served
from tests.support.served_process import Process
from tests.support.waiting import wait_until

CONFIG = Path(__file__).with_name("schemathesis.toml")


def schemathesis(url: str, folder: Path, *, examples: int, seconds: int) -> dict[str, Any]:
    """Its report on a server.

    Args:
      url: of the server.
      folder: for the report.
      examples: made of each operation.
      seconds: after which it makes no more.
    """
    report = folder / "report.json"
    words = ["run", f"{url}/openapi.json", "-H", f"Authorization: Bearer {KEY}"]
    words += ["--max-examples", str(examples), "--max-time", str(seconds), "--continue-on-failure"]
    words += ["--report", "json", "--report-json-path", str(report), "--no-color"]
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), *words],
        cwd=folder,
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=seconds + 120,
        check=False,
    )
    assert report.is_file(), done.stdout[-4000:] + done.stderr[-4000:]
    found: dict[str, Any] = json.loads(report.read_text())
    assert found["failures"] == found["errors"] == [], done.stdout[-12000:]
    assert done.returncode == 0, done.stdout[-4000:]
    return found


def check(found: dict[str, Any], what: str, tell: Tell) -> None:
    """Every operation was tried, and those that take a body took some of what is right."""
    assert found["operations"]["tested"] == found["operations"]["total"] == len(ROUTES)
    accepted = {
        label: sum(rate["accepted"] for rate in phases.values())
        for label, phases in found["valid_rates"].items()
    }
    posts = [f"POST {path}" for method, path in ROUTES if method == "post"]
    assert min(accepted[label] for label in posts) > 0, accepted
    tell(f"schemathesis, {what}", found["test_cases"]["generated"], "no failure")


def test_the_routes_over_a_stub_keep_to_the_document(tmp_path: Path, tell: Tell) -> None:
    with served(key=KEY) as server:
        found = schemathesis(server.url, tmp_path, examples=40, seconds=100)
        wait_until(lambda: server.service.admission.requests == 0)
        assert server.service.admission.tokens == 0
    check(found, "a stub engine", tell)


def test_the_program_keeps_to_the_document(process: Process, tmp_path: Path, tell: Tell) -> None:
    found = schemathesis(process.url, tmp_path, examples=10, seconds=60)
    headers = {"Authorization": f"Bearer {KEY}"}

    def load() -> int:
        return int(httpx.get(f"{process.url}/load", headers=headers).json()["server_load"])

    wait_until(lambda: load() == 0)
    check(found, "the program", tell)
