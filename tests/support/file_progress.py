"""What a run of the tests says: a line for each file that is done, and a sign of life between."""

import time
from collections import Counter

import pytest

SILENCE = 30.0
"""Seconds without a line after which one says how far the run is."""


class FileProgress:
    """Counts reports by file. Under xdist it lives in the process that hands out the files."""

    def __init__(self, reporter: pytest.TerminalReporter, *, now: float | None = None) -> None:
        self._reporter = reporter
        self._began = self._last = time.monotonic() if now is None else now
        self._waiting: Counter[str] = Counter()
        self._outcomes: dict[str, Counter[str]] = {}
        self._seconds: Counter[str] = Counter()
        self._tests = self._files = 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Without xdist: these tests will run."""
        self._expect([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """With xdist every worker collects the same."""
        if not self._tests:
            self._expect(ids)

    def _expect(self, ids: list[str]) -> None:
        self._waiting = Counter(map(_file, ids))
        self._tests, self._files = len(ids), len(self._waiting)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """No letter for a test, whatever came of it; the counts at the end stay."""
        if report.passed:
            return ("passed" if report.when == "call" else "", "", "")
        category = "error" if report.failed and report.when != "call" else report.outcome
        return (category, "", "")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A part of a test ended: its setup, the test, its teardown."""
        file = _file(report.nodeid)
        self._seconds[file] += report.duration
        outcomes = self._outcomes.setdefault(file, Counter())
        if report.when == "call" or not report.passed:
            outcomes[report.outcome] += 1
        if report.failed:
            self._line(f"FAILED {report.nodeid}", red=True)
        if report.when != "teardown":
            return
        self._waiting[file] -= 1
        self._tests -= 1
        if self._waiting[file] == 0:
            left = sum(count > 0 for count in self._waiting.values())
            told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
            done = f"{self._files - left} of {self._files} files"
            self._line(f"{done}  {file}: {told}, {self._seconds[file]:.0f} s", red=bool(outcomes["failed"]))
        elif time.monotonic() - self._last > SILENCE:
            minutes, seconds = divmod(round(time.monotonic() - self._began), 60)
            running = sorted(f for f, count in self._waiting.items() if count and f in self._outcomes)
            self._line(f"… {minutes}:{seconds:02d}, {self._tests:,} tests left, in {', '.join(running)}")

    def _line(self, text: str, *, red: bool = False) -> None:
        self._reporter.write_line(text, red=red)
        self._last = time.monotonic()


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]
