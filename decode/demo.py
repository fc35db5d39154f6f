"""The main job on the embedded world: base, sparse and dense steering side by side, in a minute on a CPU.

    make demo
    python -m decode.demo --prompts 90 --out out/demo

A policy of 0.8 million parameters, a value model and a reward model come along in sia_jax/world/models,
whose MODEL_CARD.md says how they were made. The policy replies to held-out prompts alone, steered at its most
uncertain tokens, and steered at every token. First comes a table of mean rewards with their intervals: the
*gold* reward, which a program reads off the text, and the *proxy* reward, from which the value model has
learned. Then replies side by side: those that sparse steering gained most for, in gold reward over base,
those in the middle, and those that it lost most for.

--out gets replies.jsonl (records as decode.generate writes them), trace.html (a page of the replies that are
shown: point at a token to see what stood to choice), results.json, and pareto.png (reward over the share
of steered tokens) with its numbers, pareto.csv.
"""

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich import box
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

import sia_jax
from sia_jax.data.prompts import check_seed
from sia_jax.engine.reply import Reply, json_threshold
from sia_jax.evaluation.calibration import Calibration, read_calibration
from sia_jax.evaluation.scoring import Scorer
from sia_jax.evaluation.statistics import FEWEST, Interval, mean_interval, paired_difference
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs
from sia_jax.files.writing import write_text
from sia_jax.reports.examples import choose_shown
from sia_jax.reports.pareto import share_picture
from sia_jax.reports.pictures import save_picture
from sia_jax.reports.terminal import legend, reply_text
from sia_jax.reports.trace import trace_page
from sia_jax.runs import runner
from sia_jax.runs.cli import Count, program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.engines import Row, make_engine, make_request
from sia_jax.runs.options import Models, SamplingArgs
from sia_jax.runs.programs import invocation
from sia_jax.runs.progress import RunProgress, waiting
from sia_jax.world.files import world_models
from sia_jax.world.gold import gold_reward
from sia_jax.world.prompts import FAMILIES, Prompt, prompts

REWARDS = (
    "gold: the true reward, which a program reads off the finished text; proxy: the reward model's, which "
    "the value model has learned from."
)

SPARSE = 0.2
"""Share of steered tokens of the sparse replies that are shown."""
NEW_TOKENS = 160
VALUE = "value-token"
"""The value model: its values were learned token by token (docs/world-token.md)."""
ROWS = 48
"""Replies at a time, of all ways to steer."""
NEVER = 1e9
"""Nats that no entropy has. At infinity the value model would not read the prompts: that is a program of its
own, which takes longer to compile than all of these prompts take to read."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Steer on the embedded world."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("out/demo")
    """Where page, picture and records go."""
    prompts: Count = 48
    """Held-out prompts that are replied to, of all three families."""
    shown: Count = 6
    """Of these, how many are printed, and put on the page: a third each of gains, middle and losses."""
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
    """The replies under one setting, with their rewards."""

    setting: Setting
    replies: list[Reply]
    gold: list[float]
    proxy: list[float | None]
    """None: the reward model could not score the reply."""

    @property
    def ratio(self) -> float:
        """Share of steered tokens."""
        tokens = sum(len(reply.tokens) for reply in self.replies)
        return sum(reply.num_junctions for reply in self.replies) / max(tokens, 1)


WRITTEN = ("replies.jsonl", "trace.html", "results.json", "pareto.png", "pareto.csv")
"""What stands in OUT at the end."""


def main(args: Args) -> None:
    """Run the demo; exits with 1 if something is wrong with options or files."""
    stdout = Terminal()
    with program("decode.demo") as console:
        check_seed(args.seed, "--seed")
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
            run(args, folder, console, stdout)


def run(args: Args, folder: Path, console: Terminal, stdout: Terminal) -> None:
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
    written = runner.run_identity(sampling)
    calibration.check(written)
    settings = plan(calibration)
    console.say(
        f"{len(settings)} ways to steer x {len(asked)} prompts = {len(settings) * len(asked)} replies, with "
        "a policy of 0.8 million parameters: about a minute on two cores, half of it for compiling"
    )
    with waiting(console, "loading the models"):
        models = runner.load_models(sampling)
        reward = sia_jax.load_reward_model(folder / "reward")
    found = _run(models, reward, asked, settings, sampling, console)
    base, sparse = found[0], next(scored for scored in found if scored.setting.ratio == SPARSE)
    chosen = choose_shown(base.gold, sparse.gold, args.shown)
    stdout.print(_summary(found))
    stdout.print(Text(REWARDS, "dim"))
    _show(stdout, asked, found, chosen)
    _write(args, asked, found, written, chosen)
    stdout.say(_next(args, folder, calibration.thresholds[SPARSE]))


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
    console: Terminal,
) -> list[Scored]:
    """All settings in one engine: the threshold is a request's own."""
    assert models.value is not None
    rows = [
        Row(
            models.policy.prompt_ids(prompt.messages),
            models.value.prompt_ids(prompt.messages),
            runner.prompt_key(sampling.seed, index),
            min(setting.threshold, NEVER),
        )
        for index, prompt in enumerate(asked)
        for setting in settings
    ]
    requests = [make_request(row, sampling) for row in rows]
    found: dict[int, Reply] = {}
    with (
        RunProgress(console, len(rows)) as progress,
        make_engine(
            models, sampling, min(ROWS, len(rows)), rows, record="candidates", one_buffer=True
        ) as engine,
    ):
        with progress.aside("compiling the sampler"):
            engine.warmup(requests[:1])
        for place, reply in engine.as_completed(requests):
            found[place] = reply
            progress.advance(1, len(reply.tokens))
        groups = [[found[i * len(settings) + j] for j in range(len(settings))] for i in range(len(asked))]
        proxies = (
            Scorer((reward,), progress.aside).score([prompt.messages for prompt in asked], groups).rewards
        )
    return [
        Scored(
            setting,
            [group[j] for group in groups],
            [gold_reward(prompt, group[j].text) for prompt, group in zip(asked, groups, strict=True)],
            [proxy[j] for proxy in proxies],
        )
        for j, setting in enumerate(settings)
    ]


def _show(
    stdout: Terminal, asked: Sequence[Prompt], found: Sequence[Scored], chosen: Mapping[int, str]
) -> None:
    """Replies side by side: base, sparse, dense."""
    stdout.print(legend())
    for index, why in chosen.items():
        stdout.print(Rule(Text(why, "dim"), align="left", style="dim"))
        stdout.print(Text(asked[index].text, "bold"))
        table = Table(expand=True, show_footer=True, footer_style="dim")
        columns = [scored for scored in found if scored.setting.ratio in (None, SPARSE)]
        for scored in columns:
            reply, proxy = scored.replies[index], scored.proxy[index]
            footer = f"gold {scored.gold[index]:+.1f}, proxy {'?' if proxy is None else f'{proxy:+.1f}'}"
            if scored.setting.kind != "base":
                footer += f", {reply.num_junctions / max(len(reply.tokens), 1):.0%} steered"
            table.add_column(scored.setting.name, ratio=1, overflow="fold", footer=footer)
        table.add_row(*(reply_text(scored.replies[index]) for scored in columns))
        stdout.print(table)


def _summary(found: Sequence[Scored]) -> Table:
    """A line for each setting."""
    count, base = len(found[0].replies), found[0]
    titles = ["", "gold reward", "gold, minus base", "proxy reward", "steered"]
    known = _mean(base.gold, count).is_known
    what = "95% intervals in brackets" if known else f"no intervals: they take {FEWEST} prompts"
    table = Table(
        title=f"means over {count} prompts; {what}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for title in titles:
        table.add_column(title, justify="left" if not title else "right")
    for scored in found:
        more = paired_difference(scored.gold, base.gold, range(count))
        table.add_row(
            scored.setting.name,
            _mean(scored.gold, count).text(signed=True, digits=1),
            "" if scored is base else more.text(signed=True, digits=1),
            _mean(scored.proxy, count).text(signed=True, digits=1),
            f"{scored.ratio:.0%}",
        )
    return table


def _mean(rewards: Sequence[float | None], count: int) -> Interval:
    """Of the replies that have one."""
    known = [(place, reward) for place, reward in enumerate(rewards) if reward is not None]
    if len(known) < 2:
        return Interval(math.nan, -math.inf, math.inf, f"{len(known)} of {count} replies have a reward")
    return mean_interval([reward for _, reward in known], [place for place, _ in known])


def _write(
    args: Args,
    asked: Sequence[Prompt],
    found: Sequence[Scored],
    settings: dict[str, Any],
    chosen: Mapping[int, str],
) -> None:
    """replies.jsonl, trace.html, results.json, pareto.png and pareto.csv."""
    records = [
        {
            "id": prompt.id,
            "index": index,
            "branch": 0,
            "method": scored.setting.name,
            "seed": args.seed,
            "threshold": json_threshold(scored.setting.threshold),
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
        if record["index"] in chosen and record["method"] in ("base", "dense", f"sparse {SPARSE:.0%}")
    ]
    page = trace_page(on_page, "Steering in the embedded world", chosen)
    write_text(args.out / "trace.html", page)
    results = {"measures": ["gold", "proxy"], "rows": [_row(scored) for scored in found]}
    write_text(args.out / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    save_picture(share_picture(results), args.out)


def _row(scored: Scored) -> dict[str, Any]:
    count = len(scored.replies)
    means = {"gold": _mean(scored.gold, count), "proxy": _mean(scored.proxy, count)}
    return {
        "name": scored.setting.name,
        "kind": scored.setting.kind,
        "n": 1,
        "ratio": scored.ratio,
        "threshold": json_threshold(scored.setting.threshold),
        "rewards": {name: interval.to_json() for name, interval in means.items()},
    }


def _next(args: Args, folder: Path, threshold: float) -> str:
    here = Path.cwd()
    folder = folder.relative_to(here) if folder.is_relative_to(here) else folder
    # By this interpreter, so that it can be copied where no environment is activated.
    python = Path(sys.executable)
    python = python.relative_to(here) if python.is_relative_to(here) else python
    generate, chat = (
        re.sub("^python ", f"{python} ", invocation(name)) for name in ("decode.generate", "decode.chat")
    )
    return f"""
written to {args.out}: trace.html (open it in a browser), pareto.png, pareto.csv, replies.jsonl, results.json

Next, words of your own, or a conversation:
  {generate} --policy {folder / "policy"} --value {folder / VALUE} \\
      --threshold {threshold:.4g} --compare --prompt "How do I bake bread on a rainy day?"
  {chat} --policy {folder / "policy"} --value {folder / VALUE} --threshold {threshold:.4g}
Or a Qwen3 or Llama-3 checkpoint, a folder or a Hub id, alone or with a value model of yours (--value):
  {chat} --policy Qwen/Qwen3-1.7B"""


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
