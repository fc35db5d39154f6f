"""The study as JSON: a journal of replies and of rewards at positions, and what is known of each position."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sia_jax.data.prompts import PromptLine
from sia_jax.decoding.state import FinishReason
from sia_jax.engine.reply import Reply, json_numbers
from sia_jax.evaluation.resampling import Figure
from sia_jax.rewards.functions import RewardFunction
from sia_jax.runs import prompting
from sia_jax.runs.journal import Journal, place_in
from sia_jax.studies.entropy.positions import Place, Studied
from sia_jax.studies.entropy.sampling import Task
from sia_jax.studies.entropy.study import Drawn, Measured, Population
from sia_jax.text.tokenizer import Tokenizer


class StudyJournal(Journal):
    """Replies by prompt, and rewards by position."""

    def __init__(
        self, path: Path, settings: dict[str, Any], prompts: Sequence[PromptLine], *, overwrite: bool
    ):
        self.replies: dict[int, Studied] = {}
        self.rewards: dict[Place, np.ndarray] = {}
        """[K, M] of each position."""
        self._prompts = prompts
        super().__init__(path, settings, self._take, overwrite=overwrite)

    def _take(self, record: dict[str, Any]) -> Hashable:
        """Keep what a record says.

        Raises:
          ValueError: it is of no prompt of the input.
        """
        index = place_in(record, "index")
        prompt = self._prompts[index] if index < len(self._prompts) else None
        if prompt is None or (record["id"], record["prompt"]) != (prompt.id, prompting.prompt_json(prompt)):
            raise ValueError(f"prompt {record['id']!r} is not the input's prompt at place {index}")
        if record["kind"] == "reply":
            self.replies[index] = Studied(
                tokens=record["tokens"],
                entropy=np.array(record["entropy"]),
                ids=np.array(record["candidates"], np.int32),
                probabilities=np.array(record["probabilities"]),
                outside=np.array(record["outside"]),
                values=np.array(record["values"]),
            )
            return "reply", index
        place = Place(index, record["position"])
        self.rewards[place] = np.array(record["rewards"], np.float64)
        return "position", *place


def reply_record(prompt: PromptLine, reply: Reply, values: np.ndarray) -> dict[str, Any]:
    """A reply with its candidates.

    Args:
      prompt: its prompt.
      reply: with candidates recorded.
      values: [T, C] of these.

    Raises:
      ValueError: the policy's logits, or values, are not finite.
    """
    record = reply.candidates
    assert record is not None
    if reply.finish_reason == FinishReason.NON_FINITE or not np.isfinite(values).all():
        raise ValueError(f"prompt {prompt.id!r}: the policy's logits, or the values, are not finite")
    inside = np.exp(np.asarray(record.policy_logprobs, np.float64))
    mass = inside.sum(axis=-1, keepdims=True)
    return {
        "kind": "reply",
        "id": prompt.id,
        "index": prompt.index,
        "prompt": prompting.prompt_json(prompt),
        "text": reply.text,
        "finish_reason": reply.finish_reason.name.lower(),
        "tokens": reply.tokens.tolist(),
        "entropy": json_numbers(reply.entropy),
        "candidates": record.ids.tolist(),
        "probabilities": json_numbers((inside / mass).astype(np.float32)),
        "outside": json_numbers(np.maximum(0, 1 - mass[:, 0]).astype(np.float32)),
        "values": json_numbers(values),
    }


def position_record(
    prompt: PromptLine,
    task: Task,
    continuations: Sequence[Sequence[list[int]]],
    reward: RewardFunction,
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    """A position with the rewards of all that its candidates were followed by.

    Args:
      prompt: its prompt.
      task: the position.
      continuations: [K][M] ids after each candidate.
      reward: of finished replies.
      tokenizer: the policy's.

    Raises:
      ValueError: a reply without a reward.
    """

    def text(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    before = task.reply.tokens[: task.place.position]
    replies = [
        text([*before, token, *ids])
        for token, each in zip(task.candidates, continuations, strict=True)
        for ids in each
    ]
    asked = [[*(prompt.messages or ()), {"role": "assistant", "content": reply}] for reply in replies]
    outcomes = reward.score(asked)
    for outcome in outcomes:
        if outcome.reward is None:
            raise ValueError(
                f"prompt {prompt.id!r}: a reply has no reward, and the study takes one of each: {outcome.why}"
            )
    rewards = iter([outcome.reward for outcome in outcomes])
    return {
        "kind": "position",
        "id": prompt.id,
        "index": task.place.prompt,
        "prompt": prompting.prompt_json(prompt),
        "position": task.place.position,
        "candidates": task.candidates,
        "texts": [text([token]) for token in task.candidates],
        "rewards": [[next(rewards) for _ in each] for each in continuations],
    }


def summary_json(
    replies: Mapping[int, Studied],
    population: Population,
    drawn: Sequence[Drawn],
    figures: Mapping[str, Figure],
) -> dict[str, Any]:
    """How much was studied, and all figures."""
    return {
        "prompts": len(replies),
        "positions": len(population.prompts),
        "branching": int(population.branches.sum()),
        "drawn": len(drawn),
        "continuations": sum(each.rewards.size for each in drawn),
        "outside": float(np.mean(np.concatenate([replies[i].outside for i in sorted(replies)]))),
        "figures": {
            name: {what: number if math.isfinite(number) else None for what, number in asdict(figure).items()}
            for name, figure in figures.items()
        },
        "strata": [
            {"stratum": int(stratum), "low": float(own.min()), "high": float(own.max())}
            for stratum in np.unique(population.strata)
            for own in [population.entropies[population.strata == stratum]]
        ],
    }


def positions_json(
    ids: Sequence[str | int],
    places: Sequence[Place],
    population: Population,
    drawn: Sequence[Drawn],
    measured: Sequence[Measured],
) -> list[dict[str, Any]]:
    """Every position, with what rewards say where there are any.

    Args:
      ids: of all prompts.
      places: of the population.
      population: every position.
      drawn: those with rewards.
      measured: what these say.
    """
    golds = {each.place: (each, found) for each, found in zip(drawn, measured, strict=True)}
    lines = []
    for number, (index, t) in enumerate(places):
        line: dict[str, Any] = {
            "id": ids[index],
            "position": t,
            "entropy": float(population.entropies[number]),
            "value_spread": float(population.spreads[number]),
            "plain_value_spread": float(population.plain_spreads[number]),
            "lot_spread": float(population.lot_spreads[number]),
            "stratum": int(population.strata[number]),
        }
        if number in golds:
            each, found = golds[number]
            line["gold"] = {
                "weight": each.weight,
                "probabilities": each.probabilities.tolist(),
                "values": each.values.tolist(),
                "rewards": each.rewards.mean(axis=1).tolist(),
                **asdict(found),
            }
        lines.append(line)
    return lines
