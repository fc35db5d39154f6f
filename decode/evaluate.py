r"""Methods against each other on a file of prompts: rewards with intervals, shares, speed and FLOPs.

    python -m decode.calibrate --policy DIR --prompts validation.jsonl --out thresholds.json
    python -m decode.evaluate --policy DIR --value DIR --reward DIR --prompts test.jsonl \
        --thresholds thresholds.json --out out/evaluation

The methods: the policy alone (base), alone with best-of-n, steered everywhere (dense), steered where the
entropy reaches a calibrated threshold, steered at random at the share that the entropy gate came to, and
entropy-gated steering with best-of-n. All use one engine, the same random numbers for the same prompt and
seed, and are counted alike. The proxy reward is the reward model's; --gold adds the embedded world's own,
whose prompts are found by their ids.

OUT/replies.jsonl gets every reply as it comes: the same command, started again after Ctrl-C or a crash, goes
on from there, and one with other settings is refused. In the end OUT holds results.json, results.md (a
table) and pareto.png; --page writes all of it as a page, with what holds of the paper's three claims.
"""

import hashlib
import json
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

import sia_jax
from decode import runner
from decode.generate import plan
from decode.method_runner import Chosen, Job, MethodRunner, common_shape
from decode.runner import Row, SamplingArgs
from sia_jax.checkpoints.fingerprint import fingerprint_of_reward_model
from sia_jax.checkpoints.hub import checkpoint_name, resolve_checkpoint
from sia_jax.checkpoints.vocabulary import load_tokenizer
from sia_jax.cli import Count, File, Flag, Float, Folder, PromptFileArgs, command, goes_on, program
from sia_jax.data.chat import date_variables
from sia_jax.data.prompts import PromptLine
from sia_jax.evaluation.calibration import Calibration, read_calibration
from sia_jax.evaluation.claims import judge
from sia_jax.evaluation.comparison import Comparison
from sia_jax.evaluation.methods import Chooser, GateNumbers, Method, gate_numbers, plan_methods
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs
from sia_jax.files.writing import copy_file, make_folder, write_text
from sia_jax.reports.console import Terminal
from sia_jax.reports.evaluation import (
    claims_text,
    draw_pareto,
    evaluation_page,
    evaluation_table,
    with_pictures_named,
)
from sia_jax.reports.journal import Journal
from sia_jax.reports.progress import RunProgress
from sia_jax.reports.provenance import head_commit, last_commit, machine
from sia_jax.world import gold as world_gold
from sia_jax.world.prompts import Prompt, find_prompt


@dataclass(frozen=True, kw_only=True)
class Args(PromptFileArgs, SamplingArgs):
    """Compare methods."""

    value: Annotated[str, tyro.conf.arg(metavar="DIR")] = field()
    """The value model: a folder, or else a Hub id."""
    reward: Folder
    """The reward model, which gives the proxy reward: a folder, or else a Hub id."""
    reward_date_string: Annotated[str | None, tyro.conf.arg(metavar="DATE", help_behavior_hint="")] = None
    """The date that the reward model's chat template writes; must be given if it writes today's."""
    prompts: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """A file of prompts, as of decode.generate."""
    thresholds: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """What decode.calibrate wrote for this policy."""
    out: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """The folder of the results."""
    seeds: Count = 3
    """Replies to each prompt under each method: of seeds --seed, --seed + 1, ..."""
    ratios: tuple[float, ...] = ()
    """Only these of the file's ratios. Without: all."""
    best_of: tuple[int, ...] = (4, 8)
    """Numbers of replies that the policy alone chooses among."""
    combined: Count = 4
    """Number of replies that entropy-gated steering chooses among; 0: leave that out."""
    combined_ratio: Float = None
    """At which of the ratios. Without: the one nearest to 0.2."""
    base_chooser: Chooser = "reward"
    """What chooses among replies of the policy alone: the reward model, or the value of the last token."""
    sia_chooser: Literal["reward", "value", "both"] = "both"
    """What chooses among steered replies; both: each is a method of its own."""
    gold: Flag = False
    """Also give the gold reward. Only for prompts of the embedded world."""
    batch: Count = 64
    """Replies that are sampled at a time."""
    resamples: Count = 10_000
    """Of the bootstrap."""
    page: File = None
    """A .md file for the page; its picture goes beside it."""
    title: str = "Methods compared"
    """Of the page."""
    introduction: File = None
    """A file of Markdown that the page begins with."""
    appendix: File = None
    """Another one, such as entropy_study.md, that stands near the page's end; its pictures are copied too."""
    overwrite: Flag = False
    """Begin anew, whatever OUT holds."""

    preset: Annotated[Literal["paper", "official"], tyro.conf.Suppress] = "paper"
    threshold: Annotated[float | None, tyro.conf.Suppress] = None


def main(args: Args) -> None:
    """Evaluate; exits with 1 if something is wrong with options or files, and with 130 after Ctrl-C."""
    evaluation: _Evaluation | None = None

    def interrupted() -> str:
        begun = evaluation is not None and evaluation.journal.begun
        kept = f"what was done is in {Path(args.out) / 'replies.jsonl'}"
        return f"interrupted; {kept}, and {goes_on(args.overwrite and begun)}"

    smaller = f"lower --batch, now {args.batch}"
    with program("decode.evaluate", interrupted=interrupted, smaller=smaller) as messages:
        _check(args)
        with locked(folders=(Path(args.out),), files=(None if args.page is None else Path(args.page),)):
            evaluation = _Evaluation(args, messages)
            evaluation.run()


WRITTEN = ("replies.jsonl", "results.json", "results.md", "pareto.png")
"""What stands in OUT at the end."""

Unit = tuple[Method, int]
"""A method under a seed."""


class _Evaluation:
    """A run, from its options to its results.

    Raises:
      FileNotFoundError, ValueError: what is wrong with options and files; before any weights are loaded.
    """

    def __init__(self, args: Args, messages: Terminal):
        self.args, self.messages = args, messages
        self.prompts = _read(args)
        self.subjects = [_subject(prompt) for prompt in self.prompts] if args.gold else None
        self.policy = runner.prepare(args)
        self.ids = [runner.policy_ids(self.policy, prompt, args) for prompt in self.prompts]
        self.settings = _settings(args)
        self._template = _reward_template(args)
        self.calibration = read_calibration(Path(args.thresholds))
        self.calibration.check(self.settings)
        self.methods = _methods(args, self.calibration)
        self.seeds = range(args.seed, args.seed + args.seeds)
        self.records: dict[tuple[str, int, int], dict[str, Any]] = {}
        """By the method's key, the seed, and the index of the prompt."""
        self.journal = Journal(
            Path(args.out) / "replies.jsonl", self.settings, self._take, overwrite=args.overwrite
        )
        pages = () if args.page is None else (str(Path(args.page).parent),)
        self._commit = head_commit(ignored=pages)  # what it writes itself changes no reply
        self._machine = machine()
        if args.mesh != (1, 1, 1):
            self._machine += f", mesh {args.mesh}"

    @property
    def units(self) -> list[Unit]:
        """All that is to be done, in its order: an entropy gate before the random gate that follows it."""
        return [(method, seed) for method in self.methods for seed in self.seeds]

    def run(self) -> None:
        """Sample what is missing, then compare and report."""
        total = len(self.units) * len(self.prompts)
        missing = [unit for unit in self.units if not self._is_done(unit)]
        done = sum(
            (m.key, seed, i) in self.records for m, seed in self.units for i in range(len(self.prompts))
        )
        if done:
            self._say(f"{self.journal.path}: going on after {done:,} of {total:,} replies")
        if missing:
            with self.messages.status("loading the models"):
                models = runner.load_models(self.args)
                dtype = None if self.args.dtype == "config" else self.args.dtype
                reward = sia_jax.load_reward_model(
                    self.args.reward, dtype=dtype, mesh=runner.mesh_of(self.args)
                )
                rows = self._rows(models)
            progress = RunProgress(self.messages, total, done)
            with self.journal, progress:
                aside = progress.aside
                machine = MethodRunner(models, reward, self.args, self.args.batch, aside, self._template)
                for unit in self.units:
                    self._run_unit(unit, machine, rows, progress)
            self._say(f"{total - done:,} replies, {progress.rates()}")
        for unit in self.units:
            self._gate(unit)  # replies of another run's gates are refused, however complete
        self._report()

    def _rows(self, models: runner.Models) -> list[Row]:
        """The prompts as both models see them; key and threshold are each unit's own."""
        rows = []
        for prompt, own in zip(self.prompts, self.ids, strict=True):
            value_ids = runner.value_ids(models, prompt, own, self.args)
            rows.append(Row(own, value_ids, runner.own_key(0), 0.0))
        return rows

    def _run_unit(self, unit: Unit, machine: MethodRunner, rows: list[Row], progress: RunProgress) -> None:
        method, seed = unit
        gate = self._gate(unit)
        if self._is_done(unit):
            return
        batches = plan(rows, min(len(rows), machine.rows(method)), by_length=True)
        shapes = common_shape([batch.shape for batch in batches])
        for batch, shape in zip(batches, shapes, strict=True):
            keys = {index: (method.key, seed, index) for index in batch.indices}
            if all(key in self.records for key in keys.values()):
                continue
            jobs = [self._job(rows, seed, index, gate) for index in batch.indices]
            new = 0
            chosen = machine.run(method, gate, jobs, shape)
            for index, one in zip(batch.indices, chosen, strict=True):
                if keys[index] not in self.records:
                    self.journal.write(self._record(unit, gate, index, one))
                    new += 1
            progress.advance(new, sum(one.sampled_tokens for one in chosen))

    def _job(self, rows: list[Row], seed: int, index: int, gate: GateNumbers) -> Job:
        messages = self.prompts[index].messages
        assert messages is not None
        key = runner.prompt_key(seed, index)
        return Job(replace(rows[index], key=key, threshold=gate.threshold), messages)

    def _gate(self, unit: Unit) -> GateNumbers:
        """The gate of a unit.

        Raises:
          ValueError: replies that are there were made with another one.
        """
        method, seed = unit
        threshold = realised = None
        if method.kind == "entropy":
            assert method.ratio is not None
            threshold = self.calibration.thresholds[method.ratio]
        if method.kind == "random":
            key = Method("entropy", method.ratio).key
            steered = [self.records[key, seed, index] for index in range(len(self.prompts))]
            tokens = sum(record["sampled_tokens"] for record in steered)
            realised = sum(record["sampled_junctions"] for record in steered) / max(tokens, 1)
        gate = gate_numbers(method, threshold, realised)
        ours = {"threshold": runner.json_threshold(gate.threshold), "rate": gate.rate}
        for index in range(len(self.prompts)):
            record = self.records.get((method.key, seed, index))
            theirs = ours if record is None else {name: record[name] for name in ours}
            if theirs != ours:
                raise ValueError(
                    f"{self.journal.path}: {method.name} under seed {seed} was made with {theirs} (now "
                    f"{ours}); name another folder, or pass --overwrite"
                )
        return gate

    def _is_done(self, unit: Unit) -> bool:
        method, seed = unit
        return all((method.key, seed, index) in self.records for index in range(len(self.prompts)))

    def _record(self, unit: Unit, gate: GateNumbers, index: int, chosen: Chosen) -> dict[str, Any]:
        (method, seed), reply = unit, chosen.reply
        gold = None
        if self.subjects is not None:
            gold = world_gold.gold_reward(self.subjects[index], reply.text)
        return {
            "method": method.key,
            "seed": seed,
            "index": index,
            "id": self.prompts[index].id,
            "threshold": runner.json_threshold(gate.threshold),
            "rate": gate.rate,
            "text": reply.text,
            "finish_reason": reply.finish_reason.name.lower(),
            "length": len(reply.tokens),
            "junctions": reply.num_junctions,
            "shifted": reply.num_shifted,
            "gold": gold,
            "proxy": chosen.proxy,
            "branch": chosen.branch,
            "scores": chosen.scores,
            "sampled_tokens": chosen.sampled_tokens,
            "sampled_junctions": chosen.sampled_junctions,
            "seconds": chosen.seconds,
            "flops": chosen.flops.to_json(),
            "commit": self._commit,
            "machine": self._machine,
        }

    def _take(self, record: dict[str, Any]) -> Hashable:
        """Keep a record.

        Raises:
          KeyError: it does not say where it was made.
          ValueError: it is of another prompt.
        """
        _ = record["commit"], record["machine"]
        key = (record["method"], record["seed"], record["index"])
        if not 0 <= key[2] < len(self.prompts) or self.prompts[key[2]].id != record["id"]:
            raise ValueError(f"prompt {record['id']!r} is not the input's prompt at place {key[2]}")
        self.records[key] = record
        return key

    def _report(self) -> None:
        """Compare, and write all that is made of it."""
        args, out = self.args, Path(self.args.out)
        own = {
            method.key: [self.records[method.key, s, i] for s in self.seeds for i in range(len(self.prompts))]
            for method in self.methods
        }
        with self.messages.status("comparing"):
            results = self._results(Comparison(self.methods, own, resamples=args.resamples))
            table = evaluation_table(results)
            write_text(out / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
            write_text(out / "results.md", f"{table}\n{claims_text(results)}")
            draw_pareto(results, out / "pareto.png")
            if args.page is not None:
                self._write_page(results, Path(args.page))
        for claim in results["claims"][results["measures"][0]]:
            self._say(f"{claim['name']}: {claim['verdict']}. {claim['statement']}")
        self._say(
            f"table, picture and numbers in {args.out}" + (f", page in {args.page}" if args.page else "")
        )

    def _results(self, comparison: Comparison) -> dict[str, Any]:
        args = self.args
        records = [record for measured in comparison.measured for record in measured.records]
        results = {
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "command": command("decode.evaluate", replace(args, overwrite=False)),
            "commit": self._commit,
            "commits": sorted({record["commit"] for record in records}),
            "machines": sorted({record["machine"] for record in records}),
            "settings": self.settings,
            "calibration": self.calibration.to_json(),
            "prompts": {
                "file": Path(args.prompts).name,
                "count": len(self.prompts),
                "sha256": self.settings["prompts_sha256"],
            },
            "seeds": list(self.seeds),
            "resamples": args.resamples,
            "measures": list(comparison.measures),
            "rows": [comparison.row(measured) for measured in comparison.measured],
            "claims": {
                measure: [claim.to_json() for claim in judge(comparison, measure)]
                for measure in comparison.measures
            },
        }
        return results | ({"world": _world_commits()} if args.gold else {})

    def _write_page(self, results: dict[str, Any], page: Path) -> None:
        picture = _picture(page)
        make_folder(page.parent)
        copy_file(Path(self.args.out) / "pareto.png", picture)
        introduction = appendix = ""
        if self.args.introduction is not None:
            introduction = Path(self.args.introduction).read_text(encoding="utf-8")
        if self.args.appendix is not None:
            source = Path(self.args.appendix)
            appendix, names = with_pictures_named(source.read_text(encoding="utf-8"), f"{page.stem}-")
            for old, new in names.items():
                copy_file(source.parent / old, page.with_name(new))
        text = evaluation_page(
            results,
            title=self.args.title,
            introduction=introduction,
            picture=picture.name,
            appendix=appendix,
        )
        write_text(page, text)

    def _say(self, text: str) -> None:
        self.messages.print(text, highlight=False, soft_wrap=True)


def _picture(page: Path) -> Path:
    return page.with_name(f"{page.stem}-pareto.png")


def _check(args: Args) -> None:
    runner.check_options(args)
    for name in ("seeds", "batch", "resamples"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be 1 or more, got {getattr(args, name)}")
    if args.combined < 0 or args.combined == 1:
        raise ValueError(f"--combined must be 2 or more, or 0 for none, got {args.combined}")
    if args.page is not None and Path(args.page).suffix != ".md":
        raise ValueError(f"--page must be a .md file, got {args.page}")
    for name in ("introduction", "appendix"):
        file = getattr(args, name)
        if file is not None and not Path(file).is_file():
            raise FileNotFoundError(f"--{name}: there is no file {file}")
    out, page = Path(args.out), None if args.page is None else Path(args.page)
    check_outputs(
        inputs={
            "--prompts": args.prompts,
            "--thresholds": args.thresholds,
            "--reward": args.reward,
            "--introduction": args.introduction,
            "--appendix": args.appendix,
            **runner.model_folders(args),
        },
        files={
            **{f"--out's {name}": out / name for name in WRITTEN},
            "--page": page,
            "--page's picture": None if page is None else _picture(page),
        },
    )


def _read(args: Args) -> list[PromptLine]:
    prompts = runner.read_prompt_file(args.prompts, args.column, args.system)
    for prompt in prompts:
        if prompt.messages is None:
            raise ValueError(f"prompt {prompt.id!r} is one of ids, and a reward model scores conversations")
        if prompt.seed is not None or prompt.threshold is not None:
            raise ValueError(f"prompt {prompt.id!r} brings a seed or a threshold, which the methods set")
    if len(prompts) < 2:
        raise ValueError(f"{args.prompts} has 1 prompt, and an interval takes 2 or more, better some hundred")
    return prompts


def _subject(prompt: PromptLine) -> Prompt:
    """The world's prompt of a line.

    Raises:
      ValueError: it is none of them, or has another text.
    """
    try:
        found = find_prompt(str(prompt.id))
    except KeyError as error:
        raise ValueError(f"--gold is for prompts of the embedded world: {error.args[0]}") from None
    if prompt.messages != found.messages:
        raise ValueError(f"prompt {prompt.id!r} has another text than the world's: {found.text!r}")
    return found


def _settings(args: Args) -> dict[str, Any]:
    """What the replies and their rewards depend on, but for method and seed."""
    settings = {name: x for name, x in runner.settings(args).items() if name not in ("threshold", "seed")}
    folder = resolve_checkpoint(args.reward)
    return settings | {
        "reward": checkpoint_name(args.reward),
        "reward_fingerprint": fingerprint_of_reward_model(folder)[:16],
        "reward_date_string": args.reward_date_string,
        "prompts_sha256": hashlib.sha256(Path(args.prompts).read_bytes()).hexdigest(),
        "system": args.system,
        "gold": args.gold,
        "base_chooser": args.base_chooser,
    }


def _reward_template(args: Args) -> dict[str, str]:
    """Variables of the reward model's chat template.

    Raises:
      ValueError: no tokenizer, or a template that writes today's date.
    """
    folder = resolve_checkpoint(args.reward)
    tokenizer = load_tokenizer(folder)
    if tokenizer is None:
        raise ValueError(f"{folder} has no tokenizer; copy it from the original checkpoint")
    return date_variables(tokenizer, args.reward_date_string, str(folder), "--reward-date-string")


def _methods(args: Args, calibration: Calibration) -> list[Method]:
    known = sorted(calibration.thresholds)
    unknown = sorted(set(args.ratios) - set(known))
    if unknown:
        raise ValueError(f"{args.thresholds} has thresholds for ratios {known}, not for {unknown}")
    ratios = list(args.ratios) or known
    combined = None
    if args.combined:
        nearest = min(ratios, key=lambda ratio: abs(ratio - 0.2))
        combined = (nearest if args.combined_ratio is None else args.combined_ratio, args.combined)
    choosers: tuple[Chooser, ...] = ("reward", "value") if args.sia_chooser == "both" else (args.sia_chooser,)
    return plan_methods(ratios, args.best_of, combined, args.base_chooser, choosers)


def _world_commits() -> dict[str, str]:
    """When grammar, gold reward and splits of the world were fixed."""
    folder = Path(world_gold.__file__).parent
    parts = {
        "the world's gold reward": ("gold.py", "reading.py"),
        "its prompts and splits": (
            *("prompts.py", "activities.py", "circumstances.py", "mischief.py", "facts.py", "streams.py"),
        ),
        "its grammar": (
            *("grammar.py", "junctions.py", "phrases.py", "helpful.py", "harmless.py", "honest.py"),
        ),
    }
    return {what: last_commit([folder / name for name in names], folder) for what, names in parts.items()}


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
