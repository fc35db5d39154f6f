"""Makes the records of a comparison: the methods' replies, judged; whatever is asked for, wherever."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sia_jax.evaluation.gate_numbers import GateNumbers
from sia_jax.evaluation.judges import Judges, Loaded, Scorers
from sia_jax.evaluation.method_runner import Chosen, Job, MethodRunner
from sia_jax.evaluation.records import PromptKey, Unit, make_record
from sia_jax.evaluation.scoring import Aside
from sia_jax.runs import runner
from sia_jax.runs.engines import Row
from sia_jax.runs.options import SamplingArgs
from sia_jax.runs.provenance import host_description
from sia_jax.text.chat import Message


@dataclass(frozen=True)
class Asked:
    """A prompt of a comparison, as all models see it.

    Args:
      name: `prompt_key` of it.
      messages: of the conversation.
      policy_ids: what the policy reads.
      value_ids: what the value model reads.
    """

    name: PromptKey
    messages: tuple[Message, ...]
    policy_ids: Sequence[int]
    value_ids: Sequence[int]


def machine(args: SamplingArgs) -> str:
    """What this process computes on and with, as records say it.

    Args:
      args: of the run.
    """
    return host_description() + (f", mesh {args.mesh}" if args.mesh != (1, 1, 1) else "")


class RecordMaker:
    """Replies to prompts by any method, as records.

    Args:
      loaded: all models.
      judges: what they are asked.
      args: sampling.
      prompts: all of the run's, also those that others reply to: engines have rows for the longest.
      batch: replies at a time.
      aside: entered while something is compiled.
      made: what every record says beside, of where it was made.
      official: whether records hold what the official form of results tells of a reply.
    """

    def __init__(
        self,
        loaded: Loaded,
        judges: Judges,
        args: SamplingArgs,
        prompts: Sequence[Asked],
        batch: int,
        aside: Aside,
        *,
        made: dict[str, Any],
        official: bool,
    ):
        self._prompts, self._made, self._official = prompts, made, official
        key = runner.own_key(0)  # key and threshold are each unit's own
        self._rows = [Row(prompt.policy_ids, prompt.value_ids, key, 0.0) for prompt in prompts]
        self._scorers = Scorers.of(loaded, judges, aside)
        self._methods = MethodRunner(loaded.models, self._scorers.reward, args, self._rows, batch, aside)

    def run(self, unit: Unit, gate: GateNumbers, indices: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
        """The records of a unit, some at a time as they are whole; see `MethodRunner.run`.

        Args:
          unit: a method and a seed.
          gate: of the unit.
          indices: of the prompts.
        """
        method, seed = unit
        jobs = [self._job(index, seed) for index in indices]
        for chosen in self._methods.run(method, gate, jobs) if jobs else ():
            own, ones = [indices[place] for place, _ in chosen], [one for _, one in chosen]
            golds, read = self._golds(own, ones), self._read(own, ones)
            yield [
                make_record(unit, gate, index, self._prompts[index].name, one, gold, official=self._official)
                | more
                | self._made
                for index, one, gold, more in zip(own, ones, golds, read, strict=True)
            ]

    def close(self) -> None:
        """End the engine."""
        self._methods.close()

    def _job(self, index: int, seed: int) -> Job:
        row = replace(self._rows[index], key=runner.prompt_key(seed, index))
        return Job(row, self._prompts[index].messages)

    def _messages(self, indices: Sequence[int]) -> list[tuple[Message, ...]]:
        return [self._prompts[index].messages for index in indices]

    def _golds(self, indices: Sequence[int], chosen: Sequence[Chosen]) -> Sequence[tuple[float | None, str]]:
        """The gold reward of each, and why there is none, where one is asked for."""
        if self._scorers.gold is None:
            return [(None, "")] * len(chosen)
        found = self._scorers.gold.score(self._messages(indices), [[one.reply] for one in chosen])
        return [(reward, why) for (reward,), (why,) in zip(found.rewards, found.why, strict=True)]

    def _read(self, indices: Sequence[int], chosen: Sequence[Chosen]) -> list[dict[str, Any]]:
        """What the second language model says of each reply, where one is asked for."""
        if self._scorers.fluency is None:
            return [{}] * len(chosen)
        replies = [one.reply for one in chosen]
        return [found.to_json() for found in self._scorers.fluency.score(self._messages(indices), replies)]
