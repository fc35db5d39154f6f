"""The main job on the embedded world: base, sparse and dense steering side by side, in a minute on a CPU.

    make demo
    python -m decode.demo --prompts 90 --out out/demo

A policy of 0.8 million parameters, a value model and a reward model come along in sia_jax/world/models,
whose MODEL_CARD.md says how they were made. The policy replies to held-out prompts alone, steered at its most
uncertain tokens, and steered at every token. To be seen are the replies with their junctions, the *gold*
reward, which a program reads off the text, and the *proxy* reward, from which the value model has learned.

--out gets replies.jsonl (records as decode.generate writes them), trace.html (a page of the replies that are
shown: point at a token to see what stood to choice), results.json, and pareto.png (reward over the share
of steered tokens).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

import sia_jax
from decode import runner
from decode.method_runner import Scorer
from decode.runner import Models, Row, Runner, SamplingArgs
from sia_jax.cli import Count, program
from sia_jax.evaluation.calibration import Calibration, read_calibration
from sia_jax.evaluation.statistics import Interval, bootstrap_mean
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs
from sia_jax.files.writing import write_text
from sia_jax.models.run import bucket_length
from sia_jax.reports.console import Terminal
from sia_jax.reports.evaluation import draw_pareto
from sia_jax.reports.reply import Reply
from sia_jax.reports.terminal import Tally, legend, rate, reply_text
from sia_jax.reports.trace import trace_page
from sia_jax.world.files import world_models
from sia_jax.world.gold import gold_reward
from sia_jax.world.prompts import FAMILIES, Prompt, prompts

SPARSE = 0.2
"""Share of steered tokens of the sparse replies that are shown."""
NEW_TOKENS = 160
VALUE = "value-token"
"""The value model: its values were learned token by token (docs/world-token.md)."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Steer on the embedded world."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("out/demo")
    """Where page, picture and records go."""
    prompts: Count = 48
    """Held-out prompts that are replied to, of all three families."""
    shown: Count = 6
    """Of these, how many are printed, and put on the page."""
    seed: Count = 0
    """Of the replies."""
    models: Annotated[str | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Another world: the folder models/ of a train.world. Default: the one that comes along."""


@dataclass(frozen=True)
class Setting:
    """One way to steer."""

    name: str
    threshold: float
    """Nats; inf: never, -inf: always."""
    ratio: float | None = None
    """Share of tokens that the threshold was calibrated for."""

    @property
    def kind(self) -> str:
        """What the picture calls it."""
        return self.name if self.ratio is None else "entropy"


@dataclass(frozen=True)
class Scored:
    """The replies under one setting, with their rewards and the time that they took."""

    setting: Setting
    replies: list[Reply]
    gold: list[float]
    proxy: list[float]
    seconds: float

    @property
    def tally(self) -> Tally:
        """Counts over all of them."""
        tally = Tally()
        tally.add(self.replies, self.seconds)
        return tally


WRITTEN = ("replies.jsonl", "trace.html", "results.json", "pareto.png")
"""What stands in OUT at the end."""


def main(args: Args) -> None:
    """Run the demo; exits with 1 if something is wrong with options or files."""
    console = Terminal()
    with program("decode.demo") as messages:
        if args.prompts < 2:
            raise ValueError(
                f"--prompts must be 2 or more, for an interval of their rewards, got {args.prompts}"
            )
        if not 1 <= args.shown <= args.prompts:
            raise ValueError(f"--shown must lie in 1 .. {args.prompts}, the prompts, got {args.shown}")
        folder = world_models() if args.models is None else Path(args.models)
        check_outputs(
            inputs={"--models": folder}, files={f"--out's {name}": args.out / name for name in WRITTEN}
        )
        with locked(folders=(args.out,)):
            run(args, folder, messages, console)


def run(args: Args, folder: Path, messages: Terminal, console: Terminal) -> None:
    """`main`, once options and places are checked.

    Raises:
      FileNotFoundError, ValueError: what is wrong with the models.
    """
    asked = choose_prompts(args.prompts)
    sampling = SamplingArgs(
        policy=str(folder / "policy"),
        value=str(folder / VALUE),
        max_new_tokens=NEW_TOKENS,
        seed=args.seed,
    )
    calibration = read_calibration(folder / "thresholds.json")
    written = runner.settings(sampling)
    calibration.check(written)
    settings = plan(calibration)
    with messages.status("loading the models"):
        models = runner.load_models(sampling)
        reward = sia_jax.load_reward_model(folder / "reward")
    found = _run(models, reward, asked, settings, sampling, messages)
    _show(console, asked[: args.shown], found)
    console.print(_summary(found))
    _write(args, asked, found, written)
    console.print(_next(args, folder, calibration.thresholds[SPARSE]), highlight=False, soft_wrap=True)


def choose_prompts(count: int) -> list[Prompt]:
    """Prompts of the test split, the families in turn, from all over the split.

    Raises:
      ValueError: there are not so many.
    """
    families = [prompts("test", family) for family in FAMILIES]
    share = -(-count // len(families))
    if share > min(map(len, families)):
        raise ValueError(f"--prompts must be at most {3 * min(map(len, families))}, got {count}")
    spread = [[own[i * len(own) // share] for i in range(share)] for own in families]
    return [prompt for together in zip(*spread, strict=True) for prompt in together][:count]


def plan(calibration: Calibration) -> list[Setting]:
    """No steering, the calibrated shares, and steering everywhere.

    Raises:
      ValueError: the share that is shown is not among them.
    """
    if SPARSE not in calibration.thresholds:
        found = sorted(calibration.thresholds)
        raise ValueError(
            f"thresholds.json has none for {SPARSE}, only for {found}; decode.calibrate makes one"
        )
    shares = [Setting(f"sparse {r:.0%}", t, r) for r, t in sorted(calibration.thresholds.items())]
    return [Setting("base", math.inf), *shares, Setting("dense", -math.inf)]


def _run(
    models: Models,
    reward: sia_jax.RewardModel,
    asked: Sequence[Prompt],
    settings: Sequence[Setting],
    sampling: SamplingArgs,
    messages: Terminal,
) -> list[Scored]:
    """One program for all settings: the threshold is an argument of it."""
    machine = Runner(models, sampling, len(asked), record="candidates")
    assert models.value is not None
    rows = [
        Row(
            models.policy.prompt_ids(prompt.messages),
            models.value.prompt_ids(prompt.messages),
            runner.prompt_key(sampling.seed, index),
            math.inf,
        )
        for index, prompt in enumerate(asked)
    ]
    shape = (
        bucket_length(max(len(row.policy_ids) for row in rows)),
        bucket_length(max(len(row.value_ids) for row in rows)),
    )
    with messages.status("compiling"):
        machine.compile(shape)
    scorer, conversations = Scorer(reward, messages.status), [prompt.messages for prompt in asked]
    found = []
    for setting in settings:
        with messages.status(f"{setting.name}: {len(asked)} replies"):
            chosen = [replace(row, threshold=setting.threshold) for row in rows]
            groups, seconds = machine.run(chosen, shape, sampling)
        replies = [reply for (reply,) in groups]
        gold = [gold_reward(*pair) for pair in zip(asked, (r.text for r in replies), strict=True)]
        proxy = [reward for (reward,) in scorer.score(conversations, groups)[0]]
        found.append(Scored(setting, replies, gold, proxy, seconds))
    return found


def _show(console: Terminal, asked: Sequence[Prompt], found: Sequence[Scored]) -> None:
    """Replies side by side: base, sparse, dense."""
    console.print(legend())
    for index, prompt in enumerate(asked):
        console.print(Rule(Text(prompt.text, "bold"), align="left", style="dim"))
        table = Table(expand=True, show_footer=True, footer_style="dim")
        columns = [scored for scored in found if scored.setting.ratio in (None, SPARSE)]
        for scored in columns:
            reply = scored.replies[index]
            footer = f"gold {scored.gold[index]:+.1f}, proxy {scored.proxy[index]:+.1f}"
            if scored.setting.kind != "base":
                footer += f", {reply.num_junctions / max(len(reply.tokens), 1):.0%} steered"
            table.add_column(scored.setting.name, ratio=1, overflow="fold", footer=footer)
        table.add_row(*(reply_text(scored.replies[index]) for scored in columns))
        console.print(table)


def _summary(found: Sequence[Scored]) -> Table:
    """A line for each setting."""
    table = Table(title=f"over {len(found[0].replies)} prompts", title_justify="left")
    for title in ("", "gold reward", "proxy reward", "steered", "tokens/s"):
        table.add_column(title, justify="left" if not title else "right")
    for scored in found:
        tally = scored.tally
        table.add_row(
            scored.setting.name,
            f"{np.mean(scored.gold):+.2f}",
            f"{np.mean(scored.proxy):+.2f}",
            f"{tally.junctions / max(tally.tokens, 1):.0%}",
            rate(tally.tokens_per_second),
        )
    return table


def _write(args: Args, asked: Sequence[Prompt], found: Sequence[Scored], settings: dict[str, Any]) -> None:
    """replies.jsonl, trace.html, results.json and pareto.png."""
    records = [
        {
            "id": prompt.id,
            "index": index,
            "branch": 0,
            "method": scored.setting.name,
            "seed": args.seed,
            "threshold": runner.json_threshold(scored.setting.threshold),
            "prompt": [dict(message) for message in prompt.messages],
            **scored.replies[index].to_json(),
            "gold": scored.gold[index],
            "proxy": scored.proxy[index],
            "settings": settings,
        }
        for index, prompt in enumerate(asked)
        for scored in found
    ]
    lines = "".join(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)
    write_text(args.out / "replies.jsonl", lines)
    on_page = [
        record
        for record in records
        if record["index"] < args.shown and record["method"] in ("base", "dense", f"sparse {SPARSE:.0%}")
    ]
    write_text(args.out / "trace.html", trace_page(on_page, "Steering in the embedded world"))
    results = {"measures": ["gold", "proxy"], "rows": [_row(scored) for scored in found]}
    write_text(args.out / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    draw_pareto(results, args.out / "pareto.png")


def _row(scored: Scored) -> dict[str, Any]:
    tally, count = scored.tally, range(len(scored.replies))
    means: dict[str, Interval] = {
        "gold": bootstrap_mean(scored.gold, count),
        "proxy": bootstrap_mean(scored.proxy, count),
    }
    return {
        "name": scored.setting.name,
        "kind": scored.setting.kind,
        "n": 1,
        "ratio": tally.junctions / max(tally.tokens, 1),
        "threshold": runner.json_threshold(scored.setting.threshold),
        "rewards": {name: interval.to_json() for name, interval in means.items()},
        "tokens_per_second": tally.tokens_per_second,
    }


def _next(args: Args, folder: Path, threshold: float) -> str:
    here = Path.cwd()
    folder = folder.relative_to(here) if folder.is_relative_to(here) else folder
    return f"""
written to {args.out}: trace.html (open it in a browser), pareto.png, replies.jsonl, results.json

Next, words of your own; or a Qwen3 or Llama-3 checkpoint of your own, a folder or a Hub id:
  python -m decode.generate --policy {folder / "policy"} --value {folder / VALUE} \\
      --threshold {threshold:.2f} --compare --prompt "How do I bake bread on a rainy day?"
  python -m decode.chat --policy Qwen3-1.7B-Base --value VM-Qwen3-1.7B-Base"""


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
