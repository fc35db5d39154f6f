r"""Methods against each other on a file of prompts: rewards with intervals, shares, speed and FLOPs.

    python -m decode.calibrate --policy DIR --prompts validation.jsonl --out thresholds.json
    python -m decode.evaluate --policy DIR --value DIR --reward DIR --prompts test.jsonl \
        --thresholds thresholds.json --out out/evaluation

    # Without thresholds: what needs none.
    python -m decode.evaluate --policy DIR --value DIR --reward DIR --prompts test.jsonl \
        --methods base best-of dense --out out/evaluation

The methods: the policy alone (base), alone with best-of-n, steered everywhere (dense), steered where the
entropy reaches a calibrated threshold, steered at random at the share that the entropy gate came to, and
entropy-gated steering with best-of-n. All use one engine, the same random numbers for the same prompt and
seed, and are counted alike. The proxy reward is the reward model's; --gold adds the embedded world's own,
whose prompts are found by their ids. Every prompt is checked against all three models before anything is
sampled. A reply that the reward model cannot score is counted, and left out with its partners.

OUT/replies.jsonl gets every reply as it comes: the same command, started again after Ctrl-C or a crash, goes
on from there, and one with other settings is refused. In the end OUT holds results.json, results.md (a
table) and pareto.png; --page writes all of it as a page, with what holds of the paper's three claims.
"""

import hashlib
import json
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sia_jax
from decode.evaluate_options import Args, check_options, methods_of, read
from sia_jax.checkpoints.fingerprint import fingerprint_of_reward_model
from sia_jax.checkpoints.hub import checkpoint_name, resolve_checkpoint
from sia_jax.evaluation.calibration import read_calibration
from sia_jax.evaluation.claims import to_json
from sia_jax.evaluation.comparison import Comparison
from sia_jax.evaluation.method_runner import Chosen, Job, MethodRunner
from sia_jax.evaluation.methods import GateNumbers, plan_text
from sia_jax.evaluation.records import Records, Unit, make_record
from sia_jax.evaluation.statistics import FEWEST
from sia_jax.files.lock import locked
from sia_jax.files.writing import write_text
from sia_jax.reports.evaluation import claims_text, draw_pareto, evaluation_table, write_page
from sia_jax.runs import preflight, prompting, runner
from sia_jax.runs.cli import command, goes_on, program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.engines import Row
from sia_jax.runs.journal import Journal
from sia_jax.runs.progress import RunProgress, clock, waiting
from sia_jax.runs.provenance import head_commit, host_description
from sia_jax.text.forms import Prompting
from sia_jax.world.gold import gold_reward
from sia_jax.world.known import world_prompts
from sia_jax.world.provenance import world_commits


def main(args: Args) -> None:
    """Evaluate; exits with 1 if something is wrong with options or files, and with 130 after Ctrl-C."""
    evaluation: _Evaluation | None = None

    def interrupted() -> str:
        begun = evaluation is not None and evaluation.journal.begun
        kept = f"what was done is in {Path(args.out) / 'replies.jsonl'}"
        return f"interrupted; {kept}, and {goes_on(args.overwrite and begun)}"

    smaller = f"lower --batch, now {args.batch}"
    with program("decode.evaluate", interrupted=interrupted, smaller=smaller) as console:
        check_options(args)
        with locked(folders=(Path(args.out),), files=(None if args.page is None else Path(args.page),)):
            evaluation = _Evaluation(args, console)
            evaluation.run()


class _Evaluation:
    """A run, from its options to its results.

    Raises:
      FileNotFoundError, ValueError: what is wrong with options and files; before any weights are loaded.
    """

    def __init__(self, args: Args, console: Terminal):
        self.args, self.console = args, console
        self.prompts = read(args)
        self.subjects = world_prompts(self.prompts, "--gold", "leave it out") if args.gold else None
        self.policy = runner.prepare(args)
        self._prompting = settled = prompting.find_prompting(self.policy, args)
        prompting.announce(settled, self.prompts, console)
        self._template = preflight.reward_template(args.reward, args.reward_date_string)
        without_weights = runner.Models(self.policy, preflight.value_without_weights(args, self.policy))
        scored = preflight.reward_check(
            args.reward, args.reward_max_tokens, self._template, args.max_new_tokens
        )
        self.ids = preflight.policy_ids(self.prompts, without_weights, args, settled, scored)
        self.settings = _settings(args, settled, self._template)
        self.calibration = None
        if args.thresholds is not None:
            self.calibration = read_calibration(Path(args.thresholds))
            self.calibration.check(self.settings)
        self.methods = methods_of(args, self.calibration)
        self.records = Records(
            self.methods,
            range(args.seed, args.seed + args.seeds),
            [prompt.id for prompt in self.prompts],
            {} if self.calibration is None else self.calibration.thresholds,
            gold=args.gold,
        )
        self.journal = Journal(
            Path(args.out) / "replies.jsonl", self.settings, self.records.take, overwrite=args.overwrite
        )
        pages = () if args.page is None else (Path(args.page).absolute().parent,)
        self._commit = head_commit(ignored=pages)  # what it writes itself changes no reply
        self._host = host_description()
        if args.mesh != (1, 1, 1):
            self._host += f", mesh {args.mesh}"

    def run(self) -> None:
        """Sample what is missing, then compare and report."""
        units, total = self.records.units, self.records.total
        missing = sum(len(self.records.missing(unit)) for unit in units)
        done = total - missing
        plan = plan_text(self.methods, self.args.seeds, len(self.prompts))
        self._say(f"{plan} How long that takes is said after the first batch.")
        for line in self._cautions():
            self._say(line)
        if done:
            self._say(f"{self.journal.path}: going on after {done:,} of {total:,} replies")
        if missing:
            with waiting(self.console, "loading the models"):
                models = runner.load_models(self.args)
                dtype = None if self.args.dtype == "config" else self.args.dtype
                reward = sia_jax.load_reward_model(self.args.reward, dtype=dtype, mesh=self.args.make_mesh())
            rows = self._rows(models)
            progress = RunProgress(self.console, total, done, work=self.records.work)
            with self.journal, progress:
                methods = MethodRunner(
                    models,
                    reward,
                    self.args,
                    rows,
                    self.args.batch,
                    progress.aside,
                    self._template,
                    self.args.reward_max_tokens,
                )
                with closing(methods):
                    for unit in units:
                        self._run_unit(unit, methods, rows, progress)
            self._say(f"{missing:,} replies, {progress.rates()}")
        for unit in units:
            self._gate(unit)  # replies of another run's gates are refused, however complete
        self._report()

    def _cautions(self) -> list[str]:
        """What should be known before hours are spent."""
        found = []
        if len(self.prompts) < FEWEST:
            found.append(
                f"{len(self.prompts)} prompts: no intervals and no claims, which take {FEWEST} or more, "
                "better some hundred"
            )
        if self.calibration is not None:
            asked = {method.ratio for method in self.methods if method.kind == "entropy"}
            found += [line for ratio, line in self.calibration.cautions().items() if ratio in asked]
        return found

    def _rows(self, models: runner.Models) -> list[Row]:
        """The prompts as both models see them; key and threshold are each unit's own."""
        # Now by all that the value model's files say.
        preflight.policy_ids(self.prompts, models, self.args, self._prompting)
        rows = []
        for prompt, own in zip(self.prompts, self.ids, strict=True):
            value_ids = prompting.value_ids(models, prompt, own, self.args)
            rows.append(Row(own, value_ids, runner.own_key(0), 0.0))
        return rows

    def _run_unit(self, unit: Unit, methods: MethodRunner, rows: list[Row], progress: RunProgress) -> None:
        (method, seed), gate, missing = unit, self._gate(unit), self.records.missing(unit)
        jobs = [self._job(rows[index], seed, index) for index in missing]
        for chosen in methods.run(method, gate, jobs) if jobs else ():
            first = progress.is_new
            for place, one in chosen:
                self._write(unit, gate, missing[place], one)
            tokens = sum(one.sampled_tokens for _, one in chosen)
            progress.advance(len(chosen), tokens, len(chosen) * method.work)
            if first and (left := progress.left()) is not None:
                self._say(f"about {clock(left)} left, by the time of the first batch, and without compiling")

    def _job(self, row: Row, seed: int, index: int) -> Job:
        messages = self.prompts[index].messages
        assert messages is not None
        return Job(replace(row, key=runner.prompt_key(seed, index)), messages)

    def _gate(self, unit: Unit) -> GateNumbers:
        """The gate of a unit.

        Raises:
          ValueError: replies that are there were made with another one.
        """
        try:
            return self.records.gate(unit)
        except ValueError as error:
            raise ValueError(
                f"{self.journal.path}: {error}; name another folder, or pass --overwrite"
            ) from None

    def _write(self, unit: Unit, gate: GateNumbers, index: int, chosen: Chosen) -> None:
        gold = None
        if self.subjects is not None:
            gold = gold_reward(self.subjects[index], chosen.reply.text)
        record = make_record(unit, gate, index, self.prompts[index].id, chosen, gold)
        self.journal.write(record | {"commit": self._commit, "machine": self._host})

    def _report(self) -> None:
        """Compare, and write all that is made of it."""
        args, out = self.args, Path(self.args.out)
        own = {method.key: self.records.of(method) for method in self.methods}
        with waiting(self.console, "comparing"):
            results = self._results(Comparison(self.methods, own, resamples=args.resamples))
            table = evaluation_table(results)
            write_text(out / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
            write_text(out / "results.md", f"{table}\n{claims_text(results)}")
            draw_pareto(results, out / "pareto.png")
            if args.page is not None:
                write_page(
                    results,
                    Path(args.page),
                    out / "pareto.png",
                    title=args.title,
                    introduction=None if args.introduction is None else Path(args.introduction),
                    appendix=None if args.appendix is None else Path(args.appendix),
                )
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
            "calibration": None if self.calibration is None else self.calibration.to_json(),
            "prompts": {
                "file": Path(args.prompts).name,
                "count": len(self.prompts),
                "sha256": self.settings["prompts_sha256"],
            },
            "seeds": list(self.records.seeds),
            "resamples": args.resamples,
            **to_json(comparison),
        }
        return results | ({"world": world_commits()} if args.gold else {})

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


def _settings(args: Args, settled: Prompting | None, reward_template: dict[str, str]) -> dict[str, Any]:
    """What the replies and their rewards depend on, but for method and seed."""
    whole = runner.run_identity(args, settled)
    settings = {name: x for name, x in whole.items() if name not in ("threshold", "seed")}
    folder = resolve_checkpoint(args.reward)
    return settings | {
        "reward": checkpoint_name(args.reward),
        "reward_fingerprint": fingerprint_of_reward_model(folder)[:16],
        "reward_date_string": reward_template.get("date_string"),
        "prompts_sha256": hashlib.sha256(Path(args.prompts).read_bytes()).hexdigest(),
        "system": args.system,
        "reward_max_tokens": args.reward_max_tokens,
        "gold": args.gold,
        "base_chooser": args.base_chooser,
    }


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
