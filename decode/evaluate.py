r"""Methods against each other on a file of prompts: rewards with intervals, shares, speed and FLOPs.

    python -m decode.calibrate --policy DIR --prompts validation.jsonl --out thresholds.json
    python -m decode.evaluate --policy DIR --value DIR --reward DIR --prompts test.jsonl \
        --thresholds thresholds.json --out out/evaluation

    # Without thresholds: what needs none.
    python -m decode.evaluate --policy DIR --value DIR --reward DIR --prompts test.jsonl \
        --methods base best-of dense --out out/evaluation

The methods: the policy alone (base), alone with best-of-n, steered everywhere (dense), steered where the
entropy reaches a calibrated threshold, steered at random at the share that the entropy gate came to,
entropy-gated steering with best-of-n, and searches that a reward guides (--search). --methods also knows
other gates at the same shares, and --bounds adds tilts under which contenders alone are read. All use one
engine, the same random numbers for the same prompt and seed, and are counted alike. The proxy reward, which
best-of-n chooses by, is that of reward models, of Python functions, or a weighted sum; --gold-function or
--gold-reward adds another, the gold reward, and --fluency-model the perplexity of replies under a second
language model. Every prompt is checked against all of them before anything is sampled. A reply without a
reward is counted, and left out with its partners.

    python -m decode.evaluate --policy DIR --value DIR --prompts test.jsonl --methods base best-of dense \
        --reward-function sia_jax.rewards.sentiment:vader --length-penalty 0.01 --out out/evaluation

OUT/replies.jsonl gets every reply as it comes: the same command, started again after Ctrl-C or a crash, goes
on from there, also with more methods or seeds, or with prompts behind the others; one with other settings is
refused. In the end OUT holds results.json, results.md (a table) and pictures, each with a CSV of its numbers;
--page writes all of it as a page, with what holds of the paper's three claims. --official DIR writes the
results as the official code's evaluate.py does.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from decode.evaluate_options import Args, check_options, methods_of, read
from sia_jax.evaluation.calibration import read_calibration
from sia_jax.evaluation.claims import to_json
from sia_jax.evaluation.comparison import Comparison
from sia_jax.evaluation.fluency import FluencyScorer
from sia_jax.evaluation.gate_numbers import GateNumbers
from sia_jax.evaluation.method_runner import Chosen, Job, MethodRunner
from sia_jax.evaluation.methods import plan_text
from sia_jax.evaluation.official import OfficialPrompt, write_official_results
from sia_jax.evaluation.records import GROWS, Records, Unit, make_record, prompt_key
from sia_jax.evaluation.scoring import Scorer
from sia_jax.evaluation.search.checks import check_searches
from sia_jax.evaluation.statistics import FEWEST
from sia_jax.evaluation.token_figures import token_figures
from sia_jax.files.lock import locked
from sia_jax.files.writing import write_text
from sia_jax.reports.evaluation import results_text, write_page
from sia_jax.reports.evaluation_pictures import write_pictures
from sia_jax.reports.examples import example_methods, examples_of, examples_section
from sia_jax.runs import preflight, prompting, runner
from sia_jax.runs.cli import command, goes_on, program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.engines import Row
from sia_jax.runs.fluency import find_fluency
from sia_jax.runs.journal import Journal
from sia_jax.runs.progress import RunProgress, clock, waiting
from sia_jax.runs.provenance import head_commit, host_description
from sia_jax.runs.rewards import find_judge, find_reward
from sia_jax.text.chat import Message, raw_prompt_text
from sia_jax.text.forms import Prompting


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
        official = None if args.official is None else Path(args.official)
        page = None if args.page is None else Path(args.page)
        with locked(folders=(Path(args.out), official), files=(page,)):
            evaluation = _Evaluation(args, console)
            evaluation.run()


class _Evaluation:
    """A run, from its options to its results.

    Raises:
      FileNotFoundError, ValueError: what is wrong with options and files; before any weights are loaded.
    """

    def __init__(self, args: Args, console: Terminal):
        self.args, self.console = args, console
        self.reward = find_reward(args.reward, args)
        self.gold = find_judge(args.gold_reward, args.gold_function)
        self.fluency = find_fluency(args.fluency_model, args.fluency_date_string)
        self.prompts = read(args)
        self.policy = runner.prepare(args)
        self._prompting = settled = prompting.find_prompting(self.policy, args)
        prompting.announce(settled, self.prompts, console)
        date = args.reward_date_string
        has_other = bool(self.reward.models)
        self._gold_templates = [] if self.gold is None else self.gold.templates(date, optional=has_other)
        self._templates = self.reward.templates(date, optional=any(self._gold_templates))
        without_weights = runner.Models(self.policy, preflight.value_without_weights(args, self.policy))
        self._without_weights = without_weights
        most = args.max_new_tokens
        checks = self.reward.checks(self.prompts, self._templates, args.reward_max_tokens, most)
        if self.gold is not None:
            checks += self.gold.checks(self.prompts, self._gold_templates, None, most)
        if self.fluency is not None:
            checks.append(self.fluency.check(most))
        self.ids = preflight.policy_ids(self.prompts, without_weights, args, settled, checks)
        self.settings = self._settings(settled)
        self.calibration = None
        if args.thresholds is not None:
            self.calibration = read_calibration(Path(args.thresholds))
            self.calibration.check(self.settings)
        self.methods = methods_of(args, self.calibration)
        check_searches(self.methods, args)
        if args.examples:
            example_methods(self.methods)
        self.records = Records(
            self.methods,
            range(args.seed, args.seed + args.seeds),
            [prompt_key(prompt) for prompt in self.prompts],
            {} if self.calibration is None else self.calibration.gates,
            gold=self.gold is not None,
            fluency=self.fluency is not None,
            prompts_sha256=self.settings["prompts_sha256"],
        )
        self._judge: Scorer | None = None
        self._reader: FluencyScorer | None = None
        self.journal = Journal(
            Path(args.out) / "replies.jsonl",
            self.settings,
            self.records.take,
            overwrite=args.overwrite,
            varying=GROWS,
        )
        self._check_official()
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
                options = {"dtype": dtype, "mesh": self.args.make_mesh()}
                reward = self.reward.load(**options)
                gold = [] if self.gold is None else self.gold.load(**options)
                second = None if self.fluency is None else self.fluency.load(**options)
            rows = self._rows(models)
            progress = RunProgress(self.console, total, done, work=self.records.work)
            with self.journal, progress:
                most, aside = self.args.reward_max_tokens, progress.aside
                scorer = Scorer(reward, aside, self._templates, most, self.reward.total)
                if self.gold is not None:
                    self._judge = Scorer(gold, aside, self._gold_templates, total=self.gold.total)
                if self.fluency is not None and second is not None:
                    self._reader = FluencyScorer(second, self.fluency.prompting, aside)
                methods = MethodRunner(models, scorer, self.args, rows, self.args.batch, aside)
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
            found += self.calibration.cautions_of(self.methods, self.args.max_new_tokens)
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
            indices, ones = [missing[place] for place, _ in chosen], [one for _, one in chosen]
            golds, read = self._golds(indices, ones), self._read(indices, ones)
            for index, one, gold, more in zip(indices, ones, golds, read, strict=True):
                self._write(unit, gate, index, one, gold, more)
            tokens = sum(one.sampled_tokens for _, one in chosen)
            progress.advance(len(chosen), tokens, len(chosen) * method.work)
            if first and (left := progress.left()) is not None:
                self._say(f"about {clock(left)} left, by the time of the first batch, and without compiling")

    def _job(self, row: Row, seed: int, index: int) -> Job:
        return Job(replace(row, key=runner.prompt_key(seed, index)), self._messages(index))

    def _messages(self, index: int) -> tuple[Message, ...]:
        messages = self.prompts[index].messages
        assert messages is not None
        return messages

    def _golds(self, indices: Sequence[int], chosen: Sequence[Chosen]) -> Sequence[tuple[float | None, str]]:
        """The gold reward of each, and why there is none, where one is asked for."""
        if self._judge is None:
            return [(None, "")] * len(chosen)
        found = self._judge.score([self._messages(i) for i in indices], [[one.reply] for one in chosen])
        return [(reward, why) for (reward,), (why,) in zip(found.rewards, found.why, strict=True)]

    def _read(self, indices: Sequence[int], chosen: Sequence[Chosen]) -> list[dict[str, Any]]:
        """What the second language model says of each reply, where one is asked for."""
        if self._reader is None:
            return [{}] * len(chosen)
        prompts, replies = [self._messages(i) for i in indices], [one.reply for one in chosen]
        return [found.to_json() for found in self._reader.score(prompts, replies)]

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

    def _write(
        self,
        unit: Unit,
        gate: GateNumbers,
        index: int,
        chosen: Chosen,
        gold: tuple[float | None, str],
        more: dict[str, Any],
    ) -> None:
        official = self.args.official is not None
        name = prompt_key(self.prompts[index])
        record = make_record(unit, gate, index, name, chosen, gold, official=official)
        self.journal.write(record | more | {"commit": self._commit, "machine": self._host})

    def _report(self) -> None:
        """Compare, and write all that is made of it."""
        args, out = self.args, Path(self.args.out)
        own = {method.key: self.records.of(method) for method in self.methods}
        with waiting(self.console, "comparing"):
            comparison = Comparison(self.methods, own, resamples=args.resamples)
            results = self._results(comparison)
            write_text(out / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
            write_text(out / "results.md", results_text(results))
            pictures = write_pictures(results, out)
            if args.official is not None:
                write_official_results(Path(args.official), comparison.measured, self._official_prompts())
            if args.page is not None:
                write_page(
                    results,
                    Path(args.page),
                    pictures,
                    out,
                    title=args.title,
                    introduction=None if args.introduction is None else Path(args.introduction),
                    examples=self._examples(results["measures"][0]),
                    appendix=None if args.appendix is None else Path(args.appendix),
                )
        for claim in results["claims"][results["measures"][0]]:
            self._say(f"{claim['name']}: {claim['verdict']}. {claim['statement']}")
        self._say(
            f"table, pictures and numbers in {args.out}" + (f", page in {args.page}" if args.page else "")
        )

    def _examples(self, measure: str) -> str:
        """Some prompts with their replies under the first seed, in Markdown, if they are asked for."""
        if not self.args.examples:
            return ""
        seed = self.records.seeds[0]
        base, steered = example_methods(self.methods)
        messages = [self._messages(index) for index in range(len(self.prompts))]
        found = examples_of(
            ["\n\n".join(message["content"] for message in own) for own in messages],
            self.records.of(base, [seed]),
            self.records.of(steered, [seed]),
            measure,
        )
        return examples_section(
            found,
            self.args.examples,
            measure=measure,
            steered=steered.name,
            chosen_from=f"all {len(found)} prompts under seed {seed} whose two replies have rewards",
        )

    def _check_official(self) -> None:
        """The replies that are there, of a run that goes on, hold what --official tells of them.

        Raises:
          ValueError: some do not.
        """
        if self.args.official is None:
            return
        lacking = self.records.lacking("official", "text")
        if lacking:
            raise ValueError(
                f"{self.journal.path}: {lacking:,} replies have no ids, for they were made without "
                "--official; leave it out, name another folder, or pass --overwrite"
            )

    def _official_prompts(self) -> list[OfficialPrompt]:
        """The prompts as both models see them, in ids and in text."""
        models, found = self._without_weights, []
        policy = models.policy.tokenizer
        value = policy if models.value is None else models.value.tokenizer or policy
        assert policy is not None  # prompts are conversations
        assert value is not None
        for index, (prompt, own) in enumerate(zip(self.prompts, self.ids, strict=True)):
            others = prompting.value_ids(models, prompt, own, self.args)
            text = raw_prompt_text(self._messages(index))
            found.append(OfficialPrompt.of(text, (policy, own), (value, others)))
        return found

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
            "tokens": token_figures(comparison),
        }
        sources = [self.reward] if self.gold is None else [self.reward, self.gold]
        provenance = {what: text for source in sources for what, text in source.provenance().items()}
        return results | ({"provenance": provenance} if provenance else {})

    def _settings(self, settled: Prompting | None) -> dict[str, Any]:
        """What the replies and their rewards depend on, but for method and seed."""
        args = self.args
        whole = runner.run_identity(args, settled)
        settings = {name: x for name, x in whole.items() if name not in ("threshold", "seed")}
        return {
            **settings,
            "reward": self.reward.model_name,
            "reward_fingerprint": self.reward.model_fingerprint(),
            "reward_date_string": self._templates[0].get("date_string") if self._templates else None,
            **self.reward.settings(self._templates),
            "prompts_sha256": hashlib.sha256(Path(args.prompts).read_bytes()).hexdigest(),
            "system": args.system,
            "reward_max_tokens": args.reward_max_tokens,
            "gold": False if self.gold is None else self.gold.described(),
            **{f"gold_{name}": text for own in self._gold_templates for name, text in own.items()},
            "base_chooser": args.base_chooser,
            **({} if self.fluency is None else self.fluency.settings()),
        }

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
