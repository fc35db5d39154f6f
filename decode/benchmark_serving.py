"""How fast the server is: tokens a second, the time to a first token and between tokens; against its engine.

    make bench-serve                                           # both models, and transformers serve
    python -m decode.benchmark_serving --guidellm .venv-guidellm/bin/guidellm --shapes world --tries 1

guidellm asks `decode.serve`, in a process of its own, over HTTP of this machine: 1, 4, 16 and 64 streams,
each of which asks again once it is answered. It lives in an environment of its own; its command is an option.
Requests are unsteered, steered at a fifth of their tokens with the values of all candidates read, or at every
token with those of the contenders; a budget gate holds the share, stop ids are ignored, temperature 1.

The same requests go to an engine that is made alike, in this process and without HTTP: server and engine in
turns, and the medians are compared. `transformers serve` has the same policy, where torch is installed.
"world" are the embedded models, "mini" larger ones of random weights, whose arithmetic takes the time.
A record for each goes to docs/benchmarks/ as soon as it is whole, and docs/benchmarks.md is made again.
"""

import gc
import itertools
import json
import math
import shlex
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from rich.markdown import Markdown

import sia_jax
from decode import serve
from sia_jax.benchmarks import huggingface_baseline
from sia_jax.benchmarks.contention import BOUND
from sia_jax.benchmarks.guidellm import (
    Measured,
    read_report,
    run_guidellm,
    scenario,
    write_prompts,
)
from sia_jax.benchmarks.random_pair import invented_prompts, save_random_pair
from sia_jax.benchmarks.server_process import Running, free_port, running
from sia_jax.benchmarks.serving import (
    STEERINGS,
    SYSTEM,
    Load,
    Looped,
    closed_loop,
    serving_rows,
    serving_targets,
)
from sia_jax.benchmarks.transformers_serve import save_endless, serve_command, system_of
from sia_jax.costs.roofline import measure_device
from sia_jax.costs.shapes import SHAPES
from sia_jax.data.prompts import read_prompts
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs
from sia_jax.files.writing import write_text
from sia_jax.reports.benchmarks import section, write_page
from sia_jax.runs import runner
from sia_jax.runs.cli import command, program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.programs import invocation
from sia_jax.runs.provenance import record_header
from sia_jax.serve.presets import Preset, request_fields
from sia_jax.world.files import world_models

STREAMS = (1, 4, 16, 64)
PRESETS = {
    "unsteered": Preset(threshold=math.inf),
    # Under so wide a bound every candidate contends, so that the values of all are read.
    "sparse": Preset(budget=0.2, bound=1e9),
    "dense": Preset(threshold=-math.inf, bound=BOUND),
}
"""The numbers of each steering."""
_COUNTERS = (
    "vllm:generation_tokens_total",
    "sia:steered_tokens_total",
    "sia:shifted_tokens_total",
    "sia:values_read_total",
)
_UNBATCHED_STREAMS = 4
"""At most, where `transformers serve` answers one after another: more of them only wait."""
_READY = 600.0
"""Seconds that a server may take to load and compile, on a machine that is at something else too."""
_RUN = 900.0
"""And a run of guidellm."""


@dataclass(frozen=True)
class Kind:
    """What is served, and how much is asked of it."""

    start: float
    """The threshold of the budget gate, in nats, near those that hold the share."""
    max_length: int
    """Of a prompt with its reply."""
    rounds: int
    """Requests of each stream."""
    least: int
    """Requests at each number of streams."""
    new_tokens: int


KINDS = {
    "world": Kind(start=0.0, max_length=256, rounds=2, least=8, new_tokens=128),
    "mini": Kind(start=2.0, max_length=256, rounds=1, least=4, new_tokens=64),
    "tiny": Kind(start=2.0, max_length=256, rounds=1, least=2, new_tokens=16),
}
Shape = Literal["world", "mini", "tiny"]


@dataclass(frozen=True)
class Args:
    """Time the server."""

    guidellm: Path
    """The command of guidellm: .venv-guidellm/bin/guidellm, which make bench-serve installs."""
    shapes: tuple[Shape, ...] = ("world", "mini")
    """Models, a record each: the embedded ones; of shape "mini"; tiny only shows that everything runs."""
    rows: int = 16
    """Replies that the server and the engine write at a time."""
    streams: tuple[int, ...] = STREAMS
    """Requests that are open at a time."""
    tries: int = 3
    """Of each side; the median counts."""
    baseline: bool = True
    """Whether transformers serve is timed too, once."""
    out: Path = Path("docs/benchmarks")
    """Folder of the JSON files; the page is written beside it."""


@dataclass(frozen=True)
class _Pair:
    """A policy and a value model in folders, and what is said to them."""

    policy: Path
    value: Path
    prompts: tuple[str, ...]


def main(args: Args) -> None:
    """Measure, record, and draw the page."""
    console = Terminal()
    with program("decode.benchmark_serving"):
        if min(args.rows, args.tries, *args.streams) < 1 or not args.streams or not args.shapes:
            raise ValueError(
                "--rows, --tries and --streams must be 1 or more, and --shapes be given, got "
                f"{args.rows}, {args.tries}, {args.streams} and {args.shapes}"
            )
        if not args.guidellm.is_file():
            raise FileNotFoundError(
                f"--guidellm {args.guidellm}: there is no such command; make bench-serve installs it"
            )
        check_outputs(inputs={}, files={"--out's page": args.out.with_suffix(".md")})
        with locked(folders=(args.out,), files=(args.out.with_suffix(".md"),)):
            for shape in args.shapes:
                run(args, shape, console)


def run(args: Args, shape: Shape, console: Terminal) -> None:
    """`main` of one pair of models, once the options are checked."""
    kind = KINDS[shape]
    load = Load.of_rounds(args.streams, kind.rounds, kind.least, kind.new_tokens, args.tries)
    console.say(f"{shape}: measuring the machine's bandwidth and peak ...")
    rates = measure_device()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pair = make_pair(shape, max(load.requests), folder)
        write_text(folder / "presets.toml", presets_text(PRESETS))
        served = serve.Args(
            policy=str(pair.policy),
            value=str(pair.value),
            threshold=kind.start,
            gate="budget(0.2)",
            tilt=f"clipped({BOUND:g}, advantage)",
            rows=args.rows,
            max_length=kind.max_length,
            presets=str(folder / "presets.toml"),
            port=free_port(),
        )
        sampling = serve.sampling_args(served)
        with serve.make_engine(served, sampling, runner.load_models(sampling)) as engine:
            record = record_header(shape, engine.policy.config, rates, args.out)
            console.say("the server and its engine compile ...")
            with running(server_words(served), served.port, _READY) as server:
                engine.warmup()
                # As the server does: the other side is not to be stopped for garbage alone.
                gc.collect()
                gc.freeze()
                bench = Bench(args.guidellm, load, pair.prompts, folder, console)
                rows = against_engine(bench, engine, server)
        failed: list[dict[str, str]] = []
        if args.baseline and huggingface_baseline.is_available():
            console.say("transformers serve ...")
            others, failed = of_transformers(bench, kind, pair.policy)
            rows += others
        else:
            console.say("torch is not installed here, or --no-baseline: no transformers serve", "yellow")
    path = args.out / f"{record['time'].replace(':', '')}-serving.json"
    record |= {"kind": "serving", "new_tokens": load.new_tokens, "tries": args.tries}
    record |= {"prompt_tokens": round(bench.prompt_tokens), "rows_of_engine": args.rows, "rows": rows}
    record |= {"targets": serving_targets(rows), "baseline_versions": versions(bench)}
    record["failed"] = failed
    write_text(path, json.dumps(record, indent=1) + "\n")
    write_page(args.out, args.out.with_suffix(".md"))
    console.print(Markdown(section(record)))
    console.say(f"wrote {path} and {args.out.with_suffix('.md')}")


def make_pair(shape: Shape, prompts: int, folder: Path) -> _Pair:
    """The models of a shape, and so many prompts."""
    if shape != "world":
        save_random_pair(SHAPES[shape], folder)
        return _Pair(folder / "policy", folder / "value", tuple(invented_prompts(prompts)))
    world = world_models()
    lines = read_prompts(world / "prompts" / "test.jsonl").prompts
    texts = [line.messages[-1]["content"] for line in lines if line.messages is not None]
    return _Pair(
        world / "policy", world / "value-token", tuple(itertools.islice(itertools.cycle(texts), prompts))
    )


def presets_text(presets: Mapping[str, Preset]) -> str:
    """Presets as a TOML file has them."""
    tables = []
    for name, preset in presets.items():
        numbers = {field.name: getattr(preset, field.name) for field in fields(preset)}
        lines = [f"{key} = {float(number)!r}" for key, number in numbers.items() if number is not None]
        tables.append("\n".join([f"[{name}]", *lines, ""]))
    return "\n".join(tables)


def server_words(served: serve.Args) -> list[str]:
    """The command that starts such a server."""
    name = "decode.serve"
    options = shlex.split(command(name, served))[len(invocation(name).split()) :]
    return [sys.executable, "-m", name, *options]


@dataclass
class Bench:
    """How servers are asked, and what is known of all that were."""

    guidellm: Path
    load: Load
    prompts: tuple[str, ...]
    folder: Path
    console: Terminal
    prompt_tokens: float = 0.0
    """Of a prompt, on average."""
    version: str = ""
    """guidellm's own."""

    def ask(
        self, url: str, model: str, load: Load | None = None, *, ignore_eos: bool = True
    ) -> list[Measured]:
        """What guidellm measures at each number of streams.

        Args:
          url: of the server.
          model: as it calls it.
          load: another than its own.
          ignore_eos: whether the server takes that field.

        Raises:
          ValueError: a request failed, or guidellm did.
        """
        load = load or self.load
        data = self.folder / "prompts.jsonl"
        write_prompts(data, self.prompts, load.new_tokens if ignore_eos else None)
        most = None if ignore_eos else load.new_tokens
        wanted = scenario(url, model, data, self.folder / "report.json", load.streams, load.requests, most)
        report = run_guidellm(self.guidellm, wanted, self.folder, _RUN)
        self.version = str(report["metadata"]["guidellm_version"])
        found = read_report(report, load.streams, load.requests)
        for one in found:
            if one.tokens != one.requests * load.new_tokens:
                raise ValueError(
                    f"{one.requests} replies of {load.new_tokens} tokens each were asked for, and they had "
                    f"{one.tokens}"
                )
        self.prompt_tokens = sum(one.prompt_tokens for one in found) / sum(one.requests for one in found)
        return found


def against_engine(bench: Bench, engine: sia_jax.Engine, server: Running) -> list[dict[str, Any]]:
    """Server and engine in turns, at each steering and number of streams."""
    load = bench.load
    rows: list[dict[str, Any]] = []
    for name, label in STEERINGS.items():
        numbers = request_fields(PRESETS[name], engine.terms)
        requests = [
            sia_jax.Request(
                messages=[{"role": "user", "content": prompt}],
                max_new_tokens=load.new_tokens,
                ignore_eos=True,
                seed=seed,
                **numbers,
            )
            for seed, prompt in enumerate(bench.prompts)
        ]
        tries: list[list[Measured]] = []
        alone: list[list[Looped]] = []
        before = server.counters(*_COUNTERS)
        for number in range(load.tries):
            bench.console.say(f"{label}: try {number + 1} of {load.tries}")
            tries.append(bench.ask(server.url, name))
            alone.append(
                [
                    closed_loop(engine, requests[:count], streams)
                    for streams, count in zip(load.streams, load.requests, strict=True)
                ]
            )
        after = server.counters(*_COUNTERS)
        tokens, steered, shifted, read = (after[counter] - before[counter] for counter in _COUNTERS)
        told = sum(measured.tokens for found in tries for measured in found)
        if tokens != told:
            raise ValueError(f"the server counts {tokens:.0f} tokens of replies, and guidellm {told}")
        shares = {"steered": steered / tokens, "shifted": shifted / tokens, "values_read": read / tokens}
        rows += serving_rows(SYSTEM, label, tries, alone, shares)
    return rows


def of_transformers(
    bench: Bench, kind: Kind, policy: Path
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """`transformers serve` on the same policy, unsteered: one request after another, and batched.

    Returns rows, and what failed and why: it is no reason to lose what was measured before.

    Args:
      bench: of the load, of which it gets a round.
      kind: the load's.
      policy: its folder.
    """
    rows: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    copy = bench.folder / "endless"
    save_endless(policy, copy)
    for continuous in (False, True):
        streams = [count for count in bench.load.streams if continuous or count <= _UNBATCHED_STREAMS]
        if not streams:
            continue
        load = Load.of_rounds(streams, 1, kind.least, kind.new_tokens, 1)
        port, system = free_port(), system_of(continuous=continuous)
        try:
            with running(serve_command(copy, port, continuous=continuous), port, _READY) as server:
                server.warm_up(str(copy), bench.load.new_tokens)
                found = bench.ask(server.url, str(copy), load, ignore_eos=False)
        except (ValueError, OSError) as error:
            bench.console.say(f"{system}: {error}", "yellow")
            failed.append({"system": system, "error": str(error)})
        else:
            rows += serving_rows(system, STEERINGS["unsteered"], [found])
    return rows, failed


def versions(bench: Bench) -> dict[str, str]:
    """Of what served and what asked."""
    found = {"guidellm": bench.version, "fastapi": version("fastapi"), "uvicorn": version("uvicorn")}
    return found | (huggingface_baseline.versions() if huggingface_baseline.is_available() else {})


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
