"""A server in a process of its own: ready, asked, ended; and the ways in which it is none."""

import sys
import textwrap
from collections.abc import Sequence

import pytest

from sia_jax.benchmarks.server_process import counters_in, free_port, running

SECONDS = 20.0


def words(port: int, code: str = "") -> Sequence[str]:
    """A server of http.server, which is ready at its second question; and what goes wrong with it."""
    text = f"""
        import http.server, sys
        {code}
        class Handler(http.server.BaseHTTPRequestHandler):
            asked = 0
            def do_GET(self):
                Handler.asked += 1
                body = b'own:count_total{{a="1"}} 2.0\\nown:count_total{{a="2"}} 3.0\\n'
                self.send_response(200 if Handler.asked > 1 else 503)
                self.end_headers()
                self.wfile.write(body)
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                good = self.path == "/v1/chat/completions" and b'"max_tokens": 3' in body
                self.send_response(200 if good else 400)
                self.end_headers()
            def log_message(self, *words):
                pass
        http.server.HTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
    """
    return [sys.executable, "-c", textwrap.dedent(text)]


def test_it_is_waited_for_and_its_counters_are_summed_over_their_labels() -> None:
    port = free_port()
    with running(words(port), port, SECONDS) as server:
        assert server.url == f"http://127.0.0.1:{port}"
        assert server.counters("own:count_total") == {"own:count_total": 5.0}
        server.warm_up("m", 3)
        with pytest.raises(OSError, match="400"):
            server.warm_up("m", 4)


def test_a_server_that_ends_or_is_never_ready_says_what_it_said() -> None:
    port = free_port()
    failing = words(port, "sys.exit('no such folder')")
    with (
        pytest.raises(ValueError, match=r"(?s)ended before it was ready:.*no such folder"),
        running(failing, port, SECONDS),
    ):
        pass
    waiting = words(port, "import time; time.sleep(60)")
    with pytest.raises(ValueError, match="not ready within 1 s"), running(waiting, port, 1.0):
        pass


def test_one_that_ends_with_an_error_is_no_success() -> None:
    port = free_port()
    code = "import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))"
    with pytest.raises(ValueError, match="ended with status 7"), running(words(port, code), port, SECONDS):
        pass


def test_only_whole_names_of_counters_count() -> None:
    text = '# TYPE a_total counter\na_total 1.0\na_total_more 5.0\nb_a_total 7.0\na_total{x="y"} 2.5\n'
    assert counters_in(text, "a_total") == {"a_total": 3.5}
    with pytest.raises(ValueError, match="have no c_total"):
        counters_in(text, "c_total")
