r"""Numbers of gates for shares of steered tokens: from the policy's entropies along its own replies.

    python -m decode.calibrate --policy Qwen/Qwen3-1.7B-Base --prompts validation.jsonl \
        --out thresholds.json

    # Other shares, and more replies for surer quantiles:
    python -m decode.calibrate --policy Qwen/Qwen3-1.7B-Base --prompts validation.jsonl \
        --out thresholds.json --ratios 0.05 0.1 0.2 --samples 8

    # And the bias of a learned gate:
    python -m decode.calibrate --policy Qwen/Qwen3-1.7B-Base --prompts validation.jsonl \
        --out thresholds.json --learned-gate gate.json

The policy replies to every prompt without steering. The entropy of a token is the one that the gate sees:
over the candidates, at temperature 1, as the sampler records it. The threshold for a share r is the 1 - r
quantile; where many tokens have the same entropy no threshold may give that share, and the nearest is
taken, told, and written down as what it is. So are the numbers that steer the same share by other gates:
the ratio of a token's entropy to the one before, the number of first tokens, of which there are whole ones
alone, and the bias of a learned gate. Steering changes the text, so the share that a steered run comes to
differs a little, and decode.evaluate reports it. The numbers belong to this policy, --num-candidates and way
to sample: decode.evaluate refuses them with others. While it runs, OUT.partial.jsonl holds what is done, and
the same command, started again, goes on from there.

The official code reads the file of --official, {"quantiles": {"0.9": 1.23, ...}}, as
`evaluate.py --all_ratios_entropy`, and rounds its numbers to three digits.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from sia_jax.data.prompts import PromptLine
from sia_jax.evaluation.calibration import FORMAT, calibrate, read_calibration
from sia_jax.evaluation.gate_calibration import SCALES, gate_caution, linear_of
from sia_jax.evaluation.learned_gate import LearnedGate, read_learned_gate
from sia_jax.evaluation.methods import GateKind
from sia_jax.evaluation.official import write_official_quantiles
from sia_jax.evaluation.shares import threshold_for
from sia_jax.evaluation.token_features import HIDING, FeatureRecords
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs, check_suffix
from sia_jax.files.shown import shown_value
from sia_jax.files.writing import write_text
from sia_jax.runs import preflight, prompting, runner
from sia_jax.runs.cli import Count, File, Flag, PromptFileArgs, command, goes_on, program, read_options, stop
from sia_jax.runs.console import Terminal
from sia_jax.runs.engines import Row, completed, make_engine, missing_replies, warm_up
from sia_jax.runs.journal import Journal
from sia_jax.runs.options import SamplingArgs
from sia_jax.runs.progress import RunProgress, waiting
from sia_jax.runs.prompt_ids import SETTINGS, draws_of, key_of_draws
from sia_jax.steering.numbers import NUMBERS, with_absent
from sia_jax.text.forms import Prompting

_POLICY_ONLY = (
    "value",
    "value_fingerprint",
    "value_files",
    "value_backbone",
    "value_backbone_fingerprint",
    "value_backbone_files",
    "threshold",
    "gate",
    "tilt",
    "beta",
    "read_all",
)
"""Settings of a steered run, which this is not."""


@dataclass(frozen=True, kw_only=True)
class Args(PromptFileArgs, SamplingArgs):
    """Calibrate thresholds."""

    prompts: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """A file of prompts, as of decode.generate; not those that will be evaluated on."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """The .json file of thresholds."""
    ratios: tuple[float, ...] = (0.1, 0.2, 0.4, 0.6, 0.8)
    """Shares of tokens to be steered, between 0 and 1."""
    learned_gate: File = None
    """What decode.learn_gate wrote: its bias is found for each share."""
    samples: Count = 1
    """Replies to each prompt."""
    batch: Count = 16
    """Replies that are generated at a time."""
    official: File = None
    """A .json file for the thresholds in the official code's form, by quantiles."""
    overwrite: Flag = False
    """Begin anew, whatever OUT and OUT.partial.jsonl hold."""

    preset: Annotated[Literal["paper", "official"], tyro.conf.Suppress] = "paper"
    value: Annotated[str | None, tyro.conf.Suppress] = None
    value_backbone: Annotated[str | None, tyro.conf.Suppress] = None
    check_base: Annotated[bool, tyro.conf.Suppress] = True
    threshold: Annotated[float | None, tyro.conf.Suppress] = None
    gate: Annotated[str | None, tyro.conf.Suppress] = None
    tilt: Annotated[str | None, tyro.conf.Suppress] = None
    tilt_bound: Annotated[float | None, tyro.conf.Suppress] = None
    beta: Annotated[float | None, tyro.conf.Suppress] = None
    read_all: Annotated[int | None, tyro.conf.Suppress] = None


def main(args: Args) -> None:
    """Calibrate; exits with 1 if something is wrong with options or files, and with 130 after Ctrl-C."""
    with program("decode.calibrate", smaller=f"lower --batch, now {args.batch}") as console:
        _check(args)
        with locked(files=(Path(args.out), None if args.official is None else Path(args.official))):
            run(args, console)


def run(args: Args, console: Terminal) -> None:
    """`main`, without its ways out.

    Raises:
      FileNotFoundError, ValueError: what is wrong with options and files.
    """
    prompts = prompting.read_prompt_file(args.prompts, args.column, args.system)
    policy = runner.prepare(args)
    settled = prompting.find_prompting(policy, args)
    prompting.announce(settled, prompts, console)
    ids = preflight.policy_ids(prompts, runner.Models(policy, None), args, settled)
    source = describe_source(args, len(prompts), settled)
    learned = None if args.learned_gate is None else _read_learned(args.learned_gate, source)
    if Path(args.out).exists() and not args.overwrite and not _partial(args).exists():
        lacks = _check_finished(args, source)
        _write_official(args)
        console.print(f"{args.out}: it is there already{lacks}", highlight=False, soft_wrap=True)
        return
    features = FeatureRecords([prompt.id for prompt in prompts], learned=learned is not None)
    where = {name: value for name, value in source.items() if name != "settings"}
    settings = source["settings"] | SETTINGS | where | {"samples": args.samples}
    journal = Journal(_partial(args), settings, features.take, overwrite=args.overwrite)
    done, total = len(journal.done), len(prompts) * args.samples
    if done:
        console.print(f"{journal.path}: going on after {done:,} of {total:,} replies", soft_wrap=True)
    if done < total:
        try:
            _sample(args, prompts, ids, features, journal, console)
        except KeyboardInterrupt:
            kept = f"what was done is in {journal.path}, and {goes_on(args.overwrite and journal.begun)}"
            console.print(f"\ninterrupted; {kept}", highlight=False, soft_wrap=True)
            stop()
    found = features.all()
    content = calibrate(found, sorted(args.ratios), _facts(args, source, total), learned)
    write_text(Path(args.out), json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    _write_official(args)
    # The journal goes last: whatever happens before, the same command ends the work.
    journal.path.unlink()
    for row in content["thresholds"]:
        _tell(row, len(found), console)
    console.print(
        f"from {len(found):,} tokens of {total:,} replies; written to {args.out}",
        highlight=False,
        soft_wrap=True,
    )


def _tell(row: dict[str, Any], tokens: int, console: Terminal) -> None:
    """What steers the share of a row, gate by gate."""
    threshold = f"H >= {row['threshold']:.4f} nats"
    told: list[tuple[GateKind, float, str]] = [("entropy", row["share"], threshold)]
    for kind, scale in SCALES.items():
        if kind in row["gates"]:
            own = row["gates"][kind]
            told.append((kind, own["share"], scale.text.format(own["number"])))
    for gate, share, text in told:
        console.say(f"{share:.1%} of the tokens: {text}")
        caution = gate_caution(gate, row["ratio"], share, tokens)
        if caution:
            console.say(f"warning: {caution}")


def _read_learned(file: str, source: dict[str, Any]) -> LearnedGate:
    """The learned gate, which `source` gets to tell.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it holds something else, or a gate of another policy or other candidates.
    """
    learned = read_learned_gate(Path(file))
    for name in ("policy_fingerprint", "num_candidates"):
        ours, theirs = source["settings"][name], learned.settings.get(name)
        if theirs != ours:
            raise ValueError(
                f"--learned-gate {file}: it has learned with {name} {shown_value(theirs, 60)} (now "
                f"{ours!r}); learn another with decode.learn_gate"
            )
    content = Path(file).read_bytes()
    source["learned"] = {
        "file": Path(file).name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "gate": asdict(linear_of(learned)),
    }
    return learned


def _check_features(args: Args) -> None:
    """The features of a learned gate can be told from what is recorded.

    Raises:
      ValueError: an option under which they cannot.
    """
    if args.num_candidates == 1:
        raise ValueError("--learned-gate needs --num-candidates 2 or more: one has no gap to a second")
    changed = [name for name in HIDING if getattr(args, name) not in (None, NUMBERS[name].default)]
    if changed:
        raise ValueError(
            "--learned-gate: the top probability under penalties and minimum lengths is not recorded: leave "
            f"--{changed[0].replace('_', '-')} out"
        )


def _check(args: Args) -> None:
    runner.check_options(args)
    runner.check_batch(args.samples, args.batch)
    if not args.ratios or len(set(args.ratios)) < len(args.ratios):
        raise ValueError(f"--ratios must be different shares, at least one, got {args.ratios}")
    for ratio in args.ratios:
        threshold_for(np.zeros(1), ratio)
    if args.learned_gate is not None:
        _check_features(args)
    check_suffix("--official", args.official, ".json")
    check_outputs(
        inputs={"--prompts": args.prompts, "--learned-gate": args.learned_gate, **runner.model_folders(args)},
        files={"--out": args.out, "--out's journal": _partial(args), "--official": args.official},
    )


def _sample(
    args: Args,
    prompts: Sequence[PromptLine],
    ids: Sequence[Sequence[int]],
    features: FeatureRecords,
    journal: Journal,
    console: Terminal,
) -> None:
    """Every reply that the journal lacks goes into it."""
    with waiting(console, "loading the policy"):
        models = runner.load_models(args)
    keys = (
        key_of_draws(prompt, draws, args.seed, args.samples)
        for prompt, draws in zip(prompts, draws_of(prompts, ids), strict=True)
    )
    rows = [Row(own, own, key, math.inf) for own, key in zip(ids, keys, strict=True)]
    total = len(rows) * args.samples
    missing = missing_replies(rows, args, args.samples, lambda *place: place in journal.done)
    recorded: Literal["candidates"] | None = None if args.learned_gate is None else "candidates"
    engine = make_engine(models, args, min(args.batch, total), rows, record=recorded)
    with engine, journal, RunProgress(console, total, len(journal.done)) as progress:
        warm_up(engine, missing, progress.aside)
        for index, branch, reply in completed(engine, missing):
            record = {"index": index, "id": prompts[index].id, "branch": branch}
            journal.write(record | features.record_of(reply))
            progress.advance(1, len(reply.tokens))


def describe_source(args: Args, prompts: int, settled: Prompting | None = None) -> dict[str, Any]:
    """What the entropies depend on.

    Args:
      args: of the run.
      prompts: how many there are.
      settled: how they are made (`prompting.find_prompting`); None: it is found here.
    """
    whole = runner.run_identity(args, settled)
    settings = {name: x for name, x in whole.items() if name not in _POLICY_ONLY}
    return {
        "settings": settings | {"system": args.system},
        "prompts": Path(args.prompts).name,
        "prompts_sha256": hashlib.sha256(Path(args.prompts).read_bytes()).hexdigest(),
        "num_prompts": prompts,
    }


def _facts(args: Args, source: dict[str, Any], replies: int) -> dict[str, Any]:
    return {
        **source,
        "samples": args.samples,
        "replies": replies,
        "command": command("decode.calibrate", replace(args, overwrite=False)),
    }


def _check_finished(args: Args, source: dict[str, Any]) -> str:
    """OUT is what this command would write; returns what an earlier release has left out, in words.

    Raises:
      ValueError: it is not, and why.
    """
    try:
        theirs = read_calibration(Path(args.out)).facts
    except ValueError as error:
        raise ValueError(f"{error}; name another file, or pass --overwrite") from None
    ratios = [row["ratio"] for row in theirs["thresholds"]]
    ours = {"learned": None, **source, "samples": args.samples}
    for facts in (theirs, ours):
        facts["settings"] = with_absent(facts["settings"])
    differing = [name for name, value in ours.items() if theirs.get(name) != value]
    if ratios != sorted(args.ratios):
        differing.append("ratios")
    if differing:
        raise ValueError(
            f"{args.out} is there already, with other {', '.join(differing)}; name another file, or pass "
            "--overwrite"
        )
    if theirs["format"] == FORMAT:
        return ""
    return ", of thresholds alone: --overwrite adds the numbers of other gates"


def _write_official(args: Args) -> None:
    """What stands in OUT, in the official form, if that is asked for."""
    if args.official is not None:
        write_official_quantiles(Path(args.official), read_calibration(Path(args.out)).thresholds)


def _partial(args: Args) -> Path:
    out = Path(args.out)
    return out.with_name(f"{out.name}.partial.jsonl")


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
