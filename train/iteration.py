"""The stages of `train.iterate`: each is a run of another program, which goes on by itself."""

import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sia_jax.checkpoints.fingerprint import fingerprint_of_folder
from sia_jax.checkpoints.hub import checkpoint_name, resolve_checkpoint
from sia_jax.checkpoints.value_model import fingerprint_with_backbone
from sia_jax.data.joining import join_sets
from sia_jax.data.records import read_records
from sia_jax.data.sources import open_source
from sia_jax.data.sources.conversations import OpenConversation
from sia_jax.engine.reply import json_threshold
from sia_jax.evaluation.rounds import ALONE, Replies, best_of, compare_rounds
from sia_jax.evaluation.statistics import Interval
from sia_jax.files.reading import check_file, read_object
from sia_jax.files.writing import staging, write_text
from sia_jax.reports.model_card import Metric, ValueCard, write_card
from sia_jax.reports.rounds import PAGE, write_page
from sia_jax.reports.training import best_evaluation
from sia_jax.runs.cli import check_used, command
from sia_jax.runs.console import Terminal
from sia_jax.runs.progress import waiting
from sia_jax.runs.provenance import software
from sia_jax.runs.rewards import find_reward, model_settings
from train import label, prepare, value_model
from train.diary import Diary
from train.generation import FILTERS, STEERING, Generation, GenerationArgs
from train.iterate_options import Args, training

DIARY = "iteration.json"
START = "start"
"""The name of the value model that the first round begins with."""

FREE = frozenset(
    (
        *("out", "rounds", "mesh", "batch", "batch_tokens", "rows", "remat", "checkpoint_every"),
        *("license", "base_model"),
    )
)
"""Options that change no round that is there."""

_BY_CONTENT = frozenset(("policy", "value", "prompts", "validation", "reward_model"))
"""Options that name what is known by its fingerprint, wherever it lies."""


@dataclass(frozen=True)
class Places:
    """Where the parts of a round are; of the policy alone and of the start, the last two."""

    folder: Path

    @property
    def own(self) -> Path:
        """The policy's own replies."""
        return self.folder / "unsteered"

    @property
    def steered(self) -> Path:
        """Those that the value model so far has steered."""
        return self.folder / "steered"

    @property
    def data(self) -> Path:
        """What is learned from."""
        return self.folder / "data"

    @property
    def training(self) -> Path:
        """The run of train.value_model."""
        return self.folder / "value"

    @property
    def value(self) -> Path:
        """The value model that came of it: the best on held-out prompts, where some are."""
        best = self.training / "best"
        return best if best.exists() else self.training / "last"

    @property
    def validation(self) -> Path:
        """Replies to the validation prompts."""
        return self.folder / "validation"


def labelled(replies: Path) -> Path:
    """Where the scored replies of a set are."""
    return replies.with_name(f"{replies.name}-labelled")


class Iteration:
    """A run, from its options to its best value model.

    Args:
      args: that `check_options` has checked.
      console: for its messages.

    Raises:
      OSError, ValueError: what is wrong with options and files; before any weights are loaded, but for those
        of a value model to begin with, which is tried on.
    """

    def __init__(self, args: Args, console: Terminal):
        self.args, self.console = args, console
        self.steered = round(args.steered * args.replies)
        if (args.steered > 0) != (self.steered > 0) or (args.steered < 1) != (self.steered < args.replies):
            raise ValueError(
                f"--steered {args.steered:g} of --replies {args.replies} comes to {self.steered} replies to "
                "a prompt; raise --replies, or say 0 or 1"
            )
        if not args.reward_model:
            check_used(args, ("reward_date_string", "batch_tokens"), "--reward DIR")
        self.reward = find_reward(args.reward_model, args)
        self.policy = resolve_checkpoint(args.policy)
        Generation(self._sampling(1, 0, None), args.max_length)
        self._check_prompts()
        self.diary = Diary.of(args.out / DIARY, "iteration", self._settings())
        self._check_rounds()
        if args.value is not None and "round 1: value" not in self.diary.seconds:
            with waiting(console, "trying on the value model to begin with"):
                value_model.check_init(training(args, Path("none"), Path("none"), args.value))

    def run(self) -> None:
        """Go through the stages that are not done yet, and report."""
        self.diary.begin()
        self.diary.go_through(self._stages(), software, self.console)
        with waiting(self.console, "comparing the rounds"):
            results = self._results()
            write_text(self.args.out / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
            write_page(results, self.args.out)
            self._keep_best(results)
        row = next(row for row in results["rows"] if row["name"] == results["best"])
        said = Interval.from_json(row["reward"]).text(digits=3)
        gain = Interval.from_json(row["gain"])
        text = (
            f"best: {results['best']}, reward {said} on validation prompts, "
            f"{gain.text(signed=True, digits=3)} above the policy alone; {self.args.out / 'best'}, "
            f"{self.args.out / PAGE}"
        )
        self.console.print(text, highlight=False, soft_wrap=True)
        if not (gain.is_known and gain.low > 0):
            self.console.print(
                "the interval does not leave 0 out: steering with it is not shown to help; more validation "
                "prompts, replies or rounds would tell",
                style="yellow",
                highlight=False,
                soft_wrap=True,
            )

    # What is known before anything is done

    def _check_prompts(self) -> None:
        """No prompt is both of training and of validation, and of the latter there are enough.

        Raises:
          OSError, ValueError: one is, or there are not, or a file that cannot be read.
        """
        for option, path in (("prompts", self.args.prompts), ("validation", self.args.validation)):
            check_file(Path(path), f"file of --{option}")
        trained, judged = (
            dict.fromkeys(_conversations(path)) for path in (self.args.prompts, self.args.validation)
        )
        if len(judged) < 2:
            raise ValueError(
                f"--validation {self.args.validation} has {len(judged)} prompts, and an interval takes "
                "2 or more, better some hundred"
            )
        both = [text for text in judged if text in trained]
        if both:
            raise ValueError(
                f"{len(both):,} prompts of --validation {self.args.validation} are training prompts, the "
                f"first {both[0][:200]}; a round that learned from them cannot be judged by "
                "them: take them out of one of the files"
            )

    def _settings(self) -> dict[str, object]:
        args = self.args
        named = FREE | _BY_CONTENT
        own = {f.name: getattr(args, f.name) for f in dataclasses.fields(args) if f.name not in named}
        own["threshold"] = json_threshold(args.threshold)
        reward, templates = model_settings(self.reward.models, args.reward_date_string, args.dtype, 4096)
        found = {
            **own,
            "policy_fingerprint": fingerprint_of_folder(self.policy)[:16],
            "value_fingerprint": None if args.value is None else fingerprint_with_backbone(args.value),
            "prompts_sha256": _sha256(args.prompts),
            "validation_sha256": _sha256(args.validation),
            "rewards": reward | self.reward.settings(templates),
        }
        return dict(json.loads(json.dumps(found, allow_nan=False)))

    def _check_rounds(self) -> None:
        done = [n for n in range(1, 10_000) if f"round {n}: replies" in self.diary.seconds]
        if done and max(done) > self.args.rounds:
            raise ValueError(
                f"{self.args.out} holds {max(done)} rounds, and --rounds is {self.args.rounds}; pass "
                f"--rounds {max(done)}, or name another --out"
            )

    # The stages

    def _stages(self) -> dict[str, tuple[str, Callable[[], None]]]:
        stages = {ALONE: ("the policy alone replies to the validation prompts", self._validate_alone)}
        if self.args.value is not None:
            stages[START] = ("the value model to begin with steers those replies", self._validate_start)
        for n in range(1, self.args.rounds + 1):
            own = (
                ("replies", "replies to the training prompts", self._reply),
                ("rewards", "their rewards", self._score),
                ("value", "the value model learns from them", self._train),
                ("validation", "it steers replies to the validation prompts", self._validate),
            )
            for name, what, stage in own:
                stages[f"round {n}: {name}"] = (f"round {n}: {what}", functools.partial(stage, n))
        return stages

    def round(self, n: int) -> Places:
        """Where round n is, from 1."""
        return Places(self.args.out / f"round-{n}")

    @property
    def alone(self) -> Places:
        """Where the policy's own replies to the validation prompts are."""
        return Places(self.args.out / "policy-alone")

    @property
    def start(self) -> Places:
        """Where those are that the value model to begin with has steered."""
        return Places(self.args.out / START)

    def value_before(self, n: int) -> str | None:
        """What steers in round n, and what it trains further; None: there is none yet."""
        return self.args.value if n == 1 else str(self.round(n - 1).value)

    def _validate_alone(self) -> None:
        self._judge(self.alone.validation, None)

    def _validate_start(self) -> None:
        self._judge(self.start.validation, self.args.value)

    def _reply(self, n: int) -> None:
        value, prompts = self.value_before(n), self.args.prompts
        steered = 0 if value is None else self.steered
        if steered < self.args.replies:
            seed = seed_of(self.args.seed, f"round {n}", "unsteered")
            self._sample(self.round(n).own, prompts, self.args.replies - steered, seed, None)
        if steered:
            seed = seed_of(self.args.seed, f"round {n}", "steered")
            self._sample(self.round(n).steered, prompts, steered, seed, value)

    def _score(self, n: int) -> None:
        for _, replies in self._replies_of(n):
            self._label(replies)

    def _train(self, n: int) -> None:
        first = 1 if self.args.learn_from == "all" else n
        sets = [one for round_ in range(first, n + 1) for one in self._replies_of(round_)]
        join_sets(self.round(n).data, {name: labelled(replies) for name, replies in sets})
        here = self.round(n)
        value_model.main(training(self.args, here.data, here.training, self.value_before(n)))

    def _validate(self, n: int) -> None:
        self._judge(self.round(n).validation, str(self.round(n).value))

    def _replies_of(self, n: int) -> list[tuple[str, Path]]:
        """The sets that round n has sampled, by name."""
        here = self.round(n)
        found = ((f"round-{n}-{path.name}", path) for path in (here.own, here.steered))
        return [(name, path) for name, path in found if (path / prepare.REPORT).exists()]

    def _judge(self, out: Path, value: str | None) -> None:
        # Of one seed, so that all samplers have the same random numbers.
        seed = seed_of(self.args.seed, "validation")
        self._sample(out, self.args.validation, self.args.validation_replies, seed, value)
        self._label(out)

    def _sample(self, out: Path, prompts: str, replies: int, seed: int, value: str | None) -> None:
        if prepare.is_prepared(out):
            return  # the set was whole when the run was killed
        sampling = self._sampling(replies, seed, value)
        prepare.main(
            prepare.Args(
                format="jsonl",
                input=prompts,
                out=str(out),
                max_length=self.args.max_length,
                sampling=sampling,
            )
        )

    def _sampling(self, replies: int, seed: int, value: str | None) -> GenerationArgs:
        args = self.args
        steering = {name: getattr(args, name) for name in STEERING if name != "value"}
        return GenerationArgs(
            generate=replies,
            policy=args.policy,
            dtype=args.dtype,
            mesh=args.mesh,
            batch=args.batch,
            max_new_tokens=args.max_new_tokens,
            seed=seed,
            prompt_form=args.prompt_form,
            date_string=args.date_string,
            record_prompt="policy" if args.states == "policy" else "value",
            value=value,
            **({} if value is None else steering),
            **{name: getattr(args, name) for name in FILTERS},
        )

    def _label(self, replies: Path) -> None:
        args = self.args
        models: dict[str, Any] = {}
        if args.reward_model:
            models = {
                "dtype": args.dtype,
                "date_string": args.reward_date_string,
                "batch_tokens": args.batch_tokens,
                "mesh": args.mesh,
            }
        label.main(
            label.Args(
                input=str(replies),
                out=str(labelled(replies)),
                reward_model=args.reward_model,
                reward_function=args.reward_function,
                length_penalty=args.length_penalty,
                **models,
            )
        )

    # What came of it

    @cached_property
    def _judged(self) -> dict[str, Places]:
        """What was judged, by name; the policy alone first."""
        found = {ALONE: self.alone}
        if self.args.value is not None:
            found[START] = self.start
        return found | {f"round {n}": self.round(n) for n in range(1, self.args.rounds + 1)}

    def _results(self) -> dict[str, Any]:
        """What results.json says."""
        args = self.args
        report = read_object(self.alone.validation / prepare.REPORT, "report", "make it anew")
        prompts = int(report["prompts"]["kept"])
        replies = {
            name: Replies.of(read_records(labelled(places.validation)))
            for name, places in self._judged.items()
        }
        rows = compare_rounds(replies, prompts * args.validation_replies)
        for row in rows:
            row |= self._learned(self._judged[row["name"]])
        data = {"all": "the replies of all rounds so far", "last": "the replies of this round alone"}
        asked = int(report["prompts"]["found"]) - int(report["prompts"]["repeated"])
        return {
            "command": command("train.iterate", args),
            "settings": self.diary.settings | {"beta": 1.0 if args.beta is None else args.beta},
            "best": best_of(rows),
            "rows": rows,
            "mixture": self._mixture(),
            "data": data[args.learn_from],
            "validation_prompts": prompts,
            "validation_left_out": asked - prompts,
            "reward": self._reward_named(),
        }

    def _mixture(self) -> str:
        """Whose the replies of a round are, in words."""
        all_, steered = self.args.replies, self.steered
        if not steered:
            return f"{all_} to each, all the policy's own"
        said = f"{all_} to each, all steered with the value model so far"
        if steered < all_:
            said = f"{all_} to each, {steered} of them steered with the value model so far"
        return (
            said if self.args.value else f"{said} (in the first round, which has none, all the policy's own)"
        )

    def _learned(self, places: Places) -> dict[str, Any]:
        """What a round learned from, and how well; nothing of what was not trained here."""
        if not places.training.exists():
            return {}
        joined = read_records(places.data).meta["joined"]
        found: dict[str, Any] = {
            "learned_from": sum(joined.values()),
            "learned_from_steered": sum(n for name, n in joined.items() if name.endswith("-steered")),
        }
        if (places.training / "best").exists():
            best = best_evaluation(places.training / "metrics.jsonl")
            found |= {name: best[name] for name in ("r2", "in_order")}
        return found

    def _reward_named(self) -> str:
        terms = self.reward.total.terms
        return " + ".join(one.name if one.weight == 1 else f"{one.weight:g} {one.name}" for one in terms)

    def _keep_best(self, results: dict[str, Any]) -> None:
        """best/: the value model, and its card."""
        name, best = results["best"], self.args.out / "best"
        source = self.args.value if name == START else str(self._judged[name].value)
        assert source is not None
        with staging(self.args.out, "best") as folder:
            new = folder / "best"
            shutil.copytree(resolve_checkpoint(source), new)
            write_card(self._card(results), new)
            if best.exists():
                shutil.rmtree(best)
            new.rename(best)

    def _card(self, results: dict[str, Any]) -> ValueCard:
        args, name = self.args, results["best"]
        row = next(row for row in results["rows"] if row["name"] == name)
        where = f"{Path(args.validation).name}, {results['validation_prompts']:,} prompts"
        metrics = [
            _metric("mean reward of the steered policy", "reward", row["reward"], where),
            _metric("the same above the policy alone", "reward-gain", row["gain"], where),
        ]
        for kind, said in (
            ("r2", "R2 of the mean value"),
            ("in_order", "share of pairs of replies in order"),
        ):
            if row.get(kind) is not None:
                kind_of = kind.replace("_", "-")
                text = f"{row[kind]:.3f}"
                metrics.append(Metric(said, kind_of, row[kind], text, "held-out training prompts"))
        learned = [f"Training prompts: {Path(args.prompts).name}, SHA-256 {_sha256(args.prompts)[:16]}."]
        if row.get("learned_from") is not None:
            learned += [
                f"Replies: {row['learned_from']:,} of the policy, {row['learned_from_steered']:,} of them "
                "steered.",
                f"Rounds: {name.removeprefix('round ')}, each on {results['data']}; replies in a round: "
                f"{results['mixture']}.",
            ]
        beta = results["settings"]["beta"]
        steering = f"threshold {args.threshold:g} nats, beta {beta:g}, as it was validated"
        if args.tilt_bound is not None:
            steering += f", logits moved by at most {args.tilt_bound:g} nats"
        return ValueCard(
            name=f"Value model for {checkpoint_name(args.policy)}, {name}",
            policy=args.policy,
            fingerprint=fingerprint_of_folder(self.policy),
            data=learned,
            reward=results["reward"],
            metrics=metrics,
            steering=steering,
            command=results["command"],
            made_by="; ".join(dict.fromkeys(self.diary.made_by.values())),
            licence=args.license,
            base_model=args.base_model,
        )


def seed_of(seed: int, *names: str) -> int:
    """A seed of its own for each use: the first four bytes of the SHA-256 of [seed, names] in JSON."""
    return int.from_bytes(hashlib.sha256(json.dumps([seed, *names]).encode()).digest()[:4], "big")


def _metric(name: str, kind: str, found: dict[str, Any], prompts: str) -> Metric:
    interval = Interval.from_json(found)
    return Metric(name, kind, interval.mean, interval.text(digits=3), prompts)


def _conversations(path: str) -> Iterator[str]:
    """The prompts of a file, each as one text."""
    for entry in open_source("jsonl", Path(path), vocab_size=0, with_replies=False).entries:
        if isinstance(entry, OpenConversation):
            yield json.dumps([dict(message) for message in entry.messages], ensure_ascii=False)


def _sha256(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
