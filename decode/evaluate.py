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

    # Four machines; a second round of the first two lines where random gates wait for entropy gates.
    python -m decode.evaluate ... --out out/evaluation --shard 0/4
    python -m decode.merge out/evaluation/replies.*-of-4.jsonl --out out/evaluation/replies.jsonl --add
    python -m decode.evaluate ... --out out/evaluation

With --shard a share of the prompts is replied to, into OUT/replies.0-of-4.jsonl, and no results are written.
Of all parts sia merge makes OUT/replies.jsonl, with which the command without --shard writes the results.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from decode.evaluate_options import Args, check_options, judge_options, methods_of, read
from sia_jax.cluster.comparing import ComparingRecipe, Reply
from sia_jax.cluster.run import shared_out
from sia_jax.cluster.sampling import sampling_args
from sia_jax.evaluation.calibration import read_calibration
from sia_jax.evaluation.claims import to_json
from sia_jax.evaluation.comparison import Comparison
from sia_jax.evaluation.judges import Loaded, find_judges
from sia_jax.evaluation.methods import plan_text
from sia_jax.evaluation.official import OfficialPrompt, write_official_results
from sia_jax.evaluation.record_maker import Asked, RecordMaker, machine
from sia_jax.evaluation.records import Records, Unit, prompt_key, record_key
from sia_jax.evaluation.search.checks import check_searches
from sia_jax.evaluation.share import FILE, Share, shard_share, share_file, waiting_text, whole_share
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
from sia_jax.runs.options import Models
from sia_jax.runs.programs import is_program
from sia_jax.runs.progress import RunProgress, clock, waiting
from sia_jax.runs.provenance import head_commit, made_here
from sia_jax.runs.shards import find_shard, goes_on_smaller
from sia_jax.text.chat import Message, raw_prompt_text
from sia_jax.text.forms import Prompting


def main(args: Args) -> None:
    """Evaluate; exits with 1 if something is wrong with options or files, and with 130 after Ctrl-C."""
    evaluation: _Evaluation | None = None

    def interrupted() -> str:
        begun = evaluation is not None and evaluation.share.journal.begun
        kept = f"what was done is in {share_file(Path(args.out), find_shard(args.shard))}"
        return f"interrupted; {kept}, and {goes_on(args.overwrite and begun)}"

    smaller = f"lower --batch, now {args.batch}"
    if args.shard is not None:
        smaller += f", {goes_on_smaller(args.shard)}"
    with program("decode.evaluate", interrupted=interrupted, smaller=smaller) as console:
        check_options(args)
        with _locked(args):
            evaluation = _Evaluation(args, console)
            evaluation.run()


def _locked(args: Args) -> AbstractContextManager[None]:
    """No other run writes what this one writes; the parts of shards have one folder."""
    out, shard = Path(args.out), find_shard(args.shard)
    if shard is not None:
        return locked(files=(share_file(out, shard),))
    official, page = (None if path is None else Path(path) for path in (args.official, args.page))
    return locked(folders=(out, official), files=(page,))


class _Evaluation:
    """A run, from its options to its results.

    Raises:
      FileNotFoundError, ValueError: what is wrong with options and files; before any weights are loaded.
    """

    def __init__(self, args: Args, console: Terminal):
        self.args, self.console = args, console
        self.judges = find_judges(judge_options(args))
        self.prompts = read(args)
        policy = runner.prepare(args)
        self._prompting = settled = prompting.find_prompting(policy, args)
        prompting.announce(settled, self.prompts, console)
        self._without_weights = Models(policy, preflight.value_without_weights(args, policy))
        checks = self.judges.checks(self.prompts, args.max_new_tokens)
        self.ids = preflight.policy_ids(self.prompts, self._without_weights, args, settled, checks)
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
            gold=self.judges.gold is not None,
            fluency=self.judges.fluency is not None,
            prompts_sha256=self.settings["prompts_sha256"],
        )
        self.share = self._share()
        pages = () if args.page is None else (Path(args.page).absolute().parent,)
        self._commit = head_commit(ignored=pages)  # what it writes itself changes no reply

    def run(self) -> None:
        """Sample what is missing, then compare and report; a shard says what is to be done next."""
        share = self.share
        missing, total = share.lacking, share.total
        plan = plan_text(self.methods, self.args.seeds, len(self.prompts))
        self._say(f"{plan} How long that takes is said after the first batch.")
        for line in self._cautions():
            self._say(line)
        if missing < total:
            self._say(f"{share.journal.path}: going on after {total - missing:,} of {total:,} replies")
        if missing:
            progress = RunProgress(self.console, total, total - missing, work=share.work)
            if self.args.ray is None:
                self._make(progress)
            else:
                self._share_out_with_ray(progress)
            self._say(f"{missing:,} replies, {progress.rates()}")
        if share.part is not None:
            self._finish_part()
            return
        for unit in share.units:
            share.gate(unit)  # replies of another run's gates are refused, however complete
        self._report()

    def _make(self, progress: RunProgress) -> None:
        """All records that the share lacks, made here."""
        with waiting(self.console, "loading the models"):
            loaded = Loaded.of(self.args, self.judges)
        # Now by all that the value model's files say.
        preflight.policy_ids(self.prompts, loaded.models, self.args, self._prompting)
        maker = RecordMaker(
            loaded,
            self.judges,
            self.args,
            self._asked(loaded.models),
            self.args.batch,
            progress.aside,
            made={"commit": self._commit, "machine": machine(self.args)},
            official=self.args.official is not None,
        )
        with closing(maker), self.share.journal, progress:
            for unit in self.share.units:
                for records in maker.run(unit, self.share.gate(unit), self.share.missing(unit)):
                    self._keep(unit, records, progress)

    def _share_out_with_ray(self, progress: RunProgress) -> None:
        """The same, made by actors of Ray: first all whose gates are known, then the random ones."""
        share, journal = self.share, self.share.journal
        recipe = ComparingRecipe(
            args=sampling_args(self.args),
            judges=judge_options(self.args),
            prompts=self._asked(self._without_weights),
            batch=self.args.batch,
            official=self.args.official is not None,
            commit=self._commit,
            settings=self.settings,
            keeps_compiled=is_program(),
            smaller=f"lower --batch, now {self.args.batch}",
        )
        units = {(method.key, seed): (method, seed) for method, seed in share.units}
        left = [unit for unit in share.units if share.missing(unit)]
        with journal, progress:
            while left:
                ready = [unit for unit in left if self.records.is_ready(unit)]
                left = [unit for unit in left if unit not in ready]
                gates = {unit: share.gate(unit) for unit in ready}
                asked = [Reply(*unit, gates[unit], index) for unit in ready for index in share.missing(unit)]
                with shared_out(recipe, asked, self.args, self.console) as blocks:
                    for block in blocks:
                        new = [record for record in block if record_key(record) not in journal.done]
                        for key, records in groupby(new, lambda record: record_key(record)[:2]):
                            self._keep(units[key], list(records), progress)

    def _share(self) -> Share:
        """What this run does."""
        args, out, shard = self.args, Path(self.args.out), find_shard(self.args.shard)
        if shard is None:
            share = whole_share(out, self.settings, self.records, overwrite=args.overwrite)
            self._check_official(share.journal.path)
            return share
        return shard_share(
            out,
            shard,
            self.settings,
            self.records,
            made_by=made_here(rows=runner.whole_rows(args, args.batch), mesh=list(args.mesh)),
            overwrite=args.overwrite,
            check=self._check_official,
        )

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

    def _asked(self, models: Models) -> list[Asked]:
        """The prompts as all models see them."""
        return [
            Asked(
                prompt_key(prompt),
                self._messages(index),
                own,
                prompting.value_ids(models, prompt, own, self.args),
            )
            for index, (prompt, own) in enumerate(zip(self.prompts, self.ids, strict=True))
        ]

    def _messages(self, index: int) -> tuple[Message, ...]:
        messages = self.prompts[index].messages
        assert messages is not None
        return messages

    def _keep(self, unit: Unit, records: Sequence[dict[str, Any]], progress: RunProgress) -> None:
        """Write records of a unit as they come."""
        first = progress.is_new
        for record in records:
            self.share.journal.write(record)
        tokens = sum(record["sampled_tokens"] for record in records)
        progress.advance(len(records), tokens, len(records) * unit[0].work)
        if first and (left := progress.left()) is not None:
            self._say(f"about {clock(left)} left, by the time of the first batch, and without compiling")

    def _finish_part(self) -> None:
        """The part of a shard is whole; say what comes next."""
        share, out = self.share, Path(self.args.out)
        share.finish()
        self._say(f"{len(share.journal.done):,} replies are in {share.journal.path}")
        assert share.part is not None
        parts = out / f"replies.*-of-{share.part.shard.count}.jsonl"
        self._say(f"when all shards are done: sia merge {parts} --out {out / FILE} --add")
        if share.later:
            self._say(
                f"then start the shards again, for {waiting_text(share.later)}: a random gate takes the "
                "share that the entropy gate of its ratio has come to over all prompts"
            )
        else:
            self._say("then the same command without --shard finds all replies, and writes the results")

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

    def _check_official(self, path: Path) -> None:
        """The replies that are there, of a run that goes on, hold what --official tells of them.

        Raises:
          ValueError: some do not.
        """
        if self.args.official is None:
            return
        lacking = self.records.lacking("official", "text")
        if lacking:
            raise ValueError(
                f"{path}: {lacking:,} replies have no ids, for they were made without --official; leave it "
                "out, name another folder, or pass --overwrite"
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
        provenance = self.judges.provenance()
        return results | ({"provenance": provenance} if provenance else {})

    def _settings(self, settled: Prompting | None) -> dict[str, Any]:
        """What the replies and their rewards depend on, but for method and seed."""
        args = self.args
        whole = runner.run_identity(args, settled)
        settings = {name: x for name, x in whole.items() if name not in ("threshold", "seed")}
        return {
            **settings,
            **self.judges.settings(),
            "prompts_sha256": hashlib.sha256(Path(args.prompts).read_bytes()).hexdigest(),
            "system": args.system,
            "base_chooser": args.base_chooser,
        }

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
