"""guidellm, which asks servers of the OpenAI API: its scenario, its run, and what its report says.

It lives in an environment of its own (`make bench-serve`); nothing here imports it.
"""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia_jax.files.strict_json import parse_object

REPORT_VERSION = 2
"""Of guidellm's report: another may mean something else."""
_PERCENTILES = ("p50", "p95")
_SHOWN_LINES = 12
"""Of what a run that failed has said."""


@dataclass(frozen=True)
class Measured:
    """What guidellm measured at one number of streams."""

    streams: int
    requests: int
    tokens: int
    """Of all replies, as the server counts them."""
    prompt_tokens: int
    """Of all prompts."""
    seconds: float
    """From the start of the first request to the end of the last."""
    first_token_ms: dict[str, float]
    """p50 and p95 over the requests: from the request to its first text."""
    between_tokens_ms: dict[str, float]
    """p50 and p95 over the requests: of each the time from its first text to its last, over its tokens but
    one."""
    tokens_per_chunk: float
    """Tokens that come in one event, on average."""

    @property
    def tokens_per_second(self) -> float:
        """Of all streams together."""
        return self.tokens / self.seconds


def write_prompts(path: Path, prompts: Sequence[str], new_tokens: int | None) -> None:
    """A data set for guidellm, JSONL.

    Args:
      path: of the file; `.jsonl`.
      prompts: what users say, in order.
      new_tokens: of every reply, whatever ends it (`ignore_eos`); None: the scenario says how many at most.
    """
    count = {} if new_tokens is None else {"output_tokens_count": new_tokens}
    with path.open("w", encoding="utf-8") as file:
        for prompt in prompts:
            file.write(json.dumps({"prompt": prompt} | count) + "\n")


def scenario(
    url: str,
    model: str,
    prompts: Path,
    report: Path,
    streams: Sequence[int],
    requests: Sequence[int],
    max_tokens: int | None = None,
) -> dict[str, Any]:
    """A run of guidellm: conversations of one turn, streamed, at each number of streams.

    Args:
      url: of the server.
      model: as the server calls it.
      prompts: of `write_prompts`; there must be as many as the most requests.
      report: the JSON file to write.
      streams: requests that are open at a time.
      requests: in all, at each of `streams`.
      max_tokens: of a reply, where the data set does not say.
    """
    backend: dict[str, Any] = {"kind": "openai_http", "target": url, "model": model, "http2": False}
    # Whoever asks knows that the server is ready; on a busy machine a first answer may take long.
    backend |= {"validate_backend": False, "timeout_connect": 60.0}
    if max_tokens is not None:
        backend["max_tokens"] = max_tokens
    return {
        "spec": {
            "backend": backend | {"request_format": "/v1/chat/completions"},
            "profile": {"kind": "concurrent", "streams": list(streams)},
            "constraints": [{"kind": "max_requests", "count": list(requests)}],
            "data": [{"kind": "json_file", "path": str(prompts)}],
            "outputs": [{"kind": "json", "path": str(report)}],
        }
    }


def run_guidellm(program: Path, asked: Mapping[str, Any], folder: Path, seconds: float) -> dict[str, Any]:
    """Run guidellm, offline and in one process; returns its report.

    Args:
      program: its command.
      asked: of `scenario`.
      folder: where it runs, and leaves its files.
      seconds: after which it is ended.

    Raises:
      FileNotFoundError: there is no such command.
      ValueError: it failed, or took too long.
    """
    path, report = folder / "scenario.json", Path(asked["spec"]["outputs"][0]["path"])
    path.write_text(json.dumps(asked), encoding="utf-8")
    report.unlink(missing_ok=True)
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "GUIDELLM__MAX_WORKER_PROCESSES": "1",  # on two cores, more of them take the server's time
        # Of a request whose end is told later than that after the last one has ended, nothing is known.
        "GUIDELLM__MP_POLL_INTERVAL": "1",
        "NO_PROXY": "127.0.0.1",
    }
    for inherited in ("PYTHONPATH", "PYTHONSAFEPATH"):
        environment.pop(inherited, None)
    words = [str(program.absolute()), "run", "--config", str(path), "--disable-console"]
    with tempfile.TemporaryFile("w+") as said:
        try:
            # A session of its own, for it starts processes of its own, which are to end with it.
            process = subprocess.Popen(
                words, cwd=folder, env=environment, stdout=said, stderr=said, start_new_session=True
            )
        except FileNotFoundError:
            raise FileNotFoundError(f"{program} is not there; `make bench-serve` installs it") from None
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ValueError(f"guidellm took more than {seconds:.0f} s; ask for fewer requests") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        last = "\n".join(said.read().splitlines()[-_SHOWN_LINES:])
    if status or not report.is_file():
        raise ValueError(f"guidellm ended with status {status}:\n{last}")
    return parse_object(report.read_bytes(), str(report))


def read_report(report: Mapping[str, Any], streams: Sequence[int], requests: Sequence[int]) -> list[Measured]:
    """What was measured at each number of streams.

    Args:
      report: of `run_guidellm`.
      streams: as they were asked for.
      requests: likewise.

    Raises:
      ValueError: a report of another version, of other numbers, or one in which a request failed.
    """
    version = report["metadata"]["version"]
    if version != REPORT_VERSION:
        raise ValueError(f"guidellm's report is of version {version}, and {REPORT_VERSION} can be read")
    benchmarks = report["benchmarks"]
    if len(benchmarks) != len(streams):
        raise ValueError(f"guidellm ran {len(benchmarks)} of {len(streams)} numbers of streams")
    return [
        _measured(one, count, asked) for one, count, asked in zip(benchmarks, streams, requests, strict=True)
    ]


def _measured(benchmark: Mapping[str, Any], streams: int, asked: int) -> Measured:
    ran = benchmark["config"]["strategy"]["streams"]
    if ran != streams:
        raise ValueError(f"guidellm ran {ran} streams where {streams} were asked for")
    metrics, totals = benchmark["metrics"], benchmark["metrics"]["request_totals"]
    if totals["successful"] != asked or totals["errored"] or totals["incomplete"]:
        raise ValueError(
            f"of {asked} requests over {streams} streams {totals['successful']} were answered, "
            f"{totals['errored']} failed and {totals['incomplete']} were broken off{_error(benchmark)}"
        )
    answered = benchmark["requests"]["successful"]
    began = min(one["request_start_time"] for one in answered)
    ended = max(one["request_end_time"] for one in answered)
    return Measured(
        streams,
        asked,
        sum(one["output_tokens"] for one in answered),
        sum(one["prompt_tokens"] for one in answered),
        ended - began,
        _percentiles(metrics["time_to_first_token_ms"]),
        _percentiles(metrics["inter_token_latency_ms"]),
        float(metrics["output_tokens_per_iteration"]["successful"]["mean"]),
    )


def _percentiles(metric: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(metric["successful"]["percentiles"][name]) for name in _PERCENTILES}


def _error(benchmark: Mapping[str, Any]) -> str:
    """Why the first one failed."""
    failed = benchmark["requests"]["errored"]
    return f"; the first: {failed[0]['info']['error']}" if failed else ""
