"""Where the rewards of a run come from: reward models, functions, or a weighted sum; without weights."""

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
from sia_jax.text.templates import names_read

SETTINGS = (
    *("reward_weight", "further_reward_models", "reward_functions", "reward_functions_fingerprint"),
    "length_penalty",
)
"""What a run's settings say of a reward that is not a reward model's as it stands."""


GOLD_FUNCTION = "--gold-function"
"""The option of a second reward."""


@dataclass(frozen=True, kw_only=True)
class RewardArgs:
    """Options of a reward beside reward models'."""

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

    models: tuple[str, ...]
    """The reward models' folders or Hub ids, in the order of the sum's terms."""
    functions: tuple[RewardFunction, ...]
    total: WeightedSum
    length_penalty: float | None = None
    """Of a word; a part of the sum."""
    option: str = "--reward-function"
    """What gives the functions, for errors."""

    def settings(self, templates: Sequence[Mapping[str, str]] = ()) -> dict[str, Any]:
        """What the reward depends on beside the first reward model; JSON, and nothing for a model alone.

        Args:
          templates: variables of the models' chat templates.
        """
        weights = {term.name: term.weight for term in self.total.terms}
        found: dict[str, Any] = {}
        if self.models and self.total.terms[0].weight != 1:
            found["reward_weight"] = self.total.terms[0].weight
        if len(self.models) > 1:
            given = templates or [{}] * len(self.models)
            found["further_reward_models"] = {
                checkpoint_name(model): {
                    "weight": weights[checkpoint_name(model)],
                    "fingerprint": _fingerprint(model),
                    **template,
                }
                for model, template in list(zip(self.models, given, strict=True))[1:]
            }
        if self.functions:
            own = {function.name: function.fingerprint for function in self.functions}
            found["reward_functions"] = {name: weights[name] for name in own}
            found["reward_functions_fingerprint"] = own
        if self.length_penalty is not None:
            found["length_penalty"] = self.length_penalty
        return found

    @property
    def model_name(self) -> str | None:
        """What people call the first reward model; None: there is none."""
        return checkpoint_name(self.models[0]) if self.models else None

    def model_fingerprint(self) -> str | None:
        """What a run that goes on knows that model by."""
        return _fingerprint(self.models[0]) if self.models else None

    def described(self) -> str:
        """'module:function (fingerprint)' or 'reward model NAME (fingerprint)', of one that is no sum."""
        if not self.models:
            return f"{self.functions[0].name} ({self.functions[0].fingerprint})"
        return f"reward model {self.model_name} ({self.model_fingerprint()})"

    def provenance(self) -> dict[str, str]:
        """What the functions' modules say that they are made of."""
        return {what: text for function in self.functions for what, text in function.provenance.items()}

    def checks(
        self,
        prompts: Sequence[PromptLine],
        templates: Sequence[Mapping[str, str]],
        max_tokens: int | None,
        max_new_tokens: int,
    ) -> list[Callable[[PromptLine], None]]:
        """What finds out whether replies to a prompt can be scored, for each of what they are scored by.

        Args:
          prompts: all of them, conversations.
          templates: variables of the reward models' chat templates.
          max_tokens: of a conversation; None: as many as each reward model holds.
          max_new_tokens: of a reply.

        Raises:
          ValueError: what `preflight.reward_check` finds.
        """
        checks = [preflight.function_check(self.functions, prompts, self.option)]
        checks += [
            preflight.reward_check(model, max_tokens, template, max_new_tokens)
            for model, template in zip(self.models, templates, strict=True)
        ]
        return checks

    def templates(self, date_string: str | None, *, optional: bool = False) -> list[dict[str, str]]:
        """Variables of each reward model's chat template.

        A date is for the templates that write one; where none does, the first is left to refuse it.

        Args:
          date_string: that of --reward-date-string.
          optional: whether none need take the date, for another judge's template does.

        Raises:
          ValueError: what `preflight.reward_template` finds.
        """
        found = [preflight.reward_template(model, date_string, optional=True) for model in self.models]
        if found and date_string is not None and not optional and not any(found):
            found[0] = preflight.reward_template(self.models[0], date_string)
        return found

    def load(self, **options: Any) -> list[sia_jax.RewardModel]:
        """The reward models with their weights.

        Args:
          **options: of `sia_jax.load_reward_model`.
        """
        return [sia_jax.load_reward_model(model, **options) for model in self.models]


def find_reward(models: Sequence[str], args: RewardArgs) -> RewardSource:
    """The reward that options ask for, before anything else is read.

    Args:
      models: reward models, DIR or DIR=WEIGHT each, of --reward.
      args: the others.

    Raises:
      ValueError: no reward, a weight or a penalty out of its range, a folder whose name looks like a weight,
        a reward that is given twice, or a function that cannot be used.
      MissingExtraError: a function's package is missing.
    """
    functions, penalty = args.reward_function, args.length_penalty
    if not models and not functions:
        raise ValueError(
            "there is no reward: give --reward DIR, a reward model, or --reward-function MODULE:FUNCTION"
        )
    if penalty is not None and not 0 < penalty <= LARGEST:
        raise ValueError(f"--length-penalty must be a finite number above 0, got {penalty}")
    given = [weighted(model, "--reward") for model in models]
    terms, loaded = [Term(checkpoint_name(folder), weight, None) for folder, weight in given], []
    for text in functions:
        name, weight = weighted(text, "--reward-function")
        loaded.append(load_function(name, "--reward-function"))
        terms.append(function_term(loaded[-1], weight))
    if penalty is not None:
        terms.append(length_term(penalty))
    folders = tuple(folder for folder, _ in given)
    return RewardSource(folders, tuple(loaded), WeightedSum(tuple(terms)), penalty)


def reward_inputs(models: Sequence[str]) -> dict[str, str]:
    """The folders or Hub ids of reward models, by what errors call them.

    Args:
      models: as of `find_reward`.
    """
    folders = [weighted(model, "--reward")[0] for model in models]
    return {"--reward" if len(folders) == 1 else f"--reward {folder}": folder for folder in folders}


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
        return RewardSource((model,), (), model_alone(checkpoint_name(model)), option=GOLD_FUNCTION)
    if function is None:
        return None
    loaded = load_function(function, GOLD_FUNCTION)
    total = WeightedSum((function_term(loaded, 1.0),))
    return RewardSource((), (loaded,), total, option=GOLD_FUNCTION)


def _fingerprint(model: str) -> str:
    return fingerprint_of_reward_model(resolve_checkpoint(model))[:16]


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
    models: Sequence[str], date_string: str | None, dtype: str, max_tokens: int
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """(what labels depend on of the first model, variables of all chat templates); found without the weights.

    Args:
      models: folders or Hub ids of the reward models.
      date_string: for their chat templates; those that write no date go without, where another one takes it.
      dtype: of the weights, or "config".
      max_tokens: of a conversation.

    Raises:
      FileNotFoundError, ValueError: a model or a template that cannot score conversations.
    """
    names = ("reward_model", "reward_model_fingerprint", "dtype", "max_tokens", "date_string")
    if not models:
        return dict.fromkeys(names), []
    found = [_without_weights(model) for model in models]
    takers = [date_string is not None and _writes_date(one.tokenizer) for one, _ in found]
    templates = []
    for place, (model, folder) in enumerate(found):
        date = date_string if takers[place] or not any(takers) else None
        template = date_variables(model.tokenizer, date, str(folder))
        # A template that is missing, or that does not know a variable, would fail on every line.
        sample = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        model.conversation_ids(sample, **template)
        templates.append(template)
    first, folder = found[0]
    values = (
        first.name,
        _fingerprint(models[0]),
        read_config(folder).dtype if dtype == "config" else dtype,
        min(max_tokens, first.config.max_position_embeddings),
        templates[0].get("date_string"),
    )
    return dict(zip(names, values, strict=True)), templates


def _writes_date(tokenizer: Any) -> bool:
    return bool(tokenizer.chat_template) and "date_string" in names_read(tokenizer)


def _without_weights(path: str) -> tuple[sia_jax.RewardModel, Path]:
    """(a reward model as far as its files say it without the weights, its folder)."""
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
    return model, folder
