"""What Ray costs: tokens/s of one process and of two actors on the same cores, with the embedded models.

    make bench-ray
    make bench-ray ARGS='--prompts 60 --tries 1 --page /dev/null'

Each way is run on N prompts and on 3 N, in turns; the rate is that of the 2 N by which they differ, so that
what is paid once (starting Ray, loading, compiling) is left out, and told beside it. What is compiled is not
kept.
"""

import argparse
import json
import os
import textwrap
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from sia_jax.files.writing import write_text
from sia_jax.reports.markdown import table, with_section
from sia_jax.runs.provenance import head_commit, host_description
from sia_jax.world.files import world_models
from tests.cluster.drivers import RAY, driver, finish

HEADING = "## What Ray costs"
WAYS = {"one process": (), "Ray, two actors": RAY}
TOKENS = 128
ROWS = 16


def main() -> None:
    """Time both ways, and write the section of the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=160, help="N, at most 178")
    parser.add_argument("--tries", type=int, default=2, help="of which the fastest counts")
    parser.add_argument("--page", type=Path, default=Path("docs/clusters.md"))
    args = parser.parse_args()
    load = os.getloadavg()[0]
    best: dict[str, tuple[float, float]] = {}
    with TemporaryDirectory() as name:
        for _ in range(args.tries):
            for way in WAYS:
                (small, few), (large, many) = (
                    run(Path(name), n, way) for n in (args.prompts, 3 * args.prompts)
                )
                rate = (many - few) / (large - small)
                once = small - few / rate
                print(f"{way}: {rate:.0f} tokens/s, and {once:.0f} s once", flush=True)
                best[way] = max(best.get(way, (0.0, 0.0)), (rate, once))
    text = section(best, args.prompts, args.tries, load)
    print(text)
    if args.page.is_file():
        write_text(args.page, with_section(args.page.read_text(encoding="utf-8"), text))


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
        f"Ray {version('ray')}: the embedded world, steered replies of up to {TOKENS} tokens, {ROWS} rows an "
        f"engine, the better of {tries} tries in turns; load {load:.1f} before. The rate is that between "
        f"{prompts} and {3 * prompts} prompts; what is paid once is starting, loading and compiling."
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
        *("--out", str(out), *WAYS[way]),
    ) as process:
        finish(process)
        seconds = time.perf_counter() - begin
    return seconds, sum(len(json.loads(line)["tokens"]) for line in out.read_text().splitlines())


if __name__ == "__main__":
    main()
