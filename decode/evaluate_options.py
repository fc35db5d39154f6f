"""The options of `decode.evaluate`, and what can be said of them before any model is read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sia_jax.cluster.options import RayArgs, check_ray, on_one_device
from sia_jax.data.prompts import MAX_SEED, PromptLine
from sia_jax.evaluation.calibration import Calibration
from sia_jax.evaluation.judges import JudgeOptions
from sia_jax.evaluation.methods import (
    DEFAULT_GROUPS,
    GATES,
    NEED_THRESHOLDS,
    Chooser,
    Group,
    Method,
    plan_methods,
)
from sia_jax.evaluation.search.expressions import parse_search
from sia_jax.evaluation.share import FILE, share_file
from sia_jax.files.outputs import check_outputs, check_suffix
from sia_jax.reports.evaluation import read_appendix
from sia_jax.reports.evaluation_pictures import FILES, places_beside
from sia_jax.runs import prompting, runner
from sia_jax.runs.cli import (
    Count,
    File,
    Flag,
    Float,
    Int,
    Name,
    Names,
    PromptFileArgs,
    Repeated,
    check_used,
)
from sia_jax.runs.options import SamplingArgs
from sia_jax.runs.parts import statement_of
from sia_jax.runs.rewards import RewardArgs, reward_inputs
from sia_jax.runs.shards import Shard, ShardArgs, find_shard

WRITTEN = (FILE, "results.json", "results.md", *FILES)
"""What stands in OUT at the end; of pictures those for which there are numbers."""


@dataclass(frozen=True, kw_only=True)
class Args(PromptFileArgs, RewardArgs, SamplingArgs, ShardArgs, RayArgs):
    """Compare methods."""

    value: Annotated[str, tyro.conf.arg(metavar="DIR")] = field()
    """The value model: a folder, or else a Hub id."""
    reward: Names = ()
    """A reward model, which gives the proxy reward: a folder, or else a Hub id. DIR=WEIGHT weights it. May be
    given again: the reward is the weighted sum."""
    reward_date_string: Annotated[str | None, tyro.conf.arg(metavar="DATE", help_behavior_hint="")] = None
    """The date that the reward models' chat templates write; must be given if one writes today's."""
    reward_max_tokens: Int = None
    """Of the longest conversation that is scored. Without: as many as each reward model holds."""
    prompts: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """A file of prompts, as of decode.generate."""
    thresholds: File = None
    """What decode.calibrate wrote for this policy; for entropy gates."""
    methods: Annotated[tuple[Group, ...], tyro.conf.arg(metavar="NAME")] = DEFAULT_GROUPS
    """What is compared. best-of is of the policy alone, combined of an entropy gate. A random gate without
    the entropy gate steers at its ratio itself. Other gates at the same ratios: entropy-ratio, position,
    budget, and learned, if the thresholds were made with --learned-gate."""
    out: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """The folder of the results."""
    seeds: Count = 3
    """Replies to each prompt under each method: of seeds --seed, --seed + 1, ..."""
    ratios: tuple[float, ...] = ()
    """Only these of the file's ratios. Without: all."""
    best_of: tuple[int, ...] = (4, 8)
    """Numbers of replies that the policy alone chooses among."""
    bounds: tuple[float, ...] = ()
    """Nats that bound the tilt, as --tilt-bound does: dense and entropy steering under each, where contenders
    alone are read, beside those without."""
    search: Repeated = ()
    """A search that a reward guides: "args(1.0)", "transfer_q(1.0, candidates=4)", "cbs(2, 2, 16)" (drafts,
    continuations of each, tokens of a chunk). All of the policy alone, cbs also with combined's gate."""
    combined: Count = 4
    """Number of replies that entropy-gated steering chooses among; 0: leave that out."""
    combined_ratio: Float = None
    """At which of the ratios. Without: the one nearest to 0.2."""
    base_chooser: Chooser = "reward"
    """What chooses among replies of the policy alone: the reward, or the value of the last token."""
    sia_chooser: Literal["reward", "value", "both"] = "both"
    """What chooses among steered replies; both: each is a method of its own."""
    gold_function: Annotated[str | None, tyro.conf.arg(metavar="FUNCTION", help_behavior_hint="")] = None
    """A second reward, which nothing learns from and nothing is chosen by: a program, as MODULE:FUNCTION."""
    gold_reward: Name = None
    """Or another reward model."""
    fluency_model: Name = None
    """A second language model, under which replies have a perplexity: a folder, or else a Hub id."""
    fluency_date_string: Annotated[str | None, tyro.conf.arg(metavar="DATE", help_behavior_hint="")] = None
    """The date that its chat template writes; must be given if it writes today's."""
    batch: Count = 64
    """Replies that are sampled at a time."""
    resamples: Count = 10_000
    """Of the bootstrap."""
    page: File = None
    """A .md file for the page; its pictures go beside it."""
    title: str = "Methods compared"
    """Of the page."""
    introduction: File = None
    """A file of Markdown that the page begins with."""
    appendix: File = None
    """Another one, such as entropy_study.md, that stands near the page's end; its pictures are copied too."""
    official: Annotated[str | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """A folder for results in the official code's form: METHOD/seed-SEED/results.json. A shard writes none,
    and its replies bring what that takes."""
    examples: Count = 0
    """Prompts that the page shows with two replies in full: the policy's own, and that of the entropy gate
    nearest to 20% (without one, of dense steering). By turns the largest gain, the middle one, the largest
    loss."""
    overwrite: Flag = False
    """Begin anew, whatever OUT holds; a shard its part, as if OUT held nothing else."""

    preset: Annotated[Literal["paper", "official"], tyro.conf.Suppress] = "paper"
    threshold: Annotated[float | None, tyro.conf.Suppress] = None
    gate: Annotated[str | None, tyro.conf.Suppress] = None


def check_options(args: Args) -> None:
    """Numbers in their ranges, and outputs that are no inputs.

    Raises:
      FileNotFoundError, ValueError: what is wrong.
    """
    check_ray(args)
    runner.check_options(on_one_device(args))
    for name in ("seeds", "batch", "resamples"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be 1 or more, got {getattr(args, name)}")
    if args.seed + args.seeds - 1 > MAX_SEED:
        raise ValueError(
            f"--seeds {args.seeds} from --seed {args.seed} on go past the largest, {MAX_SEED}; lower --seed"
        )
    if args.examples < 0:
        raise ValueError(f"--examples must be 0 or more, got {args.examples}")
    if args.combined < 0 or args.combined == 1:
        raise ValueError(f"--combined must be 2 or more, or 0 for none, got {args.combined}")
    if args.combined == 0:
        check_used(args, ("combined_ratio", "sia_chooser"), "--combined N")
    if args.bounds and (args.tilt is not None or args.tilt_bound is not None):
        option = "--tilt" if args.tilt_bound is None else "--tilt-bound"
        raise ValueError(
            f"--bounds adds methods to those of the additive tilt, and {option} is of all methods: leave one "
            "of them out"
        )
    if not args.reward:
        check_used(args, ("reward_max_tokens",), "--reward DIR")
    if not args.reward and args.gold_reward is None:
        check_used(args, ("reward_date_string",), "--reward DIR")
    if args.fluency_model is None:
        check_used(args, ("fluency_date_string",), "--fluency-model DIR")
    if args.page is None:
        check_used(args, ("title", "introduction", "appendix", "examples"), "--page FILE")
    check_suffix("--page", args.page, ".md")
    for name in ("introduction", "appendix"):
        file = getattr(args, name)
        if file is not None and not Path(file).is_file():
            raise FileNotFoundError(f"--{name}: there is no file {file}")
    out, page = Path(args.out), None if args.page is None else Path(args.page)
    shard = find_shard(args.shard)
    if shard is not None:
        check_used(args, ("page", "resamples"), "the results, which no shard writes")
    pictures: dict[Path, Path] = {}
    if page is not None and args.appendix is not None:
        _, pictures = read_appendix(Path(args.appendix), page, f"--appendix {args.appendix}")
    check_outputs(
        inputs={
            "--prompts": args.prompts,
            "--thresholds": args.thresholds,
            **reward_inputs(args.reward),
            "--gold-reward": args.gold_reward,
            "--fluency-model": args.fluency_model,
            "--introduction": args.introduction,
            "--appendix": args.appendix,
            **{f"--appendix's {picture}": picture for picture in pictures},
            **runner.model_folders(args),
        },
        files={
            **{f"--out's {path.name}": path for path in _written(out, shard)},
            "--page": page,
            **({} if page is None else {f"--page's {p.name}": p for p in places_beside(page).values()}),
            **{f"--page's {copy.name}": copy for copy in pictures.values()},
        },
        folders={} if shard is not None else {"--official": args.official},
    )


def _written(out: Path, shard: Shard | None) -> list[Path]:
    """What stands in OUT at the end, by the run or by a shard."""
    if shard is None:
        return [out / name for name in WRITTEN]
    part = share_file(out, shard)
    return [part, statement_of(part)]


def judge_options(args: Args) -> JudgeOptions:
    """What replies are judged by."""
    return JudgeOptions(
        reward=args.reward,
        further=RewardArgs(reward_function=args.reward_function, length_penalty=args.length_penalty),
        reward_date_string=args.reward_date_string,
        reward_max_tokens=args.reward_max_tokens,
        gold_reward=args.gold_reward,
        gold_function=args.gold_function,
        fluency_model=args.fluency_model,
        fluency_date_string=args.fluency_date_string,
    )


def read(args: Args) -> list[PromptLine]:
    """The prompts.

    Raises:
      FileNotFoundError, ValueError: what is wrong with them.
    """
    prompts = prompting.read_prompt_file(args.prompts, args.column, args.system)
    for prompt in prompts:
        if prompt.messages is None:
            raise ValueError(f"prompt {prompt.id!r} is one of ids, and a reward is of conversations")
    prompting.refuse_own_numbers(prompts, "the methods")
    if len(prompts) < 2:
        raise ValueError(f"{args.prompts} has 1 prompt, and an interval takes 2 or more, better some hundred")
    return prompts


def methods_of(args: Args, calibration: Calibration | None) -> list[Method]:
    """What is compared.

    Raises:
      ValueError: thresholds that are needed and not there, or what `plan_methods` finds.
    """
    gated = [
        name for name in args.methods if name in NEED_THRESHOLDS and (name != "combined" or args.combined)
    ]
    if calibration is None and gated:
        others = [name for name in args.methods if name not in NEED_THRESHOLDS]
        others = [name for name in others if name != "random" or args.ratios]
        raise ValueError(
            f"the methods {' and '.join(gated)} need --thresholds FILE, which decode.calibrate makes; or "
            f"leave them out: --methods {' '.join(others) or 'base dense'}"
        )
    known = sorted(calibration.thresholds) if calibration is not None else sorted(args.ratios)
    unknown = sorted(set(args.ratios) - set(known))
    if unknown:
        raise ValueError(f"{args.thresholds} has thresholds for ratios {known}, not for {unknown}")
    ratios = list(args.ratios) or known
    if "random" in args.methods and not ratios:
        raise ValueError("random gates need --ratios, or --thresholds whose ratios they take")
    combined = None
    if args.combined and ratios:
        nearest = min(ratios, key=lambda ratio: abs(ratio - 0.2))
        combined = (nearest if args.combined_ratio is None else args.combined_ratio, args.combined)
    choosers: tuple[Chooser, ...] = ("reward", "value") if args.sia_chooser == "both" else (args.sia_chooser,)
    searches = [parse_search(text) for text in args.search]
    if calibration is not None:
        _check_gates(args, calibration, ratios)
    return plan_methods(
        ratios,
        args.best_of,
        combined,
        args.base_chooser,
        choosers,
        args.methods,
        searches,
        args.bounds,
    )


def _check_gates(args: Args, calibration: Calibration, ratios: Sequence[float]) -> None:
    """The file of thresholds has numbers of all gates that are asked for.

    Raises:
      ValueError: it has not.
    """
    for kind in GATES:
        lacking = [ratio for ratio in ratios if ratio not in calibration.gates.get(kind, {})]
        if kind in args.methods and lacking:
            option = " --learned-gate FILE" if kind == "learned" else ""
            raise ValueError(
                f"{calibration.path} has no numbers of {kind} gates for ratios {lacking}; make it anew: "
                f"decode.calibrate{option} --overwrite, or leave {kind} out of --methods"
            )
