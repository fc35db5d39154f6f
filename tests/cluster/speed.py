"""What Ray costs: tokens/s of one process and of two actors on the same cores, with the embedded models.

    make bench-ray
    make bench-ray ARGS='--prompts 60 --tries 1 --page /dev/null'

Each way is run on N prompts and on 4 N, in turns; the rate is that of the 3 N by which they differ, so that
what is paid once (starting Ray, loading, compiling) is left out, and told beside it. What is compiled is not
kept. Starting Ray takes some seconds more or less, which is why the 3 N take a minute.
"""

import argparse
import json
import os
import textwrap
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from sia_jax.reports.markdown import put_section, table
from sia_jax.runs.provenance import head_commit, host_description
from sia_jax.world.files import world_models
from tests.cluster.drivers import RAY, driver, finish

HEADING = "## What Ray costs"
WAYS = {"one process": (), "Ray, two actors": RAY}
TOKENS = 128
SAMPLES = 8
ROWS = 16
FURTHER = 4


def main() -> None:
    """Time both ways, and write the section of the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=100, help="N, at most 134")
    parser.add_argument("--tries", type=int, default=2, help="which are added up")
    parser.add_argument("--page", type=Path, default=Path("docs/clusters.md"))
    args = parser.parse_args()
    load = os.getloadavg()[0]
    seconds, tokens = defaultdict[tuple[str, int], float](float), defaultdict[tuple[str, int], int](int)
    with TemporaryDirectory() as name:
        for _ in range(args.tries):
            for way in WAYS:
                for times in (1, FURTHER):
                    took, count = run(Path(name), times * args.prompts, way)
                    print(
                        f"{way}, {times * args.prompts} prompts: {count:,} tokens, {took:.1f} s", flush=True
                    )
                    seconds[way, times] += took
                    tokens[way, times] += count
    found = {}
    for way in WAYS:
        more = tokens[way, FURTHER] - tokens[way, 1]
        rate = more / (seconds[way, FURTHER] - seconds[way, 1])
        found[way] = rate, (seconds[way, 1] - tokens[way, 1] / rate) / args.tries
    text = section(found, args.prompts, args.tries, load)
    print(text)
    if args.page.is_file():
        put_section(args.page, text)


def section(best: dict[str, tuple[float, float]], prompts: int, tries: int, load: float) -> str:
    """The section, with its heading.

    Args:
      best: tokens/s, and seconds that are paid once, of each way.
      prompts: N.
      tries: of each way.
      load: of the machine before it began.
    """
    alone = best["one process"][0]
    rows = [
        [way, f"{rate:,.0f}", f"{rate / alone:.2f}", f"{once:.0f} s"] for way, (rate, once) in best.items()
    ]
    cells = table(["", "tokens/s", "of one process", "paid once"], rows, labels=1)
    text = (
        f"Measured by `make bench-ray` at commit `{head_commit(ignored=['docs'])}` on {host_description()}, "
        f"Ray {version('ray')}: the embedded world, {SAMPLES} steered replies of up to {TOKENS} tokens to "
        f"each prompt, {ROWS} rows an engine, {tries} tries in turns; load {load:.1f} before. The rate is "
        f"that of the last {(FURTHER - 1) * prompts} of {FURTHER * prompts} prompts: the run of {prompts} is "
        "subtracted. "
        '"Paid once" is starting, loading and compiling.'
    )
    return f"{HEADING}\n\n{textwrap.fill(text, 118)}\n\n{cells}"


def run(folder: Path, count: int, way: str) -> tuple[float, int]:
    """(seconds, tokens of the replies) of a run of so many prompts."""
    models = world_models()
    prompts, out = folder / f"{count}.jsonl", folder / f"{way}-{count}.jsonl"
    rows = (models / "prompts" / "train.jsonl").read_bytes().splitlines(keepends=True)
    if count > len(rows):
        raise SystemExit(f"--prompts: there are {len(rows)} prompts, which is less than {count}")
    prompts.write_bytes(b"".join(rows[:count]))
    out.unlink(missing_ok=True)
    begin = time.perf_counter()
    with driver(
        *("decode.generate", "--policy", str(models / "policy"), "--value", str(models / "value")),
        *("--prompts", str(prompts), "--max-new-tokens", str(TOKENS), "--batch", str(ROWS)),
        *("--samples", str(SAMPLES)),
        *("--out", str(out), *WAYS[way]),
    ) as process:
        finish(process)
        seconds = time.perf_counter() - begin
    return seconds, sum(len(json.loads(line)["tokens"]) for line in out.read_text().splitlines())


if __name__ == "__main__":
    main()
