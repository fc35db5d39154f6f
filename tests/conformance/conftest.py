"""One server in a process of its own for all, and a table of what was compared at the end."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.served_process import Process, served_process

KEY = "a-key-of-the-conformance-tests"
ROWS = ("--rows", "4", "--max-length", "256", "--top-logprobs", "5")

Tell = Callable[[str, int, str], None]
"""What was compared, in how many requests, and what came of it."""

_TOLD: pytest.StashKey[list[tuple[str, int, str]]] = pytest.StashKey()


@pytest.fixture(scope="session")
def process() -> Iterator[Process]:
    """`decode.serve` on the embedded models, for who has `KEY`."""
    with served_process(*ROWS, environment={"SIA_JAX_API_KEYS": KEY}) as found:
        yield found


@pytest.fixture
def tell(pytestconfig: pytest.Config) -> Tell:
    """Puts a line into the table."""
    rows = pytestconfig.stash.setdefault(_TOLD, [])
    return lambda what, requests, found: rows.append((what, requests, found))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table."""
    rows = config.stash.get(_TOLD, [])
    if rows:
        terminalreporter.section("what was held against the server")
        width = max(len(what) for what, _, _ in rows)
        for what, requests, found in rows:
            terminalreporter.write_line(f"{what:{width}}  {requests:>5} requests  {found}")
