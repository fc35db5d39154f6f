r"""Does high entropy predict value spread? What steering at junctions takes for granted, measured.

    # On the embedded world, whose gold reward reads every finished text (about 5 minutes on 2 cores):
    python -m decode.entropy_study --policy sia_jax/world/models/policy --value sia_jax/world/models/value \
        --prompts sia_jax/world/models/prompts/test.jsonl --gold-function sia_jax.world.rewards:gold \
        --out out/entropy

    # The part that needs no gold reward, for any policy and value model:
    python -m decode.entropy_study --policy Qwen/Qwen3-1.7B-Base --value out/vm-1.7b/best \
        --prompts prompts.jsonl --continuations 0 --out out/entropy

1. The policy alone, at temperature 1, replies to each prompt. At every position there are the C candidates,
   their entropy (the one that the gate sees) and their values. The value spread is the standard deviation of
   the candidates' values under the policy's distribution, renormalised over the candidates.
2. Positions *branch* where two or more candidates have a probability of --floor. Those are parted into --bins
   bins of entropy with as many in each, and as many are drawn from each bin. There each such candidate (at
   most --most) is followed by --continuations replies of the policy alone, and --gold-function, a reward
   that is a program, reads the finished texts. The gold variance is the variance of the candidates' expected
   rewards under the policy's distribution, less what noise adds. Where a position does not branch it is 0.
   Where one candidate has nearly all mass, entropy and both spreads are small whatever the candidates are
   worth. So it is also reported what entropy says of the spread of values drawn by lot, and of spreads with
   equal weights.
3. Correlations are those of all positions: a drawn one counts as often as its bin has members for each one
   drawn. Intervals are of 95%, from a bootstrap that draws prompts.

The folder gets study.jsonl (replies and rewards, with which a run that was stopped goes on),
entropy_study.json (figures, and every position), entropy_study.md and entropy_study.png. --threshold only
says what counts as high: the same command with another one samples nothing anew.
"""

import json
import math
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sia_jax.data.prompts import PromptLine
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs
from sia_jax.files.writing import write_text
from sia_jax.runs import preflight, prompting, runner
from sia_jax.runs.cli import (
    Count,
    Flag,
    Folder,
    Name,
    PromptFileArgs,
    check_texts,
    check_used,
    command,
    goes_on,
    program,
    read_options,
)
from sia_jax.runs.console import Terminal
from sia_jax.runs.engines import Row, make_request
from sia_jax.runs.interruption import Interruption
from sia_jax.runs.options import SamplingArgs
from sia_jax.runs.progress import RunProgress, waiting
from sia_jax.runs.rewards import RewardSource, find_judge
from sia_jax.studies.entropy.page import plot, section
from sia_jax.studies.entropy.positions import Place, as_drawn, describe, draw_places
from sia_jax.studies.entropy.records import (
    StudyJournal,
    position_record,
    positions_json,
    reply_record,
    summary_json,
)
from sia_jax.studies.entropy.sampling import (
    Continuations,
    Task,
    Values,
    continuing_engine,
    in_groups,
    replying_engine,
)
from sia_jax.studies.entropy.study import Drawn, Population, study
from sia_jax.text.forms import Prompting

JOURNAL, NAME, ENDS = "study.jsonl", "entropy_study", (".json", ".md", ".png")


@dataclass(frozen=True, kw_only=True)
class Args(PromptFileArgs):
    """Study entropy and value spread."""

    policy: Folder
    """The language model: a folder, or else a Hub id."""
    value: Folder
    """The value model: a folder, or else a Hub id."""
    value_backbone: Name = None
    """What the value model was trained on, if neither the policy nor a backbone/ in its folder."""
    check_base: bool = True
    """Whether to refuse a value model that was trained on another base."""
    dtype: Literal["config", "float32", "bfloat16"] = "config"
    """Of the weights; config: as their config.json says. float32 is the fast one on a CPU."""
    prompts: Folder
    """A file of prompts, as of decode.generate."""
    out: Folder
    """Where everything is written."""
    overwrite: Flag = False
    """Begin anew."""

    threshold: float = 1.0
    """Entropy in nats from which it counts as high."""
    num_candidates: Count = 10
    """C, the candidates of a position."""
    max_new_tokens: Count = 160
    """Length at which a reply is cut."""
    positions: Count = 240
    """Positions whose candidates are followed to the end of the reply."""
    bins: Count = 8
    """Of entropy, from each of which as many positions are drawn."""
    floor: float = 0.02
    """Probability, among the candidates, from which one is followed."""
    most: Count = 6
    """Candidates of a position that are followed."""
    continuations: Count = 24
    """Replies that follow each candidate; 0: values alone, no gold reward."""
    gold_function: Annotated[str | None, tyro.conf.arg(metavar="FUNCTION", help_behavior_hint="")] = None
    """The gold reward, as MODULE:FUNCTION; docs/reference.md says what it takes. Not with 0 continuations."""
    batch: Count = 288
    """Replies at a time. More is faster until the memory is full."""
    resamples: Count = 1000
    """Of the bootstrap."""
    seed: Count = 0
    """Of everything random."""
    prompt_form: Literal["auto", "chat", "raw"] = "auto"
    """chat: the policy's chat template; raw: plain text for base models; auto: the template, if the policy
    has one and is none of the paper's base models."""
    thinking: Flag = False
    """Let Qwen3 think before it replies."""
    date_string: Annotated[str | None, tyro.conf.arg(metavar="DATE", help_behavior_hint="")] = None
    """The date that the chat template writes, such as "26 Jul 2024"; must be given if it writes today's."""

    @property
    def sampling(self) -> SamplingArgs:
        """The options that `sia_jax.runs.runner` knows, at temperature 1."""
        return SamplingArgs(
            policy=self.policy,
            value=self.value,
            value_backbone=self.value_backbone,
            check_base=self.check_base,
            dtype=self.dtype,
            num_candidates=self.num_candidates,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
            prompt_form=self.prompt_form,
            thinking=self.thinking,
            date_string=self.date_string,
        )


def main(args: Args) -> None:
    """Study; exits with 1 if something is wrong with options or files, and with 130 or 143 when stopped."""
    kept = f"interrupted; {Path(args.out) / JOURNAL} has what is done, and {goes_on(args.overwrite)}"
    smaller = f"lower --batch, now {args.batch}"
    with program("decode.entropy_study", interrupted=lambda: kept, smaller=smaller) as console:
        _check(args)
        with locked(folders=(Path(args.out),)):
            gold = find_judge(None, args.gold_function)
            prompts = prompting.read_prompt_file(args.prompts, args.column)
            prompting.refuse_own_numbers(prompts, "the options")
            policy = runner.prepare(args.sampling)
            models = runner.Models(policy, preflight.value_without_weights(args.sampling, policy))
            settled = prompting.find_prompting(policy, args.sampling)
            prompting.announce(settled, prompts, console)
            checks = [] if gold is None else gold.checks(prompts, (), None, args.max_new_tokens)
            ids = preflight.policy_ids(prompts, models, args.sampling, settled, checks)
            settings = _settings(args, settled)
            if gold is not None:
                settings["gold"] = gold.described()
            journal = StudyJournal(Path(args.out) / JOURNAL, settings, prompts, overwrite=args.overwrite)
            rows = [
                Row(own, value_ids, runner.prompt_key(args.seed, prompt.index), math.inf)
                for prompt, own in zip(prompts, ids, strict=True)
                for value_ids in [prompting.value_ids(models, prompt, own, args.sampling)]
            ]
            with Interruption() as interruption, journal:
                found = _Sampling(args, prompts, rows, gold, journal, interruption, console).run()
            if found is None:
                console.say(kept)
                sys.exit(interruption.exit_status)
            _report(args, prompts, journal, *found, console)


@dataclass(frozen=True)
class _Sampling:
    """Samples what the journal lacks."""

    args: Args
    prompts: list[PromptLine]
    rows: list[Row]
    gold: RewardSource | None
    journal: StudyJournal
    interruption: Interruption
    console: Terminal

    def run(self) -> tuple[list[Place], Population, list[Drawn]] | None:
        """All positions, and those that were drawn; None: it was stopped."""
        args, replies, rewards = self.args, self.journal.replies, self.journal.rewards
        missing = [index for index in range(len(self.rows)) if index not in replies]
        if missing:
            self._reply(missing)
        if not self._wanted():
            return None
        places, population = describe(replies, args.floor, args.most, args.bins, args.seed)
        if not args.continuations:
            return places, population, []
        chosen, weights = draw_places(population, args.positions, args.bins, args.seed)
        tasks = []
        for place in (places[number] for number in chosen):
            reply = replies[place.prompt]
            own = reply.chosen(place.position, args.floor, args.most)
            tasks.append(Task(place, self.rows[place.prompt], reply, own))
        left = [task for task in tasks if task.place not in rewards]
        if left:
            self._continue(left, len(tasks))
        if not self._wanted():
            return None
        return places, population, as_drawn(places, chosen, weights, replies, rewards, args.floor, args.most)

    def _wanted(self) -> bool:
        return not self.interruption.wanted

    @cached_property
    def _models(self) -> runner.Models:
        with waiting(self.console, "loading the models"):
            return runner.load_models(self.args.sampling)

    def _reply(self, missing: list[int]) -> None:
        """The policy's own replies to these prompts, and the values of all their candidates."""
        args, rows, value = self.args, self.rows, self._models.value
        assert value is not None
        # The value model reads C candidates of each reply at a time.
        size = min(max(1, args.batch // args.num_candidates), len(rows))
        values = Values(value, rows, args.max_new_tokens, size)
        requests = [make_request(rows[index], args.sampling) for index in missing]
        with (
            RunProgress(self.console, len(rows), len(rows) - len(missing)) as progress,
            replying_engine(self._models, args.sampling, min(args.batch, len(rows)), rows) as engine,
        ):
            with progress.aside("compiling the sampler"):
                engine.warmup(requests)
            for group in in_groups(engine.as_completed(requests), size, self._wanted):
                replies = [(missing[place], reply) for place, reply in group]
                found = values.of([(rows[index], reply) for index, reply in replies])
                for (index, reply), own in zip(replies, found, strict=True):
                    self.journal.write(reply_record(self.prompts[index], reply, own))
                progress.advance(len(replies), sum(len(reply.tokens) for _, reply in replies))

    def _continue(self, tasks: list[Task], total: int) -> None:
        """Rewards of these positions, of so many."""
        args, tokenizer = self.args, self._models.policy.tokenizer
        assert self.gold is not None
        (reward,) = self.gold.functions
        with (
            RunProgress(self.console, total, total - len(tasks), "positions") as progress,
            continuing_engine(self._models, args.sampling, args.batch, self.rows) as engine,
        ):
            continuations = Continuations(engine, args.sampling, args.continuations)
            with progress.aside("compiling what goes on with replies"):
                continuations.warm_up(tasks)
            for task, found in continuations.run(tasks):
                prompt = self.prompts[task.place.prompt]
                self.journal.write(position_record(prompt, task, found, reward, tokenizer))
                progress.advance(1, sum(len(ids) for each in found for ids in each))
                if not self._wanted():
                    return


def _report(
    args: Args,
    prompts: list[PromptLine],
    journal: StudyJournal,
    places: list[Place],
    population: Population,
    drawn: list[Drawn],
    console: Terminal,
) -> None:
    with waiting(console, "drawing prompts again and again"):
        figures, measured = study(
            population, drawn, threshold=args.threshold, resamples=args.resamples, seed=args.seed
        )
    summary = {
        "kind": NAME,
        "command": command("decode.entropy_study", replace(args, overwrite=False)),
        "settings": journal.settings,
        "threshold": args.threshold,
        **summary_json(journal.replies, population, drawn, figures),
    }
    out = Path(args.out)
    lines = positions_json([prompt.id for prompt in prompts], places, population, drawn, measured)
    text = json.dumps(summary | {"each": lines}, allow_nan=False, ensure_ascii=False)
    write_text(out / f"{NAME}.json", text + "\n")
    page = section(summary, picture=f"{NAME}.png")
    write_text(out / f"{NAME}.md", page)
    plot(summary, population, drawn, measured, out / f"{NAME}.png")
    Terminal().say(page)
    console.say(f"written to {out}: {NAME}.json, {NAME}.md, {NAME}.png")


def _check(args: Args) -> None:
    check_texts(args)
    runner.check_options(args.sampling)
    out = Path(args.out)
    check_outputs(
        inputs={"--prompts": args.prompts, **runner.model_folders(args.sampling)},
        files={f"--out's {name}": out / name for name in (JOURNAL, *(f"{NAME}{end}" for end in ENDS))},
    )
    for name in ("positions", "bins", "most", "batch", "resamples", "num_candidates"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be 1 or more, got {getattr(args, name)}")
    if args.continuations < 0 or args.continuations in (1, 2, 3):
        raise ValueError(
            "--continuations must be 4 or more, so that noise can be told in both halves of them, or 0 for "
            f"values alone; got {args.continuations}"
        )
    if args.continuations and args.gold_function is None:
        raise ValueError(
            "continuations need a reward of the finished texts: give --gold-function MODULE:FUNCTION, or for "
            "values alone --continuations 0"
        )
    if not args.continuations:
        check_used(args, ("gold_function",), "--continuations N")
    if args.most < 2:
        raise ValueError(f"--most must be 2 or more, or nothing can differ; got {args.most}")
    if not 0 < args.floor <= 0.5:
        raise ValueError(f"--floor must lie in (0, 0.5], or no two candidates reach it; got {args.floor}")
    if not math.isfinite(args.threshold):
        raise ValueError(f"--threshold must be a finite number of nats, got {args.threshold}")
    if args.batch < args.most * args.continuations:
        raise ValueError(
            f"--batch must hold a position: --most x --continuations = {args.most * args.continuations}, "
            f"got {args.batch}"
        )


def _settings(args: Args, settled: Prompting | None) -> dict[str, Any]:
    """What replies and rewards depend on, but for the prompts. Not --batch, which changes none."""
    names = (
        *("policy", "policy_fingerprint", "policy_files", "value", "value_fingerprint", "value_files"),
        *("value_backbone", "value_backbone_fingerprint", "value_backbone_files", "dtype"),
        *("num_candidates", "max_new_tokens", "seed", "prompt_form", "thinking", "date_string"),
    )
    whole = runner.run_identity(args.sampling, settled)
    own = {name: getattr(args, name) for name in ("positions", "bins", "floor", "most", "continuations")}
    return {name: whole[name] for name in names} | own


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
