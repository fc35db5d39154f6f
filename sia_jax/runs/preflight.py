"""Every prompt against all models that will read it, before anything is sampled."""

from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import sia_jax
from sia_jax.checkpoints.config_json import read_config
from sia_jax.checkpoints.hub import checkpoint_name, resolve_checkpoint
from sia_jax.checkpoints.value_model import folder_of_value_model, recorded_markup_of, recorded_states_of
from sia_jax.checkpoints.vocabulary import load_tokenizer
from sia_jax.data.prompts import PromptLine
from sia_jax.models.config import ValueConfig
from sia_jax.rewards.functions import RewardFunction
from sia_jax.rewards.labelling import check_tokenizer
from sia_jax.runs import prompting, runner
from sia_jax.runs.options import Models, SamplingArgs
from sia_jax.text.forms import Prompting, date_variables
from sia_jax.text.templates import TemplateRefusal, names_read

TOLD = 20
"""Offenders that are told with what is wrong; of more than these the ids."""

_REPLY = {"role": "assistant", "content": "a"}


def policy_ids(
    prompts: Sequence[PromptLine],
    models: Models,
    args: SamplingArgs,
    settled: Prompting | None,
    checks: Sequence[Callable[[PromptLine], None]] = (),
) -> list[Sequence[int]]:
    """The prompts as the policy sees them, each fit for the policy, the value and the reward model.

    Args:
      prompts: all of them.
      models: with or without weights; without a value model it is not asked.
      args: of the run.
      settled: how prompts are made, `prompting.find_prompting`.
      checks: each raises ValueError for a prompt whose replies could not be scored.

    Raises:
      ValueError: prompts that do not fit, all of them by their ids; or options that none of them looks at.
    """
    prompting.check_made(prompts, args)
    found: list[Sequence[int]] = []
    wrong: dict[str | int, list[str]] = {}
    for prompt in prompts:
        own: Sequence[int] = ()
        problems = []
        try:
            own = prompting.policy_ids(models.policy, prompt, args, settled)
            prompting.value_ids(models, prompt, own, args)
        except ValueError as error:
            problems.append(str(error))
        for check in checks:
            try:
                check(prompt)
            except ValueError as error:
                problems.append(str(error))
        found.append(array("i", own))  # an int of a list takes nine times as much
        if problems:
            wrong[prompt.id] = problems
    if wrong:
        raise ValueError(_report(wrong, len(prompts)))
    return found


def value_without_weights(args: SamplingArgs, policy: sia_jax.Policy) -> sia_jax.ValueModel | None:
    """The value model as far as prompts need it: its size and its tokenizer.

    Args:
      args: of the run.
      policy: under the value model, where it brings no backbone of its own.
    """
    if args.value is None:
        return None
    folder, backbone = folder_of_value_model(args.value), runner.value_backbone(args)
    base = resolve_checkpoint(backbone) if backbone is not None else None
    config = policy.config if base is None else read_config(base).model
    tokenizer = load_tokenizer(folder) or (policy.tokenizer if base is None else load_tokenizer(base))
    name = checkpoint_name(args.value)
    value = ValueConfig(config)
    if recorded_states_of(folder) == "policy":
        value = ValueConfig(config, "vocab", 1, states="policy")  # no prompt depends on the rank
    return sia_jax.ValueModel(value, {}, None, tokenizer, name, recorded_markup_of(folder))


def reward_template(path: str, date_string: str | None, *, optional: bool = False) -> dict[str, str]:
    """Variables of a reward model's chat template.

    Args:
      path: of the reward model.
      date_string: that of --reward-date-string.
      optional: whether a template that writes no date may be given one, and is left as it is.

    Raises:
      ValueError: no tokenizer, or a template that writes today's date.
    """
    folder = resolve_checkpoint(path)
    tokenizer = load_tokenizer(folder)
    if tokenizer is None:
        raise ValueError(f"{folder} has no tokenizer; copy it from the original checkpoint")
    if optional and tokenizer.chat_template and "date_string" not in names_read(tokenizer):
        date_string = None
    return date_variables(tokenizer, date_string, str(folder), "--reward-date-string")


def reward_check(
    path: str, max_tokens: int | None, template: Mapping[str, str], max_new_tokens: int
) -> Callable[[PromptLine], None]:
    """What finds out whether replies to a prompt can be scored: by template, roles, and the longest reply.

    The longest reply is taken to have --max-new-tokens tokens for the reward model too. One of another
    tokenizer may still have more; then it is not scored, and counted.

    Args:
      path: of the reward model.
      max_tokens: of a conversation; None: as many as the model holds.
      template: variables of its chat template.
      max_new_tokens: of a reply.

    Raises:
      ValueError: --reward-max-tokens is more than the model holds, a tokenizer of another model, or a chat
        template that leaves out question or reply.
    """
    folder = resolve_checkpoint(path)
    config = read_config(folder).model
    model = sia_jax.RewardModel(config, {}, load_tokenizer(folder), checkpoint_name(path))
    check_tokenizer(model)
    # What is wrong for every prompt is said once.
    question, reply = {"role": "user", "content": "a"}, _REPLY
    with suppress(TemplateRefusal):  # prompts of another form it may take
        model.conversation_ids([question, reply], **template)
    held = config.max_position_embeddings
    if max_tokens is not None and not 1 <= max_tokens <= held:
        raise ValueError(
            f"--reward-max-tokens must lie in 1 .. {held}, what the reward model holds, got {max_tokens}"
        )
    most = held if max_tokens is None else max_tokens

    def check(prompt: PromptLine) -> None:
        assert prompt.messages is not None
        try:
            shortest = len(model.conversation_ids([*prompt.messages, reply], **template)) - 1
        except ValueError as error:
            raise ValueError(
                f"prompt {prompt.id!r}: the reward model's chat template refuses it: {error}"
            ) from error
        if shortest + max_new_tokens > most:
            more = "" if most == held else f", raise --reward-max-tokens (the model holds {held:,})"
            raise ValueError(
                f"prompt {prompt.id!r} has {shortest:,} ids for the reward model, and with the longest reply "
                f"{shortest + max_new_tokens:,}, of at most {most:,}; cut it, or lower --max-new-tokens{more}"
            )

    return check


def function_check(
    functions: Sequence[RewardFunction], prompts: Sequence[PromptLine], option: str
) -> Callable[[PromptLine], None]:
    """What finds out whether reward functions know a prompt: all are asked at once, with a reply of a letter.

    Args:
      functions: any number of them.
      prompts: all of them.
      option: what gives the functions.
    """
    wrong: dict[int, str] = {}
    known = [prompt for prompt in prompts if prompt.messages is not None]
    for function in functions:
        asked = [[*(prompt.messages or ()), _REPLY] for prompt in known]
        for prompt, outcome in zip(known, function.score(asked), strict=True):
            if outcome.reason == "failed":
                why = f"prompt {prompt.id!r} has no reward of {option}, leave it out: {outcome.why}"
                wrong.setdefault(prompt.index, why)

    def check(prompt: PromptLine) -> None:
        if prompt.messages is None:
            raise ValueError(f"prompt {prompt.id!r} is one of ids, and {option} scores conversations")
        if prompt.index in wrong:
            raise ValueError(wrong[prompt.index])

    return check


def _report(wrong: Mapping[str | int, Sequence[str]], total: int) -> str:
    """All that do not fit: some with what is wrong, the rest by their ids; what is no prompt's own, once."""
    if len(set(map(tuple, wrong.values()))) == 1:
        return "; ".join(next(iter(wrong.values())))
    ids = list(wrong)
    lines = [f"{len(wrong):,} of {total:,} prompts do not fit the models:"]
    lines += [f"  {'; '.join(wrong[name])}" for name in ids[:TOLD]]
    if len(ids) > TOLD:
        lines.append(f"  and likewise {', '.join(repr(name) for name in ids[TOLD:])}")
    return "\n".join(lines)
