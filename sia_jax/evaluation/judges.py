"""What replies of a comparison are judged by: the reward, the gold reward, a second language model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sia_jax
from sia_jax.data.prompts import PromptLine
from sia_jax.evaluation.fluency import FluencyScorer
from sia_jax.evaluation.scoring import Aside, Scorer
from sia_jax.runs import runner
from sia_jax.runs.fluency import FluencySource, find_fluency
from sia_jax.runs.options import Models, SamplingArgs
from sia_jax.runs.rewards import RewardArgs, RewardSource, find_judge, find_reward


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """What a run asks to judge by.

    Args:
      reward: reward models, DIR or DIR=WEIGHT each.
      further: rewards beside these.
      reward_date_string: for the reward models' chat templates.
      reward_max_tokens: of the longest conversation that the reward scores; None: as many as a model holds.
      gold_reward: a reward model that nothing is chosen by.
      gold_function: or a program.
      fluency_model: a second language model.
      fluency_date_string: for its chat template.
    """

    reward: tuple[str, ...]
    further: RewardArgs
    reward_date_string: str | None
    reward_max_tokens: int | None
    gold_reward: str | None
    gold_function: str | None
    fluency_model: str | None
    fluency_date_string: str | None


@dataclass(frozen=True)
class Judges:
    """All that judges, without weights.

    Args:
      options: what was asked for.
      reward: what best-of-n chooses by too.
      gold: None: there is none.
      fluency: likewise.
      templates: variables of the chat templates of the reward's models.
      gold_templates: of the gold reward's.
    """

    options: JudgeOptions
    reward: RewardSource
    gold: RewardSource | None
    fluency: FluencySource | None
    templates: Sequence[dict[str, str]]
    gold_templates: Sequence[dict[str, str]]

    def checks(
        self, prompts: Sequence[PromptLine], max_new_tokens: int
    ) -> list[Callable[[PromptLine], None]]:
        """What finds out whether replies to a prompt can be judged, by each.

        Args:
          prompts: all of them, conversations.
          max_new_tokens: of a reply.

        Raises:
          ValueError: what `RewardSource.checks` finds.
        """
        most = self.options.reward_max_tokens
        found = self.reward.checks(prompts, self.templates, most, max_new_tokens)
        if self.gold is not None:
            found += self.gold.checks(prompts, self.gold_templates, None, max_new_tokens)
        if self.fluency is not None:
            found.append(self.fluency.check(max_new_tokens))
        return found

    def settings(self) -> dict[str, Any]:
        """What judgements depend on; JSON."""
        return {
            "reward": self.reward.model_name,
            "reward_fingerprint": self.reward.model_fingerprint(),
            "reward_date_string": self.templates[0].get("date_string") if self.templates else None,
            **self.reward.settings(self.templates),
            "reward_max_tokens": self.options.reward_max_tokens,
            "gold": False if self.gold is None else self.gold.described(),
            **{f"gold_{name}": text for own in self.gold_templates for name, text in own.items()},
            **({} if self.fluency is None else self.fluency.settings()),
        }

    def provenance(self) -> dict[str, str]:
        """What the functions' modules say that they are made of."""
        sources = [self.reward] if self.gold is None else [self.reward, self.gold]
        return {what: text for source in sources for what, text in source.provenance().items()}


@dataclass(frozen=True, eq=False)
class Loaded:
    """All models of a comparison, with their weights.

    Args:
      models: that reply.
      reward: the reward's models.
      gold: the gold reward's; none where there is none.
      fluency: the second language model; None: there is none.
    """

    models: Models
    reward: Sequence[sia_jax.RewardModel]
    gold: Sequence[sia_jax.RewardModel]
    fluency: sia_jax.Policy | None

    @classmethod
    def of(cls, args: SamplingArgs, judges: Judges) -> "Loaded":
        """Load them.

        Args:
          args: of the run.
          judges: of the run.

        Raises:
          FileNotFoundError, ValueError: models that cannot be loaded, or a mesh of other devices.
        """
        models = runner.load_models(args)
        dtype = None if args.dtype == "config" else args.dtype
        options = {"dtype": dtype, "mesh": args.make_mesh()}
        return cls(
            models,
            judges.reward.load(**options),
            [] if judges.gold is None else judges.gold.load(**options),
            None if judges.fluency is None else judges.fluency.load(**options),
        )


@dataclass(frozen=True, eq=False)
class Scorers:
    """What judges replies.

    Args:
      reward: of what is sampled and of what is chosen.
      gold: of what is chosen; None: there is none.
      fluency: likewise.
    """

    reward: Scorer
    gold: Scorer | None
    fluency: FluencyScorer | None

    @classmethod
    def of(cls, loaded: Loaded, judges: Judges, aside: Aside) -> "Scorers":
        """Those of loaded models.

        Args:
          loaded: their weights.
          judges: what they are asked.
          aside: entered while something is compiled.
        """
        most, total = judges.options.reward_max_tokens, judges.reward.total
        gold = fluency = None
        if judges.gold is not None:
            gold = Scorer(loaded.gold, aside, judges.gold_templates, total=judges.gold.total)
        if judges.fluency is not None and loaded.fluency is not None:
            fluency = FluencyScorer(loaded.fluency, judges.fluency.prompting, aside)
        return cls(Scorer(loaded.reward, aside, judges.templates, most, total), gold, fluency)


def find_judges(options: JudgeOptions) -> Judges:
    """All that judges, before any weights are read.

    Args:
      options: what is asked for.

    Raises:
      FileNotFoundError, ValueError: one that cannot judge.
      MissingExtraError: a function's package is missing.
    """
    reward = find_reward(options.reward, options.further)
    gold = find_judge(options.gold_reward, options.gold_function)
    fluency = find_fluency(options.fluency_model, options.fluency_date_string)
    date, has_other = options.reward_date_string, bool(reward.models)
    of_gold = [] if gold is None else gold.templates(date, optional=has_other)
    return Judges(options, reward, gold, fluency, reward.templates(date, optional=any(of_gold)), of_gold)
