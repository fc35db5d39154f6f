"""What stands on the wire can be read without the libraries that run models."""

import subprocess
import sys
from pathlib import Path

ALONE = ("protocol", "errors", "events", "bodies", "names", "settings")


def test_bodies_and_errors_are_read_without_jax() -> None:
    lines = [f"import sia_jax.serve.{name}" for name in ALONE]
    code = "; ".join(["import sys", *lines, "assert 'jax' not in sys.modules"])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
