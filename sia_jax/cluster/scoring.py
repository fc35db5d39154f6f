"""Rewards of conversations, by actors that hold the reward models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sia_jax
from sia_jax.cluster.sampling import check_same
from sia_jax.rewards.labelling import Outcome
from sia_jax.rewards.weighted import labeller_of
from sia_jax.runs.compilation_cache import keep_compiled
from sia_jax.runs.processes import mesh_of_all
from sia_jax.runs.provenance import made_here
from sia_jax.runs.rewards import RewardArgs, RewardSource, find_reward, model_settings
from sia_jax.text.chat import Message

_BLOCKS = 4
"""Of few conversations, for each actor."""


@dataclass(frozen=True)
class Conversation:
    """One that is to be scored.

    Args:
      number: of its line.
      messages: of the conversation, unchecked.
    """

    number: int
    messages: Sequence[Message]


@dataclass(frozen=True)
class ScoringRecipe:
    """What an actor's rewards are made of: those of a run without Ray, on the actor's devices.

    Args:
      models: of --reward, where every machine finds them.
      args: further rewards; functions of modules that every machine has.
      dtype: of the weights; None: as config.json says.
      date_string: for the chat templates.
      max_tokens: of a conversation.
      batch_tokens: of a batch.
      mesh: of --mesh.
      settings: of the run, as the driver's models say.
      keeps_compiled: whether what is compiled is kept for the next process.
      smaller: what makes the work smaller where the memory is full.
      units: conversations of a block.
    """

    models: tuple[str, ...]
    args: RewardArgs
    dtype: str
    date_string: str | None
    max_tokens: int
    batch_tokens: int
    mesh: tuple[int, int, int]
    settings: Mapping[str, Any]
    keeps_compiled: bool
    smaller: str
    units: int
    calls: int = 1

    def make(self) -> "Scorer":
        """Load the reward models and functions.

        Raises:
          FileNotFoundError, ValueError: models or modules that are not here, or others than the driver's; a
            mesh of other devices than this actor's.
          MissingExtraError: a function's package is missing.
        """
        if self.keeps_compiled:
            keep_compiled()
        reward = find_reward(self.models, self.args)
        settings, templates = model_settings(reward.models, self.date_string, self.dtype, self.max_tokens)
        check_same(settings | reward.settings(templates), self.settings)
        dtype = None if self.dtype == "config" else self.dtype
        models = reward.load(dtype=dtype, mesh=mesh_of_all(self.mesh, distributed=False))
        made_by = made_here(batch_tokens=self.batch_tokens, mesh=list(self.mesh))
        return Scorer(self, reward, models, templates, made_by)


def scored_at_a_time(missing: int, actors: int) -> int:
    """Conversations of a block: some blocks for each actor, so that none waits long for the last one.

    Args:
      missing: conversations without a reward.
      actors: that score.
    """
    # Of many they are large, for the last batch of each length of a block is not full.
    return max(16, min(256, missing // (_BLOCKS * actors)))


@dataclass(frozen=True)
class Scorer:
    """A recipe's rewards.

    Args:
      recipe: what they were made of.
      reward: the sum.
      models: its reward models.
      templates: variables of their chat templates.
      made_by: what rewards' bits depend on.
    """

    recipe: ScoringRecipe
    reward: RewardSource
    models: Sequence[sia_jax.RewardModel]
    templates: Sequence[Mapping[str, str]]
    made_by: dict[str, Any]

    def work(self, units: Sequence[Conversation]) -> list[Outcome]:
        """What became of each conversation of a block."""
        labeller = labeller_of(
            self.reward.total,
            self.models,
            self.templates,
            batch_tokens=self.recipe.batch_tokens,
            max_tokens=self.recipe.max_tokens,
        )
        batches = [labeller.add(unit.number, unit.messages) for unit in units]
        return [outcome for batch in (*batches, *labeller.finish()) for outcome in batch]
