"""What Ray costs: tokens/s of one process and of two actors on the embedded models.

    python -m tests.cluster.speed [--prompts 100]

Each way is run on N prompts and on 3 N; the rate is that of the 2 N by which they differ, so that what is
paid once (starting Ray, loading, compiling) is left out, and printed beside it.
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from sia_jax.world.files import world_models
from tests.cluster.drivers import RAY, driver, finish


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=100, help="N, at most 178")
    count = parser.parse_args().prompts
    rates = {}
    with TemporaryDirectory() as name:
        for way, options in (("one process", ()), ("two actors", RAY)):
            (small, few), (large, many) = (run(Path(name), n, way, options) for n in (count, 3 * count))
            rates[way] = (many - few) / (large - small)
            once = small - few / rates[way]
            print(f"{way}: {rates[way]:.0f} tokens/s, and {once:.0f} s once", flush=True)
    print(f"two actors make {rates['two actors'] / rates['one process']:.2f} of one process's tokens/s")


def run(folder: Path, count: int, way: str, options: tuple[str, ...]) -> tuple[float, int]:
    """(seconds, tokens of the replies) of a run of so many prompts."""
    models = world_models()
    prompts, out = folder / f"{count}.jsonl", folder / f"{way}-{count}.jsonl"
    rows = (models / "prompts" / "train.jsonl").read_bytes().splitlines(keepends=True)
    if count > len(rows):
        raise SystemExit(f"--prompts: there are {len(rows)} prompts, which is less than {count}")
    prompts.write_bytes(b"".join(rows[:count]))
    begin = time.perf_counter()
    with driver(
        *("decode.generate", "--policy", str(models / "policy"), "--value", str(models / "value")),
        *("--prompts", str(prompts), "--max-new-tokens", "128", "--batch", "16", "--out", str(out), *options),
    ) as process:
        finish(process)
        seconds = time.perf_counter() - begin
    return seconds, sum(len(json.loads(line)["tokens"]) for line in out.read_text().splitlines())


if __name__ == "__main__":
    main()
