r"""How well a value model predicts rewards: R2 and pairs in order, on replies that it was not trained on.

    python -m train.prepare --generate 4 --policy DIR --format jsonl --input test.jsonl --out out/others
    python -m train.label --input out/others --out out/others-labelled --reward DIR
    python -m train.measure --value out/vm/best --base DIR --data out/others-labelled --out measured.json

A reply's prediction is the mean of the values of its tokens, as the paper's objective has it; and, to see how
early it is known, the value half way through the reply and that of its last token. R2 = 0 is what the best
constant would get, agreement of one half what a coin would. Intervals of 95% are of resamples of the prompts,
from 100 prompts on.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import jax.numpy as jnp
import numpy as np
import tyro

from sia_jax.checkpoints.huggingface import load_policy
from sia_jax.checkpoints.value_model import load_value_model, own_backbone
from sia_jax.data.records import read_records, trajectories
from sia_jax.data.set_folder import set_folder
from sia_jax.data.trajectories import Trajectory
from sia_jax.evaluation.prediction_quality import prediction_quality
from sia_jax.evaluation.resampling import Figure
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs, check_suffix
from sia_jax.files.writing import write_text
from sia_jax.pretrained import ValueModel
from sia_jax.reports.markdown import table
from sia_jax.runs.cli import Count, File, Folder, Name, program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.progress import RunProgress, waiting

FORMAT = "sia_jax measured values 1"
"""Stands in the file."""

PLACES = {"mean of all tokens": "mean", "half way": "half", "last token": "last"}
"""What is held against the reward, as the table and the file call it."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Measure a value model."""

    value: Folder
    """The value model: a folder, or else a Hub id."""
    base: Name = None
    """Its backbone, where it brings none of its own: a folder, or else a Hub id."""
    data: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Labelled replies, as of train.label; not to prompts that it was trained on."""
    max_tokens: Count = 2048
    """Of the longest prompt with its reply; longer ones are kept out, and counted."""
    batch: Count = 16
    """Replies that are read at a time."""
    dtype: Literal["config", "float32", "bfloat16"] = "config"
    """Of the backbone's weights."""
    out: File = None
    """A .json file for the figures."""


def main(args: Args) -> None:
    """Print the table; exits with 1 if something is wrong with options or files."""
    with program("train.measure", smaller=f"lower --batch, now {args.batch}") as console:
        if args.batch < 1:
            raise ValueError(f"--batch must be 1 or more, got {args.batch}")
        check_suffix("--out", args.out, ".json")
        folders = {"--value": args.value, "--base": args.base, "--data": set_folder(args.data)}
        check_outputs(inputs=folders, files={"--out": args.out})
        with locked(files=(None if args.out is None else Path(args.out),)):
            _measure(args, console)


def _measure(args: Args, console: Terminal) -> None:
    """Read, reckon, write and print.

    Raises:
      FileNotFoundError, ValueError: what is wrong with the files.
    """
    source = read_records(args.data)
    with waiting(console, "loading the value model"):
        value = _load(args)
    found, rejected = trajectories(source, value.config.backbone.vocab_size, args.max_tokens)
    if rejected.total:
        console.say(f"kept out: {rejected.describe()}", "dim")
    if not found:
        raise ValueError(f"{args.data} holds nothing that could be measured: {rejected.describe()}")
    predicted = _predict(value, found, args.batch, console)
    rewards, prompts = [one.reward for one in found], [one.group for one in found]
    figures = {name: prediction_quality(x.tolist(), rewards, prompts) for name, x in predicted.items()}
    if args.out is not None:
        content = {
            "format": FORMAT,
            "value": value.name,
            "data": Path(args.data).name,
            "replies": len(found),
            "prompts": len(set(prompts)),
            "figures": {
                name: {kind: _json(figure) for kind, figure in own.items()} for name, own in figures.items()
            },
        }
        write_text(Path(args.out), json.dumps(content, indent=1, allow_nan=False) + "\n")
    rows = [
        [name, *(_cell(figures[own][kind]) for kind in ("r2", "rank_agreement", "mae"))]
        for name, own in PLACES.items()
    ]
    Terminal().say(table(["value", "R2", "pairs in order", "mean error"], rows))
    console.say(f"{len(found):,} replies to {len(set(prompts)):,} prompts", "dim")


def _load(args: Args) -> ValueModel:
    dtype = None if args.dtype == "config" else args.dtype
    backbone = args.base or own_backbone(args.value)
    policy = None if args.base is None else load_policy(args.base, dtype=dtype)
    return load_value_model(args.value, policy or backbone, policy=policy, dtype=dtype)


def _predict(
    value: ValueModel, data: list[Trajectory], batch: int, console: Terminal
) -> dict[str, np.ndarray]:
    """[n] each, in units of the reward: of every reply the mean, the middle and the last value."""
    found = {name: np.zeros(len(data)) for name in PLACES.values()}
    order = sorted(range(len(data)), key=lambda i: data[i].length)
    with RunProgress(console, len(data)) as progress:
        for begin in range(0, len(order), batch):
            places = order[begin : begin + batch]
            chosen = [data[i] for i in places]
            for i, own in zip(places, token_values(value, chosen), strict=True):
                found["mean"][i], found["last"][i] = own.mean(), own[-1]
                found["half"][i] = own[(len(own) - 1) // 2]
            progress.advance(len(places), sum(one.length for one in chosen))
    return found


def token_values(value: ValueModel, chosen: list[Trajectory]) -> list[np.ndarray]:
    """[T] each: the value of every token of each reply, in units of the reward.

    Args:
      value: of a scalar head the value of a token is read at it; of a vocab head at the token before it.
      chosen: replies with their prompts.
    """
    longest = max(one.length for one in chosen)
    tokens = np.zeros((len(chosen), longest), np.int32)
    for row, one in zip(tokens, chosen, strict=True):
        row[: one.length] = np.concatenate([one.prompt_ids, one.reply_ids])
    read = value.values(tokens, [one.length for one in chosen])
    if value.config.head == "vocab":
        after = np.concatenate([tokens[:, 1:], tokens[:, :1]], axis=1)
        read = jnp.take_along_axis(read, after[..., None], axis=-1)[..., 0]
    host = np.asarray(read, np.float64)
    shift = int(value.config.head == "vocab")
    return [
        row[len(one.prompt_ids) - shift : one.length - shift] for row, one in zip(host, chosen, strict=True)
    ]


def _cell(figure: Figure) -> str:
    interval = "[?]" if np.isnan(figure.low) else f"[{figure.low:.3f}, {figure.high:.3f}]"
    return f"{figure.estimate:.3f} {interval}"


def _json(figure: Figure) -> dict[str, float | None]:
    return {name: float(x) if np.isfinite(x) else None for name, x in asdict(figure).items()}


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
