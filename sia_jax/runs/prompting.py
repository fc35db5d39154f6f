"""Prompts as the policy and the value model of a run see them, and how they are made."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sia_jax
from sia_jax.data.prompts import PromptLine, parse_prompts, read_prompts
from sia_jax.files.shown import shown_value
from sia_jax.models.config import ModelConfig
from sia_jax.runs.cli import check_used
from sia_jax.runs.console import Terminal
from sia_jax.runs.options import Models, SamplingArgs
from sia_jax.text.forms import Prompting, settle
from sia_jax.text.templates import TemplateRefusal


def read_prompt_file(
    path: str, column: str | None, system: str | None = None, *, takes_stdin: bool = False
) -> list[PromptLine]:
    """The prompts of a file, and a line on stderr that says what it was read as.

    Args:
      path: the file; "-": stdin.
      column: see `sia_jax.data.prompts.read_prompts`.
      system: likewise.
      takes_stdin: whether the program reads its prompts once.

    Raises:
      OSError, ValueError: what `sia_jax.data.prompts.read_prompts` finds.
    """
    if path == "-" and not takes_stdin:
        raise ValueError("--prompts must be a file, which is read again later; write standard input to one")
    if path == "-":
        found = parse_prompts(sys.stdin.buffer.read(), "stdin", system, column)
    else:
        found = read_prompts(Path(path), system, column)
    name = "stdin" if path == "-" else path
    Terminal(stderr=True).say(f"{name}: {len(found):,} prompts, read as {found.form}")
    return list(found)


def find_prompting(policy: sia_jax.Policy, args: SamplingArgs) -> Prompting | None:
    """What the options on prompts come to for this policy; None: it has no tokenizer, and takes ids alone.

    Raises:
      ValueError: a template that writes today's date, or one that cannot be read.
    """
    if policy.tokenizer is None:
        return None
    return settle(
        policy.name,
        policy.tokenizer,
        form=args.prompt_form,
        thinking=args.thinking,
        date_string=args.date_string,
        official=args.preset == "official",
    )


def announce(found: Prompting | None, prompts: Sequence[PromptLine], console: Terminal) -> None:
    """Say once how the prompts are made, and why; of prompts in ids there is nothing to say."""
    if found is not None and any(prompt.messages is not None for prompt in prompts):
        for line in found.why:
            console.say(line, "dim")


def check_made(prompts: Sequence[PromptLine], args: SamplingArgs) -> None:
    """Options on how prompts are made are not given where all of them are ids already.

    Raises:
      ValueError: one is.
    """
    if all(prompt.messages is None for prompt in prompts):
        names = ("prompt_form", "thinking", "date_string", "system")
        check_used(args, names, "prompts of text or messages")


def policy_ids(
    policy: sia_jax.Policy, prompt: PromptLine, args: SamplingArgs, found: Prompting | None = None
) -> Sequence[int]:
    """A prompt as the policy sees it.

    Args:
      policy: with or without weights.
      prompt: a conversation, or ids.
      args: the options.
      found: what `find_prompting` finds, so that it is not found for each prompt; None: it is found here.

    Raises:
      ValueError: ids that the policy does not know, a prompt that leaves no room for the reply, or what
        `find_prompting` and `Policy.prompt_ids` find.
    """
    if prompt.messages is None:
        assert prompt.policy_ids is not None
        ids: Sequence[int] = prompt.policy_ids
    else:
        found = found or find_prompting(policy, args)
        try:
            # Without a tokenizer `Policy.prompt_ids` says what is missing.
            form, variables = (None, {}) if found is None else (found.form, found.variables)
            ids = policy.prompt_ids(prompt.messages, form, **variables)
        except TemplateRefusal as error:
            raise ValueError(
                f"prompt {prompt.id!r}: the policy's chat template refuses it: {error.why}"
            ) from error
    _check_ids(f"prompt {prompt.id!r}", ids, policy.config, args)
    return ids


def value_ids(
    models: Models, prompt: PromptLine, policy_ids: Sequence[int], args: SamplingArgs
) -> Sequence[int]:
    """The same prompt as the value model sees it, or a head on the policy's states; see `policy_ids`."""
    if models.value is None or not models.value.config.runs_passes:
        return policy_ids
    if prompt.messages is None:
        ids = policy_ids if prompt.value_ids is None else prompt.value_ids
    else:
        ids = models.value.prompt_ids(prompt.messages)
    _check_ids(f"prompt {prompt.id!r}, for the value model", ids, models.value.config.backbone, args)
    return ids


def prompt_json(prompt: PromptLine) -> Any:
    """What a record says of its prompt: the conversation; of a prompt in ids, those."""
    if prompt.messages is not None:
        return [dict(message) for message in prompt.messages]
    ids = {"prompt_ids": prompt.policy_ids, "value_ids": prompt.value_ids}
    return {name: list(values) for name, values in ids.items() if values is not None}


def check_room(model: ModelConfig, args: SamplingArgs) -> None:
    """The longest reply leaves room for a prompt.

    Raises:
      ValueError: it does not.
    """
    if args.max_new_tokens >= model.max_position_embeddings:
        raise ValueError(
            f"--max-new-tokens must be below the model's {model.max_position_embeddings} positions, which "
            f"hold the prompt too, got {args.max_new_tokens}"
        )


def refuse_own_numbers(prompts: Sequence[PromptLine], setters: str) -> None:
    """No line brings numbers which the program sets for all of them.

    Args:
      prompts: all of them.
      setters: what sets them: "the methods".

    Raises:
      ValueError: one has a seed or a threshold of its own.
    """
    for prompt in prompts:
        if prompt.seed is not None or prompt.threshold is not None:
            raise ValueError(
                f"prompt {shown_value(prompt.id, 60)} brings a seed or a threshold, which {setters} set; "
                "leave both out of the file"
            )


def _check_ids(name: str, ids: Sequence[int], model: ModelConfig, args: SamplingArgs) -> None:
    if max(ids) >= model.vocab_size:
        raise ValueError(f"{name}: ids must lie in 0 .. {model.vocab_size - 1}, got {max(ids)}")
    check_room(model, args)
    room = model.max_position_embeddings - args.max_new_tokens
    if len(ids) > room:
        raise ValueError(
            f"{name} has {len(ids)} ids, and the model's {model.max_position_embeddings} positions less "
            f"--max-new-tokens {args.max_new_tokens} leave room for {room}; cut it, or lower --max-new-tokens"
        )
