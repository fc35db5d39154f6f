"""Random clients against a server in a process of its own, on a tiny pair of models, as long as wanted.

    python -m tests.soak --requests 100000 --seed 0

Every answer is held to an engine's that was made alike, every refusal to its reason, and after each round the
server's counters to what was asked. Exits with 1 if anything was not right.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.soak.load import MOST
from tests.soak.pair import pair_of, serving
from tests.soak.recipes import make_book
from tests.soak.soak import soak
from tests.soak.verdict import problems


def main() -> int:
    """Run; the exit status."""
    parser = argparse.ArgumentParser(
        prog="tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=100_000, help="of HTTP (default: 100,000)")
    parser.add_argument("--recipes", type=int, default=2000, help="that they are drawn from (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        pair = pair_of(Path(name))
        with pair.engine() as engine:
            book = make_book(engine, args.recipes, args.seed, MOST)
        with serving(pair, Path(name)) as server:
            server.wait_until_ready()
            report = soak(server, book, args.requests, args.seed, lambda line: print(line, flush=True))
            server.terminate()
            status = server.status(60)
    print(report.described())
    found = problems(report) + ([f"the server ended with {status}"] if status else [])
    for problem in found:
        print(f"wrong: {problem}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
