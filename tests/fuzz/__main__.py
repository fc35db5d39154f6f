"""Random mutations of every foreign file that is read.

    python -m tests.fuzz --seed 0 --mutations 5000
    python -m tests.fuzz --readers prompts-csv,journal --mutations 500
    python -m tests.fuzz --readers prompts-csv --number 1234 --keep /tmp/found

A reader must raise ValueError or OSError that names the file, or return what the file says: no other
exception, no more than 5 s, no growth beyond 500 MB. Exits with 1 if one did anything else. `--number` runs
one mutation again, and `--keep` keeps the files that failed.
"""

import argparse
import importlib
import sys
from pathlib import Path

from tests.fuzz.harness import run
from tests.fuzz.readers import Reader

MODULES = ("tests.fuzz.data_readers",)
"""Each has READERS."""


def readers() -> dict[str, Reader]:
    """All readers by their names."""
    found = [reader for module in MODULES for reader in importlib.import_module(module).READERS]
    return {reader.name: reader for reader in found}


def main() -> int:
    """Run; the exit status."""
    parser = argparse.ArgumentParser(
        prog="tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = readers()
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument("--mutations", type=int, default=5000, help="of the files of each reader")
    parser.add_argument("--readers", default=",".join(known), help="by name, with commas (default: all)")
    parser.add_argument("--number", type=int, help="this mutation alone")
    parser.add_argument("--keep", type=Path, help="a folder for the files that failed")
    args = parser.parse_args()
    unknown = [name for name in args.readers.split(",") if name not in known]
    if unknown:
        parser.error(f"no readers {unknown}; there are {', '.join(known)}")
    numbers = range(args.mutations) if args.number is None else range(args.number, args.number + 1)
    failed = 0
    for name in args.readers.split(","):
        outcome = run(known[name], args.seed, numbers, args.keep)
        print(outcome.describe(), flush=True)
        for number, problem in list(outcome.failures.items())[:5]:
            print(f"  mutation {number}: {problem}", flush=True)
        failed += len(outcome.failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
