"""Lines of a file of replies to prompts: what they say, and whether a file has those of other prompts."""

import json
import math
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from sia_jax.data.prompts import PromptLine
from sia_jax.engine.reply import Reply, json_threshold
from sia_jax.runs.journal import place_in
from sia_jax.runs.prompting import prompt_json


@dataclass(frozen=True)
class ReplyLines:
    """Replies by the place of their prompt, their number and the method.

    Args:
      prompts: all of the run.
      seed: of prompts that bring none.
      threshold: likewise.
      prompt_ids: of each, `sia_jax.runs.prompt_ids`.
      unsteered: methods that have none, whatever a prompt brings.
    """

    prompts: Sequence[PromptLine]
    seed: int
    threshold: float
    prompt_ids: Sequence[str]
    unsteered: Collection[str] = ()

    def record(self, index: int, branch: int, method: str, reply: Reply) -> dict[str, Any]:
        """A line, in JSON."""
        return self.line(index, branch, method, reply.to_json())

    def line(self, index: int, branch: int, method: str, reply: dict[str, Any]) -> dict[str, Any]:
        """The same of what `Reply.to_json` says, perhaps on another machine."""
        return {
            **self._own(index, method),
            "index": index,
            "branch": branch,
            "method": method,
            "prompt": prompt_json(self.prompts[index]),
            **reply,
        }

    def key(self, record: dict[str, Any]) -> Hashable:
        """(index, branch, method) of a line.

        Raises:
          KeyError: a field is not there.
          ValueError: it is of another prompt, or of one that brought other numbers.
        """
        index, method = place_in(record, "index"), record["method"]
        ours = json.dumps(prompt_json(self.prompts[index])) if index < len(self.prompts) else None
        if json.dumps(record["prompt"]) != ours:
            raise ValueError(f"prompt {record['id']!r} is not the input's prompt at place {index}")
        own = self._own(index, method)
        differing = [name for name, value in own.items() if record[name] != value]
        if differing:
            changes = ", ".join(f"{name} {record[name]!r} (now {own[name]!r})" for name in differing)
            raise ValueError(f"the prompt at place {index} was another line: {changes}")
        return index, place_in(record, "branch"), method

    @staticmethod
    def order(record: dict[str, Any]) -> tuple[int, int, str]:
        """Where a line stands: by the place of its prompt, its number and its method, base before steered."""
        return record["index"], record["branch"], record["method"]

    def _own(self, index: int, method: str) -> dict[str, Any]:
        """What a line says of its prompt's, beside the prompt itself."""
        prompt = self.prompts[index]
        threshold = self.threshold if prompt.threshold is None else prompt.threshold
        return {
            "id": prompt.id,
            "seed": self.seed if prompt.seed is None else prompt.seed,
            "threshold": json_threshold(math.inf if method in self.unsteered else threshold),
            "prompt_id": self.prompt_ids[index],
        }
