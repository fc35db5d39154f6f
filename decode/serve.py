r"""Serve a steered model: the OpenAI API, with steering in the request and in the answer.

    # The embedded world, on http://127.0.0.1:8000, with a page to see steering happen:
    make serve
    python -m decode.serve

    # A model of yours, for others on the network, who need a key:
    python -m decode.serve --policy Qwen/Qwen3-1.7B-Base --value out/vm/best --threshold 1.2 \
        --host 0.0.0.0 --keys keys.txt --rows 32 --max-length 8192

A server has one policy, one value model, one gate and one tilt. Names of models are numbers for them: NAME is
the policy alone, NAME-sia is steered as the options say, and --presets adds more. Sampling numbers that are
given here are those of requests which do not say; a request says its own, and steers as its field "sia" says.

Models are loaded and compiled before requests are taken: /health has status 503 until then. SIGTERM or Ctrl-C
ends the server once what runs has ended, within --drain-seconds; a second one ends it at once. The rest, such
as keys, limits, metrics, and many servers behind a proxy, is in docs/serving.md.
"""

import contextlib
import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

import sia_jax
from sia_jax.evaluation.calibration import read_calibration
from sia_jax.extras import installed_with
from sia_jax.files.shown import shown
from sia_jax.runs import runner
from sia_jax.runs.cli import Count, File, Flag, Int, check_texts, program, read_options, stop
from sia_jax.runs.console import Terminal
from sia_jax.runs.options import Models, NumberArgs, SamplingArgs, SteeringArgs
from sia_jax.runs.progress import waiting
from sia_jax.serve.access_log import Form, writer
from sia_jax.serve.app import create_app
from sia_jax.serve.guards import guarded
from sia_jax.serve.keys import read_keys
from sia_jax.serve.lifecycle import Ended, is_loopback, open_socket, serve, url_of
from sia_jax.serve.limits import Admission
from sia_jax.serve.metrics import Metrics
from sia_jax.serve.page import page_files
from sia_jax.serve.presets import default_presets, read_presets
from sia_jax.serve.service import Service
from sia_jax.serve.settings import Settings
from sia_jax.steering.numbers import NUMBERS
from sia_jax.world.files import world_models

with installed_with("serve"):
    from prometheus_client import CollectorRegistry

KEYS = "SIA_JAX_API_KEYS"
"""The environment variable that may hold keys, parted by commas."""
WORLD = "world"
"""What the embedded models are called."""
WORLD_VALUE = "value-token"
WORLD_SHARE = 0.2
"""Of tokens that the embedded models steer."""
LARGEST_PORT = 65535
_STOP_IDS = 32
"""That a request may name, and special tokens among its stop texts, beside the policy's own ends of text."""


@dataclass(frozen=True, kw_only=True)
class Args(NumberArgs, SteeringArgs):
    """Serve."""

    policy: Annotated[str, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = ""
    """The language model: a folder, or else a Hub id. Default: the embedded one, with its value model."""
    name: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """What clients call the policy, and with "-sia" behind it the steered one. Default: as its folder is."""
    presets: File = None
    """A TOML file of more names: a table for each, with threshold, beta, bound or budget."""

    host: Annotated[str, tyro.conf.arg(metavar="HOST")] = "127.0.0.1"
    """The address to listen on; 0.0.0.0: all of this machine."""
    port: Count = 8000
    """0: any free one."""
    keys: File = None
    """A file of keys, of which clients send one; those of the variable SIA_JAX_API_KEYS count too."""
    open: Flag = False
    """Serve others than this machine without keys."""

    rows: Count = 16
    """Replies that are written at a time."""
    max_length: Int = None
    """Tokens of the longest prompt with its reply. Default 4096, or what the models hold."""
    top_logprobs: Count = 20
    """Most log-probabilities that a request may ask for at each token."""
    max_logit_bias: Count = 64
    """Tokens that a request may bias."""
    record: bool = True
    """Whether the candidates of junctions are kept, for traces and the page."""
    prefix_caching: Flag = False
    """Go on from what rows hold where a prompt begins alike; replies then depend on traffic, as far as two
    programs may differ."""

    limits: Annotated[Settings, tyro.conf.OmitArgPrefixes] = field(default_factory=Settings)
    log: Form = "plain"
    """A line for each request on stderr, for people or as JSON."""


def main(args: Args) -> None:
    """Serve until told to end; exits with 1 if something is wrong with options or files, or the engine."""
    smaller = f"lower --rows, now {args.rows}, or --max-length"
    with program("decode.serve", MemoryError, smaller=smaller) as console:
        sampling = sampling_args(args)
        check(args, sampling)
        digests = read_keys(None if args.keys is None else Path(args.keys), os.environ.get(KEYS))
        check_open(args, digests)
        policy = runner.prepare(sampling)
        if policy.tokenizer is None:
            raise ValueError(f"{sampling.policy} has no tokenizer, and a server of texts needs one")
        # Before models are loaded: the port may be taken, and loading takes a while.
        with contextlib.closing(open_socket(args.host, args.port)) as listening:
            with waiting(console, "loading the models"):
                models = runner.load_models(sampling)
            engine = make_engine(args, sampling, models)
            ended = run(args, engine, digests, listening, console)
    if ended.status:
        sys.exit(shown(f"decode.serve: {ended.why}"))
    if ended.compiling:
        stop(0)


def sampling_args(args: Args) -> SamplingArgs:
    """The options that are those of all programs that sample; without a policy, of the embedded world.

    Raises:
      FileNotFoundError: the installation lacks it.
    """
    names = {one.name for kind in (NumberArgs, SteeringArgs) for one in fields(kind)}
    given: dict[str, Any] = {name: getattr(args, name) for name in names}
    if not args.policy:
        folder = world_models()
        given["policy"] = str(folder / "policy")
        given["value"] = args.value or str(folder / WORLD_VALUE)
        if args.threshold is None and args.gate is None:
            given["threshold"] = read_calibration(folder / "thresholds.json").thresholds[WORLD_SHARE]
    return SamplingArgs(**given, max_new_tokens=max(args.min_new_tokens or 0, 1))


def check(args: Args, sampling: SamplingArgs) -> None:
    """What can be said without a file.

    Raises:
      ValueError: an option out of its range.
    """
    check_texts(args)
    runner.check_options(sampling)
    for name, least in (("rows", 1), ("top_logprobs", 0), ("max_logit_bias", 0), ("port", 0)):
        if getattr(args, name) < least:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} must be {least} or more, got {getattr(args, name)}")
    if args.port > LARGEST_PORT:
        raise ValueError(f"--port must be at most {LARGEST_PORT}, got {args.port}; 0: any free one")
    if args.name == "":
        raise ValueError("--name must not be empty; leave it out")


def check_open(args: Args, digests: Sequence[bytes]) -> None:
    """Others than this machine need a key, unless it is said that they do not.

    Raises:
      ValueError: they would not, and it is not; or it is, and they do.
    """
    if args.open and digests:
        raise ValueError(
            f"--open serves without keys, and there are some: leave out --open, or --keys and {KEYS}"
        )
    if not (is_loopback(args.host) or digests or args.open):
        raise ValueError(
            f"--host {args.host} can be reached by others, and there are no keys: give --keys FILE, or "
            "--open to serve whoever comes"
        )


def make_engine(args: Args, sampling: SamplingArgs, models: Models) -> sia_jax.Engine:
    """The engine; its steering has the numbers of requests that do not say.

    Raises:
      ValueError, MemoryError: sizes that cannot be, or do not fit.
    """
    given = {name: getattr(args, name) for name in NUMBERS if getattr(args, name) is not None}
    return sia_jax.Engine(
        models.policy,
        models.value,
        rows=runner.whole_rows(sampling, args.rows),
        max_length=args.max_length,
        threshold=runner.threshold(sampling),
        steering=replace(runner.steering(sampling, models.policy), **given),
        record="candidates" if args.record else None,
        max_stop_ids=len(models.policy.config.eos_token_ids) + _STOP_IDS,
        max_logit_bias=args.max_logit_bias,
        prefix_caching=args.prefix_caching,
        top_logprobs=args.top_logprobs,
    )


def run(
    args: Args, engine: sia_jax.Engine, digests: Sequence[bytes], listening: socket.socket, console: Terminal
) -> Ended:
    """Serve with an engine, which is closed at the end.

    Raises:
      OSError, ValueError: what is wrong with the presets.
    """
    try:
        name = args.name or (engine.policy.name if args.policy else WORLD)
        presets = default_presets(name, engine.terms)
        if args.presets is not None:
            presets |= read_presets(Path(args.presets), engine.terms)
        metrics = Metrics(CollectorRegistry(), name)
        metrics.watch(engine)
        service = Service(
            engine=engine,
            presets=presets,
            settings=args.limits,
            metrics=metrics,
            admission=Admission(args.limits),
            created=int(time.time()),
        )
        write = writer(args.log, _to_stderr)
        routes = create_app(service, keyed=bool(digests))
        app = guarded(routes, service, digests, write, [part.path for part in page_files()])
    except BaseException:
        engine.close()
        raise
    Terminal().say(told(engine, list(presets), url_of(listening), len(digests)))
    return serve(app, service, listening, partial(console.say, style="dim"))


def told(engine: sia_jax.Engine, names: Sequence[str], url: str, keys: int) -> str:
    """What is served, where, and how to try it.

    Args:
      engine: what replies.
      names: of the models.
      url: of the server.
      keys: how many there are.
    """
    url = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    value = "not steered" if engine.value is None else f"steered by {engine.value.name}"
    header = ' \\\n      -H "Authorization: Bearer $KEY"' if keys else ""
    steered = next((name for name in names if name.endswith("-sia")), names[0])
    body = f'{{"model": "{steered}", "messages": [{{"role": "user", "content": "How do I bake bread?"}}]}}'
    return f"""{engine.policy.name}, {value}: models {", ".join(names)}
{engine.rows} replies at a time; prompt and reply: {engine.lengths[-1]:,} tokens at most; {keys or "no"} keys

The page: {url}/
The API:  curl {url}/v1/chat/completions -H 'Content-Type: application/json'{header} \\
      -d '{body}'
Ctrl-C ends it. Compiling, for minutes the first time; until it says ready, requests are refused (503) ..."""


def _to_stderr(line: str) -> None:
    """A line of the log; who reads it may have left."""
    with contextlib.suppress(OSError):
        sys.stderr.write(line)
        sys.stderr.flush()


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
