"""Record what the sampler and the programs do for fixed seeds, and compare two recordings.

    python -m tests.recording write out/before     # in a worktree of the commit to compare with
    python -m tests.recording write out/after
    python -m tests.recording compare out/before out/after
    python -m tests.recording speed ../before      # the sampler there and here, timed in turns

For a change that is to change nothing. Both are run from the root of a clone; an older commit needs a copy of
this folder. Ids, flags and texts must be equal. Where a reply of the sampler is not, the first token is told
with how near to a tie the oracle was there: under 1e-4 nats two programs may differ. Floats may differ by
1e-4 of their size; clocks, and what names commit or machine, are left out. Exits with 1 if anything differs.
Writing takes eight minutes on two cores.
"""

import argparse
import json
import sys
from pathlib import Path

import jax
import numpy as np

from tests.recording import programs, speed

TOLD = 5
"""Differences of one call or program that are told; the others are counted."""


def write(out: Path) -> None:
    """Record into a folder that is not there."""
    from tests.recording import samplers  # which asks for devices: not before main has set their number

    (out / "files").mkdir(parents=True)
    for name, arrays in samplers.record():
        path = out / "samplers" / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays)
        print(name, flush=True)
    said = {}
    for name, lines in programs.record(out / "files"):
        said[name] = lines
        print(f"{name}: {lines[0]}, {len(lines)} lines", flush=True)
    (out / "programs.json").write_text(json.dumps(said, indent=0), encoding="utf-8")


def compare(before: Path, after: Path) -> dict[str, list[str]]:
    """What differs between two recordings, by the names of calls and programs; those that are alike too."""
    from tests.recording import samplers  # as in write

    found = {}
    calls = [
        {path.relative_to(out / "samplers").with_suffix("").as_posix(): path for path in out.rglob("*.npz")}
        for out in (before, after)
    ]
    for name in sorted(calls[0].keys() | calls[1].keys()):
        if name in calls[0] and name in calls[1]:
            a, b = (dict(np.load(paths[name])) for paths in calls)
            found[name] = samplers.differences(name, a, b)
        else:
            found[name] = ["is in one recording only"]
    said = [json.loads((out / "programs.json").read_text(encoding="utf-8")) for out in (before, after)]
    for name in {**said[0], **said[1]}:
        if name in said[0] and name in said[1]:
            found[name] = programs.differences(said[0][name], said[1][name])
        else:
            found[name] = ["is in one recording only"]
    return found


def main() -> int:
    """Run; the exit status."""
    parser = argparse.ArgumentParser(
        prog="tests.recording", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write", help="record into a new folder").add_argument("out", type=Path)
    comparing = commands.add_parser("compare", help="two recordings")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    timing = commands.add_parser("speed", help="the sampler in another tree and in this one")
    timing.add_argument("before", type=Path, help="root of a worktree")
    timing.add_argument("--shape", default="mini", help="of the benchmark's models (default: %(default)s)")
    timing.add_argument("--tries", type=int, default=7, help="calls of each (default: %(default)s)")
    args = parser.parse_args()
    if args.command == "speed":
        for name, before, after in speed.ratios(args.before, Path(), args.shape, args.tries):
            print(f"{name}: {before:.3f} s, now {after:.3f} s: speed {before / after:.3f}", flush=True)
        return 0
    jax.config.update("jax_num_cpu_devices", 8)
    if args.command == "write":
        if args.out.exists():
            parser.error(f"{args.out} is there already; name another folder, or remove it")
        write(args.out)
        return 0
    found = compare(args.before, args.after)
    for name, differences in found.items():
        for line in differences[:TOLD]:
            print(f"{name}: {line}")
        if len(differences) > TOLD:
            print(f"{name}: and {len(differences) - TOLD} more")
    differing = sum(bool(differences) for differences in found.values())
    print(f"{differing} of {len(found)} calls and programs differ")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
