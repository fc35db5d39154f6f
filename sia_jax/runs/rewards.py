"""Where the rewards of a run come from: a reward model, functions, or a weighted sum; without weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

import sia_jax
from sia_jax.checkpoints.config_json import read_config
from sia_jax.checkpoints.fingerprint import fingerprint_of_reward_model
from sia_jax.checkpoints.hub import checkpoint_name, resolve_checkpoint
from sia_jax.checkpoints.vocabulary import load_tokenizer
from sia_jax.data.prompts import PromptLine
from sia_jax.rewards.functions import LARGEST, RewardFunction, load_function
from sia_jax.rewards.labelling import check_tokenizer
from sia_jax.rewards.weighted import Term, WeightedSum, function_term, length_term, model_alone
from sia_jax.runs import preflight
from sia_jax.runs.cli import Float
from sia_jax.text.forms import date_variables

SETTINGS = ("reward_weight", "reward_functions", "reward_functions_fingerprint", "length_penalty")
"""What a run's settings say of a reward that is not a reward model's as it stands."""


GOLD_FUNCTION = "--gold-function"
"""The option of a second reward."""


@dataclass(frozen=True, kw_only=True)
class RewardArgs:
    """Options of a reward beside the reward model's."""

    reward_function: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="FUNCTION")
    ] = ()
    """A program that gives the reward, as MODULE:FUNCTION or MODULE:FUNCTION=WEIGHT; a module of the current
    folder or an installed one. May be given again, and beside --reward: the reward is the weighted sum."""
    length_penalty: Float = None
    """What is taken off for each word of the reply, as white space parts them."""


@dataclass(frozen=True)
class RewardSource:
    """The reward of a run."""

    model: str | None
    """The reward model's folder or Hub id; None: there is none."""
    functions: tuple[RewardFunction, ...]
    total: WeightedSum
    length_penalty: float | None = None
    """Of a word; a part of the sum."""
    option: str = "--reward-function"
    """What gives the functions, for errors."""

    def settings(self) -> dict[str, Any]:
        """What the reward depends on beside the reward model; JSON, and nothing for a model alone."""
        weights = {term.name: term.weight for term in self.total.terms}
        found: dict[str, Any] = {}
        if self.total.has_model and self.total.terms[0].weight != 1:
            found["reward_weight"] = self.total.terms[0].weight
        if self.functions:
            own = {function.name: function.fingerprint for function in self.functions}
            found["reward_functions"] = {name: weights[name] for name in own}
            found["reward_functions_fingerprint"] = own
        if self.length_penalty is not None:
            found["length_penalty"] = self.length_penalty
        return found

    @property
    def model_name(self) -> str | None:
        """What people call the reward model."""
        return None if self.model is None else checkpoint_name(self.model)

    def model_fingerprint(self) -> str | None:
        """What a run that goes on knows the reward model by."""
        if self.model is None:
            return None
        return fingerprint_of_reward_model(resolve_checkpoint(self.model))[:16]

    def described(self) -> str:
        """'module:function (fingerprint)' or 'reward model NAME (fingerprint)', of one that is no sum."""
        if self.model is None:
            return f"{self.functions[0].name} ({self.functions[0].fingerprint})"
        return f"reward model {self.model_name} ({self.model_fingerprint()})"

    def provenance(self) -> dict[str, str]:
        """What the functions' modules say that they are made of."""
        return {what: text for function in self.functions for what, text in function.provenance.items()}

    def checks(
        self,
        prompts: Sequence[PromptLine],
        template: Mapping[str, str],
        max_tokens: int | None,
        max_new_tokens: int,
    ) -> list[Callable[[PromptLine], None]]:
        """What finds out whether replies to a prompt can be scored, for each of what they are scored by.

        Args:
          prompts: all of them, conversations.
          template: variables of the reward model's chat template.
          max_tokens: of a conversation; None: as many as the reward model holds.
          max_new_tokens: of a reply.

        Raises:
          ValueError: what `preflight.reward_check` finds.
        """
        checks = [preflight.function_check(self.functions, prompts, self.option)]
        if self.model is not None:
            checks.append(preflight.reward_check(self.model, max_tokens, template, max_new_tokens))
        return checks

    def template(self, date_string: str | None, *, optional: bool = False) -> dict[str, str]:
        """Variables of the reward model's chat template; nothing without a model.

        Args:
          date_string: that of --reward-date-string.
          optional: whether a template that writes no date is left as it is, for another one takes the date.

        Raises:
          ValueError: what `preflight.reward_template` finds.
        """
        if self.model is None:
            return {}
        return preflight.reward_template(self.model, date_string, optional=optional)

    def load(self, **options: Any) -> sia_jax.RewardModel | None:
        """The reward model with its weights; None: there is none.

        Args:
          **options: of `sia_jax.load_reward_model`.
        """
        return None if self.model is None else sia_jax.load_reward_model(self.model, **options)


def find_reward(model: str | None, args: RewardArgs) -> RewardSource:
    """The reward that options ask for, before anything else is read.

    Args:
      model: a reward model, DIR or DIR=WEIGHT, of --reward; None: none.
      args: the others.

    Raises:
      ValueError: no reward, a weight or a penalty out of its range, a folder whose name looks like a weight,
        a reward that is given twice, or a function that cannot be used.
      MissingExtraError: a function's package is missing.
    """
    functions, penalty = args.reward_function, args.length_penalty
    if model is None and not functions:
        raise ValueError(
            "there is no reward: give --reward DIR, a reward model, or --reward-function MODULE:FUNCTION"
        )
    if penalty is not None and not 0 < penalty <= LARGEST:
        raise ValueError(f"--length-penalty must be a finite number above 0, got {penalty}")
    terms, loaded, folder = [], [], None
    if model is not None:
        folder, weight = weighted(model, "--reward")
        terms.append(Term(checkpoint_name(folder), weight, None))
    for text in functions:
        name, weight = weighted(text, "--reward-function")
        loaded.append(load_function(name, "--reward-function"))
        terms.append(function_term(loaded[-1], weight))
    if penalty is not None:
        terms.append(length_term(penalty))
    return RewardSource(folder, tuple(loaded), WeightedSum(tuple(terms)), penalty)


def find_judge(model: str | None, function: str | None) -> RewardSource | None:
    """A second reward, that nothing was trained on or chosen by; None: none is asked for.

    Args:
      model: a reward model, of --gold-reward.
      function: MODULE:FUNCTION, of --gold-function.

    Raises:
      ValueError: both, or a function that cannot be used.
      MissingExtraError: a function's package is missing.
    """
    if model is not None and function is not None:
        raise ValueError("--gold-reward and --gold-function are two gold rewards; give one of them")
    if model is not None:
        return RewardSource(model, (), model_alone(checkpoint_name(model)), option=GOLD_FUNCTION)
    if function is None:
        return None
    loaded = load_function(function, GOLD_FUNCTION)
    total = WeightedSum((function_term(loaded, 1.0),))
    return RewardSource(None, (loaded,), total, option=GOLD_FUNCTION)


def weighted(text: str, option: str) -> tuple[str, float]:
    """(name, weight) of NAME=WEIGHT, or of NAME, whose weight is 1.

    What stands behind the last "=" is a weight if it is a number, else a part of the name.

    Raises:
      ValueError: a weight that is not finite, or a folder of this very name, which may be meant.
    """
    name, equals, last = text.rpartition("=")
    try:
        weight = float(last)
    except ValueError:
        return text, 1.0
    if not equals or not name:
        return text, 1.0
    if Path(text).exists():
        raise ValueError(f"{option} {text} is the name of a folder, and may be a weight; say {text}=1 for it")
    if not abs(weight) <= LARGEST:
        raise ValueError(f"{option} {text}: the weight must be a finite number, got {weight}")
    return name, weight


def model_settings(
    path: str | None, date_string: str | None, dtype: str, max_tokens: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """(what labels depend on of a reward model, variables of its chat template); found without the weights.

    Args:
      path: of the reward model; None: there is none.
      date_string: for its chat template.
      dtype: of the weights, or "config".
      max_tokens: of a conversation.

    Raises:
      FileNotFoundError, ValueError: a model or a template that cannot score conversations.
    """
    names = ("reward_model", "reward_model_fingerprint", "dtype", "max_tokens", "date_string")
    if path is None:
        return dict.fromkeys(names), {}
    folder = resolve_checkpoint(path)
    checkpoint = read_config(folder)
    if checkpoint.kind != "reward":
        raise ValueError(
            f"{folder} is a {checkpoint.architecture}, a reward model is a ForSequenceClassification; "
            "name another --reward"
        )
    tokenizer = load_tokenizer(folder)
    if tokenizer is None:
        raise ValueError(f"{folder} has no tokenizer; copy it from the original checkpoint")
    model = sia_jax.RewardModel(checkpoint.model, {}, tokenizer, checkpoint_name(path))
    check_tokenizer(model)
    # A template that is missing, or that does not know a variable, would fail on every line.
    sample = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    template = date_variables(tokenizer, date_string, str(folder))
    model.conversation_ids(sample, **template)
    values = (
        model.name,
        fingerprint_of_reward_model(folder)[:16],
        checkpoint.dtype if dtype == "config" else dtype,
        min(max_tokens, checkpoint.model.max_position_embeddings),
        template.get("date_string"),
    )
    return dict(zip(names, values, strict=True)), template
